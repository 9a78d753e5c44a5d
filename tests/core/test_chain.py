from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from progressive_upsampling.core.chain import Chain, ChainConfig, Settings
from progressive_upsampling.core.checkpoint import CheckpointError
from progressive_upsampling.core.noise import KINDS, inject_noise
from progressive_upsampling.core.progress import OnStep
from progressive_upsampling.core.resample import resample
from progressive_upsampling.core.sizes import stage_sizes
from progressive_upsampling.core.upsamplers import load_upsampler

from .tiny import largest_difference, picture, random_chain, untrained_chain

Call = tuple[float, float, "Tensor | None"]
FP32: dict[str, Any] = {"dtype": "fp32"}


@pytest.fixture(scope="module")
def chain() -> Chain:
    """A small chain of two stages of which every part does something."""
    return random_chain()


def bicubic_stages(image: Tensor, sizes: list[tuple[int, int]]) -> list[Tensor]:
    images = [image]
    for size in sizes:
        images.append(resample(images[-1], size).clamp(0, 1))
    return images[1:]


# At birth.


def test_an_untrained_chain_is_bicubic_stage_by_stage() -> None:
    image = picture(10, 13)
    stages = untrained_chain().stages_of(image, 8, **FP32)
    expected = bicubic_stages(image, [(20, 26), (40, 52), (80, 104)])
    for stage, truth in zip(stages, expected, strict=True):
        assert largest_difference(stage, truth) < 1e-5


def test_a_chain_that_has_learned_something_is_not_bicubic(chain: Chain) -> None:
    image = picture(10, 13)
    assert largest_difference(chain(image, 4, **FP32), bicubic_stages(image, [(20, 26), (40, 52)])[-1]) > 0.01


# Tiles.


@pytest.mark.parametrize(("detail", "size"), [(0.0, 0.2), (0.7, 0.15)])
def test_the_result_does_not_depend_on_the_tile(detail: float, size: float) -> None:
    # Weights so large that half of the halo would show. With detail the same weights would make chaos of rounding:
    # on some CPUs another number of threads alone then changes the result by 0.05.
    chain, image = random_chain(size=size), picture(50, 41)
    run = FP32 | {"detail": detail, "steps": 2}
    whole = chain.stages_of(image, 4, tile=10**6, **run)
    for tile in (64, 96):
        for a, b in zip(chain.stages_of(image, 4, tile=tile, **run), whole, strict=True):
            assert largest_difference(a, b) < 1e-4


@pytest.mark.parametrize("module", ["denoise", "upsample"])
def test_little_free_memory_means_more_tiles_and_the_same_picture(
    chain: Chain, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    image, heard = picture(300, 305), []
    settings: dict[str, Any] = FP32 | {"detail": 0.5, "on_step": lambda *_: heard.append(1)}
    plenty, steps = chain(image, 2, **settings), len(heard)
    monkeypatch.setattr(sys.modules[f"progressive_upsampling.core.{module}"], "working_memory", lambda device: 0.0)
    assert largest_difference(chain(image, 2, **settings), plenty) < 1e-4
    assert len(heard) - steps > steps


# Seeds and batches.

DETAILED: dict[str, Any] = FP32 | {"detail": 0.8, "steps": 2}


def test_the_same_seed_gives_the_same_picture_to_the_bit(chain: Chain) -> None:
    image = picture(12, 17)
    for kind in KINDS:
        a, b = (chain(image, 3, seed=5, distribution=kind, **DETAILED) for _ in range(2))
        assert torch.equal(a, b)


def test_another_seed_gives_another_picture(chain: Chain) -> None:
    image = picture(12, 17)
    a, b = (chain(image, 4, seed=seed, **DETAILED) for seed in (5, 2**40 + 5))
    assert largest_difference(a, b) > 0.01


def test_each_stage_has_noise_of_its_own(chain: Chain) -> None:
    # Both stages have the same size here, so that the same noise would be the same tensor.
    image, stage = picture(12, 17), chain.stage(1)
    sigma = stage.sigma(image)
    a, b = (inject_noise(image, sigma, 5, number) for number in (1, 2))
    assert not torch.equal(a, b)
    results = [stage.denoise(noisy, sigma, image, detail=1.0, steps=2, dtype="fp32") for noisy in (a, b)]
    assert largest_difference(*results) > 0.01


def test_without_detail_the_seed_does_not_matter(chain: Chain) -> None:
    image = picture(12, 17)
    assert torch.equal(chain(image, 2, seed=1), chain(image, 2, seed=2))


@pytest.mark.parametrize("group", [1, 2, 100])
def test_what_else_is_in_the_batch_does_not_matter(chain: Chain, group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    images = picture(12, 17, batch=3)
    monkeypatch.setattr("progressive_upsampling.core.chain.GROUP_PIXELS", group * 48 * 68)
    together = chain.stages_of(images, 4, seed=5, **DETAILED)
    for i in range(3):
        alone = chain.stages_of(images[i : i + 1], 4, seed=5, **DETAILED)
        for a, b in zip(together, alone, strict=True):
            assert largest_difference(a[i : i + 1], b) < 1e-5


@pytest.mark.parametrize("group", [1, 2, 100])
def test_every_image_can_have_a_seed_of_its_own(chain: Chain, group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("progressive_upsampling.core.chain.GROUP_PIXELS", group * 24 * 34)
    images = picture(12, 17).expand(3, -1, -1, -1)
    together = chain(images, 2, seed=[5, 9, 5], **DETAILED)
    assert largest_difference(together[0], together[2]) < 1e-6
    assert largest_difference(together[0], together[1]) > 0.01
    assert largest_difference(together[1:2], chain(images[:1], 2, seed=9, **DETAILED)) < 1e-5
    torch.testing.assert_close(chain(images, 2, seed=5, **DETAILED)[:1], together[:1])


# Sizes.


@pytest.mark.parametrize("detail", [0.0, 0.5])
@pytest.mark.parametrize(
    ("size", "scale", "target"),
    [
        ((1, 1), 4, (4, 4)),
        ((3, 100), 2, (6, 200)),
        ((7, 9), 3.3, (23, 30)),
        ((7, 9), 1.01, (7, 9)),
        ((20, 20), 1.04, (21, 21)),
        ((7, 9), None, (50, 10)),
        ((30, 9), None, (15, 18)),
    ],
)
def test_any_size_is_reached(
    chain: Chain, size: tuple[int, int], scale: float | None, target: tuple[int, int], detail: float
) -> None:
    image = picture(*size)
    stages = chain.stages_of(image, scale, None if scale else target, detail=detail, steps=1)
    wanted = stage_sizes(*size, *target) or [target]
    assert [stage.shape for stage in stages] == [(1, 3, *each) for each in wanted]
    for stage in stages:
        assert stage.dtype is torch.float32
        assert stage.isfinite().all() and stage.min() >= 0 and stage.max() <= 1


def test_a_long_strip_works(chain: Chain) -> None:
    assert chain(picture(3, 700), 2).shape == (1, 3, 6, 1400)


@pytest.mark.parametrize("target", [(33, 47), (16, 47), (5, 5)])
def test_nothing_to_enlarge_is_only_resampled(chain: Chain, target: tuple[int, int]) -> None:
    image = picture(channels=4)
    calls: list[Call] = []
    (out,) = chain.stages_of(image, size=target, on_step=lambda *call: calls.append(call))
    assert torch.equal(out, resample(image, target).clamp(0, 1))
    assert calls[-1][0] == calls[-1][1] == 1


def test_calling_gives_the_last_stage(chain: Chain) -> None:
    image = picture(7, 9)
    assert torch.equal(chain(image, 4), chain.stages_of(image, 4)[-1])
    assert torch.equal(chain(image, size=(28, 36)), chain(image, 4))


# What users steer.


@pytest.mark.parametrize("noise", ["learned", "gradient", "uniform"])
def test_strength_0_is_detail_0(chain: Chain, noise: str) -> None:
    image = picture(12, 17)
    assert torch.equal(chain(image, 4, strength=0.0, detail=0.9, noise=noise), chain(image, 4, detail=0.0))


def test_more_detail_is_further_from_none(chain: Chain) -> None:
    image = picture(20, 20)
    base = chain(image, 2, **FP32)
    distances = [
        (chain(image, 2, detail=detail, steps=2, **FP32) - base).abs().mean().item() for detail in (0.0, 0.3, 0.6, 1.0)
    ]
    assert distances[0] == 0 and distances == sorted(set(distances))


@pytest.mark.parametrize(
    "changes",
    [
        {"strength": 0.5},
        {"noise": "gradient"},
        {"noise": "uniform"},
        {"distribution": "uniform"},
        {"distribution": "correlated"},
        {"steps": 1},
        {"skip": 0.5},
        {"skip": 0.0},
        {"fusion": False},
    ],
    ids=str,
)
def test_every_setting_does_something(chain: Chain, changes: dict[str, Any]) -> None:
    image = picture(12, 17)
    assert largest_difference(chain(image, 2, **DETAILED), chain(image, 2, **(DETAILED | changes))) > 1e-4


@pytest.mark.parametrize("detail", [0.0, 0.7])
def test_colour_is_carried_as_it_is(chain: Chain, detail: float) -> None:
    run = FP32 | {"detail": detail, "steps": 1}
    rgba = picture(9, 11, channels=4, batch=2)
    out = chain(rgba, 4, **run)
    assert largest_difference(out[:, :3], chain(rgba[:, :3], 4, **run)) < 1e-6
    assert largest_difference(out[:, 3:], bicubic_stages(rgba[:, 3:], [(18, 22), (36, 44)])[-1]) < 1e-5
    grey = picture(9, 11, channels=1)
    out = chain(grey, 4, **run)
    assert out.shape == (1, 1, 36, 44)
    assert largest_difference(out, bicubic_stages(grey, [(18, 22), (36, 44)])[-1]) < 0.25


def test_inputs_and_weights_are_not_changed(chain: Chain) -> None:
    weights = {name: value.clone() for name, value in chain.state_dict().items()}
    for channels in (1, 3, 4):
        for scale in (1, 2, 4, 0.5):
            image = picture(9, 11, channels=channels)
            before = image.clone()
            for stage in chain.stages_of(image, scale, detail=0.5, steps=1):
                stage.zero_()
            assert torch.equal(image, before)
    assert all(torch.equal(value, weights[name]) for name, value in chain.state_dict().items())


def test_the_result_needs_no_gradient(chain: Chain) -> None:
    image = picture(5, 5).requires_grad_()
    for scale in (1, 2):
        for upsampler in (None, "bicubic"):
            assert not chain(image, scale, upsampler=upsampler, fusion=False).requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_result_is_float32_whatever_comes_in(chain: Chain, dtype: torch.dtype) -> None:
    image = picture(5, 7).to(dtype)
    for scale in (1, 2, 4):
        out = chain(image, scale, **FP32)
        assert out.dtype is torch.float32
        assert torch.equal(out, chain(image.float(), scale, **FP32))


# One implementation.


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    "changes", [{}, {"detail": 0.6}, {"detail": 1.0, "noise": "gradient", "distribution": "uniform", "fusion": False}]
)
def test_a_graph_of_the_stages_methods_is_the_chain(chain: Chain, changes: dict[str, Any], channels: int) -> None:
    settings = Settings(**(FP32 | {"seed": 3, "steps": 2, "skip": 0.8} | changes))
    image = picture(9, 11, channels=channels)
    expected = chain.stages_of(image, 7, **vars(settings))
    sizes = stage_sizes(9, 11, 63, 77)
    assert len(sizes) == len(expected) == 3
    for number, size in enumerate(sizes, 1):
        stage = chain.stage(number)
        up = stage.upsample(image, size, dtype="fp32")
        sigma = stage.sigma(up, settings.noise, settings.strength)
        noisy = inject_noise(up, sigma, settings.seed, number, settings.distribution)
        clean = stage.denoise(noisy, sigma, up, steps=settings.steps, detail=settings.detail, dtype="fp32")
        result = stage.skip(clean, image, settings.skip)
        if settings.fusion:
            result, _ = stage.fuse([image, result], dtype="fp32")
        image = result
        assert largest_difference(image, expected[number - 1]) < 1e-6


def test_an_upsampler_from_outside_takes_the_place_of_all(chain: Chain) -> None:
    seen: list[tuple[int, ...]] = []

    class Community:
        """As the nodes wrap a model of ComfyUI's own loader."""

        scale = 4

        def __call__(self, rgb: Tensor, on_step: OnStep | None) -> Tensor:
            seen.append(tuple(rgb.shape))
            return resample(rgb, (4 * rgb.shape[2], 4 * rgb.shape[3]), "nearest")

    image = picture(6, 8, channels=4)
    calls: list[Call] = []
    out = chain(image, 4, upsampler=Community(), on_step=lambda *call: calls.append(call))
    assert out.shape == (1, 4, 24, 32)
    assert seen == [(1, 3, 6, 8), (1, 3, 12, 16)]
    assert calls[-1][0] == calls[-1][1]
    assert largest_difference(out, chain(image, 4)) > 0.01


def test_a_named_upsampler_takes_the_place_of_all(chain: Chain) -> None:
    image = picture(6, 8)
    stage = chain.stage(1)
    up = resample(image, (12, 16), "nearest")
    current = stage.skip(stage.denoise(up, torch.zeros(1, 1, 12, 16), up, dtype="fp32"), image)
    expected, _ = stage.fuse([image, current], dtype="fp32")
    assert largest_difference(chain(image, 2, upsampler="nearest", **FP32), expected) < 1e-6


def test_a_bundled_upsampler_is_taken_by_its_name(chain: Chain) -> None:
    image = picture(9, 11)
    named, loaded = (chain(image, 4, upsampler=one, **FP32) for one in ("edsr_x2", load_upsampler("edsr_x2")))
    assert largest_difference(named, loaded) < 1e-6
    assert largest_difference(named, chain(image, 4, **FP32)) > 1e-3
    with pytest.raises(CheckpointError, match="edsr_x9"):
        chain(image, 4, upsampler="edsr_x9")


def test_beyond_the_last_stage_the_last_works_on() -> None:
    chain = random_chain(2)
    assert chain.stage(1) is not chain.stage(2)
    assert chain.stage(3) is chain.stage(2) is chain.stage(99)
    image = picture(5, 6)
    stages = chain.stages_of(image, 8, **FP32)
    again = Chain(ChainConfig((chain.stage(2).config,))).eval()
    again.stages[0].load_state_dict(chain.stage(2).state_dict())
    assert largest_difference(again(stages[1], 2, **FP32), stages[2]) < 1e-6


# Progress and cancelling.


@pytest.mark.parametrize("detail", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("batch", [1, 3])
def test_progress_never_falls_and_reaches_the_total(
    chain: Chain, detail: float, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("progressive_upsampling.core.chain.GROUP_PIXELS", 2 * 76 * 68)
    calls: list[Call] = []
    chain(picture(19, 17, batch), 4, detail=detail, tile=64, steps=2, on_step=lambda *call: calls.append(call))
    done = [call[0] for call in calls]
    assert done == sorted(done)
    assert {call[1] for call in calls} == {calls[0][1]}
    assert done[-1] == calls[0][1]
    assert done[0] < 0.2 * done[-1]
    groups = -(-batch // 2)
    assert sum(call[2] is not None for call in calls) == 2 * 2 * groups  # two previews a stage


@pytest.mark.parametrize("stop", [1, 2, 5, 9])
def test_cancelling_leaves_everything_as_it_was(chain: Chain, stop: int) -> None:
    image = picture(20, 20, batch=2)
    before, calls = image.clone(), []

    def cancel(done: float, total: float, preview: Tensor | None) -> None:
        calls.append(done)
        if len(calls) == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        chain(image, 4, detail=0.5, on_step=cancel)
    assert len(calls) == stop
    assert torch.equal(image, before)
    assert torch.equal(chain(image, 2), chain(image, 2))
