"""The chain as it is trained: stages one after the other on crops, with the loss terms of each.

Each stage learns on what the stage before really gives it, and the error of the last reaches the weights of the
first. Nothing is clamped and nothing tiled; otherwise it is the arithmetic of `core.chain`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..adaptive_noise import adaptive_sigma, laplace_nll
from ..chain import Chain
from ..fusion import fuse
from ..resample import resample
from ..residual import skip
from ..stage import Stage
from .config import LossConfig
from .data import Batch
from .losses import pixel_loss

# sigma of the training noise in units of sigma_r: from one that hardly shows to one that hides the detail
NOISE_RANGE = (0.25, 4.0)
TIME_RANGE = (0.05, 1.0)


# unweighted terms by name of (a stage's result, its target), each [B, 3, h, w]
ImageTerms = Callable[[Tensor, Tensor], dict[str, Tensor]]


def unrolled_losses(
    chain: Chain,
    batch: Batch,
    loss: LossConfig,
    noisy: float,
    generator: torch.Generator,
    image_terms: ImageTerms | None = None,
) -> dict[str, Tensor]:
    """Runs the chain over a batch.

    Args:
        chain: the model in training.
        batch: crops at `stages + 1` scales.
        loss: weights; terms of weight 0 are not computed.
        noisy: part of the batch that also goes through the noisy paths.
        generator: of the step, on the CPU.
        image_terms: further terms of each stage's result.

    Returns:
        unweighted terms by name, each a scalar averaged over the stages.

    Raises:
        ValueError: the only terms with a weight need noisy crops, and there are none.
    """
    image, pixel = batch.scales[0], pixel_loss(loss.pixel)
    terms: dict[str, list[Tensor]] = {}
    for number, target in enumerate(batch.scales[1:], 1):
        stage = chain.stage(number)
        up = stage.upsampler(image)
        count = round(noisy * target.shape[0])
        output, extra = _denoised(stage, up, target, count, loss, generator)
        before = resample(image, (target.shape[2], target.shape[3]))
        output = _skip_and_fuse(stage, output, before)
        if loss.output:
            terms.setdefault("output", []).append(pixel(output, target))
        if loss.upsampler:
            terms.setdefault("upsampler", []).append(pixel(up, target))
        if loss.controller:
            known = up.detach()
            terms.setdefault("controller", []).append(laplace_nll(target - known, stage.controller(known)))
        if image_terms is not None:
            extra |= image_terms(output, target)
        for name, value in extra.items():
            terms.setdefault(name, []).append(value)
        image = output
    if not terms:
        raise ValueError(f"noisy: expected a part of the batch of {image.shape[0]} for the only terms, got {noisy}")
    return {name: torch.stack(values).mean() for name, values in terms.items()}


def weighted_sum(terms: dict[str, Tensor], loss: LossConfig) -> Tensor:
    """The total of the terms by the weights of `loss`."""
    return torch.stack([getattr(loss, name) * value for name, value in terms.items()]).sum()


def _denoised(
    stage: Stage, up: Tensor, target: Tensor, count: int, loss: LossConfig, generator: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """The regression of the whole batch, and the losses of the noisy paths on its first `count` crops."""
    denoiser, ones = stage.denoiser, up.new_ones(1, 1, 1, 1)
    output = denoiser(torch.zeros_like(up), up, torch.zeros_like(up[:, :1]), ones)
    extra: dict[str, Tensor] = {}
    if count == 0:
        return output, extra
    y, x = up[:count].detach(), target[:count]  # the noisy paths teach the denoiser, not the upsampler
    sigma = _training_sigma(y, denoiser.config.sigma_r, generator)
    noise = torch.randn(y.shape, generator=generator).to(y.device)  # drawn on the CPU: the same on every device
    if loss.refine:
        low, high = TIME_RANGE
        eta = low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator).to(y.device)
        z = (1 - eta) * (x - y) + eta.sqrt() * sigma * noise
        c_out = denoiser.coefficients(sigma, eta)[1]
        error = (denoiser(z, y, sigma, eta) - x).abs() / c_out
        extra["refine"] = denoiser.config.sigma_r * error.mean()
    if loss.blind:
        half = max(count // 2, 1)
        level = sigma[:half]
        tau = (denoiser.config.sigma_r**2 + level**2).sqrt()
        error = (denoiser.blind(y[:half] + level * noise[:half], level) - x[:half]).abs() / tau
        extra["blind"] = denoiser.config.sigma_r * error.mean()
    return output, extra


def _training_sigma(y: Tensor, sigma_r: float, generator: torch.Generator) -> Tensor:
    """Mixed maps: half uniform, half along the gradient, at levels spread evenly on a log scale."""
    B = y.shape[0]
    low, high = NOISE_RANGE
    level = low * (high / low) ** torch.rand(B, 1, 1, 1, generator=generator).to(y.device)
    uniform = torch.rand(B, 1, 1, 1, generator=generator).to(y.device) < 0.5
    edges = adaptive_sigma(y.clamp(0, 1), "gradient", 1.0, 1.0)
    return sigma_r * level * torch.where(uniform, torch.ones_like(edges), edges)


def _skip_and_fuse(stage: Stage, current: Tensor, before: Tensor) -> Tensor:
    current = skip(current, before, mode="weighted", model=stage.skip_weights)
    return fuse([before, current], mode="learned", model=stage.weights).image
