"""The chain as it is trained: stages one after the other on crops, with the loss terms of each.

Each stage learns on what the stage before really gives it, and the error of the last reaches the weights of the
first; but where refined results are judged, each stage is taught by itself, on results of detail 0 to 1. Nothing is
clamped and nothing tiled; otherwise it is the arithmetic of `core.chain`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..adaptive_noise import laplace_nll
from ..chain import Chain
from ..fusion import fuse
from ..resample import resample
from ..residual import skip
from ..stage import Stage
from .config import LossConfig
from .losses import ImageTerms, pixel_loss
from .noise_maps import StepNoise, training_map
from .share import Share

TIME_RANGE = (0.05, 1.0)
TIMES = (1.0, 1.0, 1.0, 0.75, 0.5, 0.25)  # at which refined estimates are judged, half of them at the first


def unrolled_losses(
    chain: Chain, share: Share, loss: LossConfig, image_terms: ImageTerms | None = None
) -> dict[str, Tensor]:
    """Runs the chain over some crops.

    Args:
        chain: the model in training.
        share: crops at `stages + 1` scales.
        loss: weights; terms of weight 0 are not computed.
        image_terms: further terms of each stage's result.

    Returns:
        unweighted terms by name, each a scalar averaged over the stages, times the weight of the share. Without noisy
        crops there are none of the noisy paths.
    """
    scales = share.batch.scales
    image, pixel = scales[0], pixel_loss(loss.pixel, loss.channel)
    terms: dict[str, list[Tensor]] = {}
    for number, target in enumerate(scales[1:], 1):
        stage = chain.stage(number)
        up = stage.upsampler(image)
        output = stage.denoiser.regression(up)
        found = _noisy_terms(stage, up, target, share, number, loss)
        before = resample(image, (target.shape[2], target.shape[3]))
        output = _skip_and_fuse(stage, output, before)
        results = [output]
        random = StepNoise(share.seed, number, share.size, list(share.items), output)
        if loss.judge == "refined":
            results.append(_refined(stage, up, before, random))
        if loss.output:
            found["output"] = share.weight * torch.stack([pixel(result, target) for result in results]).sum()
        if loss.upsampler:
            found["upsampler"] = share.weight * pixel(up, target)
        if loss.controller:
            known = up.detach()
            expected = stage.controller(known)
            found["controller"] = share.weight * laplace_nll(target - known, expected)
        if image_terms is not None:
            found |= {name: share.weight * value for name, value in image_terms(results[-1], target).items()}
        for name, value in found.items():
            terms.setdefault(name, []).append(value)
        image = output if len(results) == 1 else _at_some_detail(*results, random)
    return {name: torch.stack(values).mean() for name, values in terms.items()}


def weighted_sum(terms: dict[str, Tensor], loss: LossConfig) -> Tensor:
    """The total of the terms by the weights of `loss`."""
    return torch.stack([getattr(loss, name) * value for name, value in terms.items()]).sum()


def _noisy_terms(
    stage: Stage, up: Tensor, target: Tensor, share: Share, number: int, loss: LossConfig
) -> dict[str, Tensor]:
    """The losses of the noisy paths on the share's noisy crops; 0 where the noisy ones are all in other shares."""
    names = [name for name in ("refine", "blind") if getattr(loss, name)]
    if not share.noisy or not names:
        return {}
    denoiser = stage.denoiser
    if not share.local:  # what they would have taught has no gradient here, and is there all the same
        nothing = 0.0 * torch.stack([value.sum() for value in denoiser.parameters()]).sum()
        return dict.fromkeys(names, nothing)
    # the noisy paths teach the denoiser, not the upsampler
    y, x = up[share.local].detach(), target[share.local]
    random = StepNoise(share.seed, number, share.noisy, share.noisy_items, y)
    sigma = denoiser.config.sigma_r * training_map(y, random, share.noise)
    noise, eta = random.normal(), random.uniform(*TIME_RANGE)
    terms = {}
    if loss.refine:
        z = (1 - eta) * (x - y) + eta.sqrt() * sigma * noise
        c_out = denoiser.coefficients(sigma, eta)[1]
        error = (denoiser(z, y, sigma, eta) - x).abs() / c_out
        terms["refine"] = share.noisy_weight * denoiser.config.sigma_r * error.mean()
    if loss.blind:
        error = (denoiser.blind(y + sigma * noise, sigma) - x).abs() / denoiser.blind_error(sigma)
        terms["blind"] = share.noisy_weight * denoiser.config.sigma_r * error.mean()
    return terms


def _refined(stage: Stage, up: Tensor, before: Tensor, random: StepNoise) -> Tensor:
    """What detail 1 shows: an estimate from the noise that the controller asks for, at one of `TIMES`.

    Of times below 1, the state is one that the sampler comes to, not one made of the truth, which it would give away:
    it holds what the model itself finds at time 1.
    """
    denoiser, y = stage.denoiser, up.detach()  # the upsampler is left to the pixel losses
    sigma = stage.config.kappa * stage.controller(y).detach()
    noise = sigma * random.normal()
    place = (random.uniform() * len(TIMES)).long()
    eta = torch.tensor(TIMES, device=y.device)[place]
    z, later = noise, eta.flatten() < 1
    if later.any():
        known, seen, part = y[later], noise[later], eta[later]
        with torch.no_grad():
            found = denoiser(seen, known, sigma[later], torch.ones_like(part)) - known
        z = noise.clone()
        z[later] = (1 - part) * found + part.sqrt() * seen
    return _skip_and_fuse(stage, denoiser(z, y, sigma, eta), before)


def _at_some_detail(output: Tensor, refined: Tensor, random: StepNoise) -> Tensor:
    """What the next stage may get: a result of any detail, another one of each image, without gradient."""
    return output.detach().lerp(refined.detach(), random.uniform())


def _skip_and_fuse(stage: Stage, current: Tensor, before: Tensor) -> Tensor:
    current = skip(current, before, mode="weighted", model=stage.skip_weights)
    return fuse([before, current], mode="learned", model=stage.weights).image
