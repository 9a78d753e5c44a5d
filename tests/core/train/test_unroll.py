from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from progressive_upsampling.core.adaptive_noise import NoiseController, NoiseControllerConfig, laplace_nll
from progressive_upsampling.core.chain import Chain, ChainConfig
from progressive_upsampling.core.denoiser import Denoiser
from progressive_upsampling.core.train.config import LossConfig
from progressive_upsampling.core.train.data import Batch
from progressive_upsampling.core.train.losses import PIXEL_LOSSES
from progressive_upsampling.core.train.setup import training_autocast
from progressive_upsampling.core.train.share import Share, items_of
from progressive_upsampling.core.train.unroll import TIME_RANGE, TIMES, unrolled_losses, weighted_sum

from .conftest import tiny_chain, tiny_stage

NOISE = (0.25, 4.0)
NAMES = ("output", "upsampler", "refine", "blind", "controller")


def only(*names: str) -> LossConfig:
    return replace(LossConfig(), **(dict.fromkeys(NAMES, 0.0) | dict.fromkeys(names, 1.0)))


def batch(stages: int, crop: int = 8, count: int = 2) -> Batch:
    """Values well inside 0..1, which nothing clamps."""
    generator = torch.Generator().manual_seed(stages)
    shapes = [(count, 3, crop * 2**k, crop * 2**k) for k in range(stages + 1)]
    return Batch(tuple(0.3 + 0.4 * torch.rand(shape, generator=generator) for shape in shapes))


@pytest.fixture
def chain() -> Chain:
    """A small chain that is not at birth, so that every part does something."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        chain = Chain(tiny_chain())
        with torch.no_grad():
            for name, parameter in chain.named_parameters():
                parameter.add_(0.1 if "skip_weights" in name else 0.03 * torch.randn(parameter.shape))
    return chain


def losses(chain: Chain, crops: Batch, loss: LossConfig, noisy: float = 0.5) -> dict[str, torch.Tensor]:
    return unrolled_losses(chain, share_of(crops, noisy), loss)


def share_of(crops: Batch, noisy: float = 0.5, seed: int = 5, items: tuple[int, ...] | None = None) -> Share:
    """Some crops of a step, or all of them in one share."""
    size = crops.scales[0].shape[0]
    chosen = tuple(range(size)) if items is None else items
    part = Batch(tuple(scale[list(chosen)] for scale in crops.scales))
    return Share(part, chosen, size, 1 if items is None else size // len(items), round(noisy * size), NOISE, seed)


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_what_is_trained_is_what_the_chain_does(chain, stages):
    crops = batch(stages)
    results = chain.stages_of(crops.scales[0], 2**stages, dtype="fp32")
    expected = [(r - target).abs().mean() for r, target in zip(results, crops.scales[1:], strict=True)]
    assert min(r.min() for r in results) > 0.05 and max(r.max() for r in results) < 0.95
    assert torch.allclose(losses(chain, crops, only("output"))["output"], torch.stack(expected).mean(), atol=1e-6)


def test_a_stage_is_given_what_the_stage_before_made(chain):
    crops, given = batch(2), []
    for stage in chain.stages:
        stage.upsampler.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].detach()))
    losses(chain, crops, only("output"))
    first = chain.stages_of(crops.scales[0], 2, dtype="fp32")[0]
    assert torch.equal(given[0], crops.scales[0]) and torch.allclose(given[1], first, atol=1e-6)


def test_the_last_target_reaches_the_weights_of_the_first_stage(chain):
    def gradients(last_target: torch.Tensor) -> dict[str, torch.Tensor]:
        chain.zero_grad()
        scales = (*batch(2).scales[:-1], last_target)
        weighted_sum(losses(chain, Batch(scales), only("output")), only("output")).backward()
        return {n: p.grad.clone() for n, p in chain.stage(1).named_parameters() if p.grad is not None}

    before, after = gradients(torch.zeros(2, 3, 32, 32)), gradients(torch.ones(2, 3, 32, 32))
    same = {name for name, gradient in before.items() if torch.equal(gradient, after[name])}
    assert len(before) > 40 and all(".gates." in name for name in same), same  # whose one hidden unit may be off
    assert {name.split(".")[0] for name in set(before) - same} == {"upsampler", "denoiser", "weights", "skip_weights"}


@pytest.mark.parametrize("name", NAMES)
def test_a_term_alone_is_the_only_one_computed(chain, name):
    assert list(losses(chain, batch(2), only(name))) == [name]


def test_terms_of_weight_0_cost_nothing(chain, monkeypatch):
    def never(*_: object) -> None:
        raise AssertionError("computed")

    monkeypatch.setattr(Denoiser, "blind", never)
    monkeypatch.setattr(NoiseController, "forward", never)
    monkeypatch.setattr(Denoiser, "forward", never)
    calls, regression = [], Denoiser.regression
    monkeypatch.setattr(Denoiser, "regression", lambda self, *a: calls.append(1) or regression(self, *a))
    losses(chain, batch(2), only("output", "upsampler"))
    assert len(calls) == 2  # one of each stage


def test_terms_do_not_depend_on_the_weights_of_others(chain):
    every = losses(chain, batch(2), LossConfig())
    for name in ("output", "upsampler", "controller"):
        assert torch.equal(losses(chain, batch(2), only(name))[name], every[name])


def test_without_noisy_crops_there_are_no_noisy_terms(chain):
    assert set(losses(chain, batch(1), LossConfig(), noisy=0.0)) == {"output", "upsampler", "controller"}
    assert losses(chain, batch(1), only("refine"), noisy=0.0) == {}


def test_the_total_is_the_weighted_sum():
    loss = LossConfig(output=2.0, upsampler=0.5)
    terms = {"output": torch.tensor(3.0), "upsampler": torch.tensor(4.0)}
    assert weighted_sum(terms, loss) == 8.0


@pytest.mark.parametrize("name", ["refine", "blind"])
def test_noisy_terms_teach_the_denoiser_alone(chain, name):
    # one stage: in the next, the state they start from is that of the first stage's output, which is detached, too
    losses(chain, batch(1), only(name))[name].backward()
    touched = {n.split(".")[2] for n, p in chain.named_parameters() if p.grad is not None and p.grad.any()}
    assert touched == {"denoiser"}


def test_the_controllers_term_reaches_the_controller_alone(chain):
    losses(chain, batch(2), only("controller"))["controller"].backward()
    touched = {n.split(".")[2] for n, p in chain.named_parameters() if p.grad is not None and p.grad.any()}
    assert touched == {"controller"}


def test_no_other_term_reaches_the_controller(chain):
    loss = replace(LossConfig(), controller=0.0)
    weighted_sum(losses(chain, batch(2), loss), loss).backward()
    for stage in chain.stages:
        assert all(p.grad is None for p in stage.controller.parameters())


def test_the_noise_is_that_of_the_generator(chain):
    crops = batch(1)
    first = losses(chain, crops, only("refine", "blind"))
    again = losses(chain, crops, only("refine", "blind"))
    other = unrolled_losses(chain, share_of(crops, seed=6), only("refine", "blind"))
    assert all(torch.equal(first[name], again[name]) and first[name] != other[name] for name in first)


def test_the_controller_learns_how_large_errors_are():
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        controller = NoiseController(NoiseControllerConfig(width=8))
    flat = torch.full((1, 3, 16, 16), 0.5)
    rough = (flat + 0.2 * torch.randn(flat.shape, generator=generator)).clamp(0, 1)
    # Laplace errors of mean 0.004 where the image is flat and 0.08 where it is rough
    signs = torch.randint(0, 2, flat.shape, generator=generator) * 2 - 1
    sizes = -torch.rand(flat.shape, generator=generator).log() * signs
    optimizer = torch.optim.Adam(controller.parameters(), 0.03)
    for _ in range(150):
        loss = laplace_nll(0.004 * sizes, controller(flat)) + laplace_nll(0.08 * sizes, controller(rough))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for image, size in ((flat, 0.004), (rough, 0.08)):
        assert controller(image)[..., 4:-4, 4:-4].mean().item() == pytest.approx(size, rel=0.3)


def test_what_other_threads_do_does_not_change_the_rounding_of_gradients(chain):
    def gradients() -> list[torch.Tensor]:
        chain.zero_grad()
        with training_autocast(torch.device("cpu"), torch.bfloat16):
            terms = losses(chain, batch(1), LossConfig())
        weighted_sum(terms, LossConfig()).backward()
        return [p.grad.clone() for p in chain.parameters() if p.grad is not None]

    def leave_autocast() -> None:  # as resampling does in the thread that makes the crops
        with torch.autocast("cpu", enabled=False):
            pass

    before = gradients()
    with ThreadPoolExecutor(1) as other:
        for module in chain.stage(1).denoiser.modules():
            module.register_forward_pre_hook(lambda *_: other.submit(leave_autocast).result())
        after = gradients()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("kind", ["l1", "l2", "charbonnier"])
def test_the_pixel_loss_is_the_one_chosen(chain, kind):
    crops = batch(1)
    found = losses(chain, crops, replace(only("output", "upsampler"), pixel=kind))
    result = chain(crops.scales[0], 2, dtype="fp32")
    assert torch.allclose(found["output"], PIXEL_LOSSES[kind](result, crops.scales[1]), atol=1e-6)
    up = chain.stage(1).upsampler(crops.scales[0])
    assert torch.equal(found["upsampler"], PIXEL_LOSSES[kind](up, crops.scales[1]))


def test_further_terms_are_averaged_over_the_stages(chain):
    seen = []

    def image_terms(output: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        seen.append((output, target))
        return {"ssim": torch.tensor(float(len(seen)))}

    crops = batch(2)
    terms = unrolled_losses(chain, share_of(crops, 0.0), only("output"), image_terms)
    assert terms["ssim"] == 1.5 and torch.equal(seen[1][1], crops.scales[2])
    expected = torch.stack([(output - target).abs().mean() for output, target in seen]).mean()
    assert torch.equal(terms["output"], expected)


@pytest.mark.parametrize("shares", [2, 3, 6])
def test_the_mean_over_shares_is_the_loss_of_the_whole_batch(chain, shares):
    crops = batch(2, count=6)
    whole = losses(chain, crops, LossConfig(), noisy=0.5)  # three noisy crops, so that some shares of six have none
    parts = [unrolled_losses(chain, share_of(crops, items=items_of(k, shares, 6)), LossConfig()) for k in range(shares)]
    assert all(part.keys() == whole.keys() for part in parts)
    for name, value in whole.items():
        mean = torch.stack([part[name] for part in parts]).mean()
        assert torch.allclose(mean, value, rtol=1e-5, atol=1e-7), name


def test_shares_of_unequal_size_are_weighted(chain):
    crops = batch(1, count=5)
    whole = losses(chain, crops, LossConfig())["output"]
    parts = [items_of(0, 2, 5), items_of(1, 2, 5)]
    shares = [Share(share_of(crops, items=items).batch, items, 5, 2, 2, NOISE, 5) for items in parts]
    assert [len(share.items) for share in shares] == [3, 2]
    parts = [unrolled_losses(chain, share, LossConfig())["output"] for share in shares]
    assert torch.allclose(torch.stack(parts).mean(), whole, rtol=1e-6)


def test_terms_on_pictures_see_the_result_that_they_are_to_judge(chain):
    crops, seen = batch(1, count=4), {}

    def record(judge: str):
        def image_terms(output: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
            seen[judge] = output
            return {"ssim": (output - target).square().mean()}

        return image_terms

    for judge in ("output", "refined"):
        loss = replace(only("output"), judge=judge)
        chain.zero_grad()
        unrolled_losses(chain, share_of(crops), loss, record(judge))["ssim"].backward()
        touched = {n.split(".")[2] for n, p in chain.named_parameters() if p.grad is not None and p.grad.any()}
        expected = {"denoiser", "skip_weights", "weights"}
        assert touched == (expected if judge == "refined" else expected | {"upsampler"})
    assert not torch.allclose(seen["output"], seen["refined"], atol=1e-3)
    whole = seen["refined"].detach()
    for k in range(2):  # each share sees what the whole batch would give it
        share = share_of(crops, items=items_of(k, 2, 4))
        unrolled_losses(chain, share, replace(only("output"), judge="refined"), record("part"))
        assert torch.allclose(seen["part"], whole[list(share.items)], atol=1e-6)


REFINED = replace(only("output"), judge="refined")


def judged(chain: Chain, crops: Batch, loss: LossConfig) -> list[torch.Tensor]:
    """What the terms on pictures are shown, stage by stage."""
    seen = []

    def image_terms(result: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        seen.append(result.detach())
        return {}

    unrolled_losses(chain, share_of(crops), loss, image_terms)
    return seen


def test_a_refined_result_has_nothing_of_the_truth(chain):
    crops = batch(1, count=8)
    other = Batch((crops.scales[0], 1 - crops.scales[1]))
    assert torch.equal(judged(chain, crops, REFINED)[0], judged(chain, other, REFINED)[0])


def test_a_refined_result_is_one_that_the_sampler_comes_to(chain):
    crops = batch(1, count=32)
    stage, calls = chain.stage(1), []
    stage.denoiser.unet.register_forward_pre_hook(lambda _, inputs: calls.append(inputs[0][:, 7, 0, 0].detach()))
    judged(chain, crops, REFINED)
    regression, first, judged_at = calls
    assert len(regression) == len(judged_at) == 32 and set(judged_at.tolist()) == set(TIMES)
    assert torch.equal(first, torch.ones((judged_at < 1).sum()))  # what the later ones go on from


def test_pixels_of_the_refined_result_count_beside_those_of_the_regression(chain):
    crops = batch(1)
    found = losses(chain, crops, REFINED)["output"]
    regression, refined = (judged(chain, crops, loss)[0] for loss in (only("output"), REFINED))
    expected = sum((result - crops.scales[1]).abs().mean() for result in (regression, refined))
    assert torch.allclose(found, expected, atol=1e-6)


def test_beside_refined_results_stages_are_taught_each_by_itself(chain):
    crops, given = batch(2, count=4), []
    regression, refined = (judged(chain, crops, loss)[0] for loss in (only("output"), REFINED))
    chain.stages[1].upsampler.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].detach()))
    losses(chain, crops, REFINED)["output"].backward()
    both = [p.grad.clone() for p in chain.stages[0].parameters() if p.grad is not None]
    chain.zero_grad()
    losses(chain, Batch(crops.scales[:2]), REFINED)["output"].backward()
    alone = [p.grad for p in chain.stages[0].parameters() if p.grad is not None]
    assert all(torch.allclose(2 * x, y, atol=1e-7) for x, y in zip(both, alone, strict=True))  # a mean of two stages
    # the second stage gets a result of another detail from each crop
    part = ((given[0] - regression) / (refined - regression)).flatten(1).median(1).values
    assert part.min() > 0 and part.max() < 1 and len(set(part.tolist())) == 4
    details = part[:, None, None, None]
    assert torch.allclose(given[0], regression.lerp(refined, details), atol=1e-5)


def test_noisy_losses_are_errors_in_units_of_what_is_expected():
    chain, crops = Chain(tiny_chain(1)), batch(1, count=32)
    sigma_r = chain.stage(1).denoiser.config.sigma_r
    with torch.no_grad():
        up = chain.stage(1).upsampler(crops.scales[0])
    error = sigma_r * torch.randn(up.shape, generator=torch.Generator().manual_seed(1))
    terms = losses(chain, Batch((crops.scales[0], up + error)), only("refine", "blind"), noisy=1.0)
    for name in ("refine", "blind"):  # at birth the estimates are the best that do not look at the picture
        assert terms[name].item() == pytest.approx(sigma_r * math.sqrt(2 / math.pi), rel=0.1), name


def test_refined_states_have_the_noise_of_their_time():
    chain = Chain(ChainConfig((replace(tiny_stage(), kappa=2.0),)))
    crops, calls = batch(1, count=32), []
    chain.stage(1).denoiser.unet.register_forward_pre_hook(lambda _, inputs: calls.append(inputs[0].detach()))
    judged(chain, crops, REFINED)
    state, times = calls[-1][:, :3], calls[-1][:, 7, 0, 0]
    for eta in set(TIMES):  # at birth nothing is found at time 1: a state of a later time is noise alone
        expected = math.sqrt(4 * eta / ((1 - eta) ** 2 + 4 * eta))
        assert state[times == eta].std().item() == pytest.approx(expected, rel=0.05), eta


def test_the_times_of_noisy_crops_are_spread_over_their_range(chain):
    calls = []
    chain.stage(1).denoiser.unet.register_forward_pre_hook(lambda _, inputs: calls.append(inputs[0][:, 7, 0, 0]))
    losses(chain, batch(1, count=64), only("refine"), noisy=1.0)
    times = calls[-1]
    assert len(times) == 64 and TIME_RANGE[0] <= times.min() < 0.15 and times.max() > 0.9
