from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from progressive_upsampling.core.chain import Chain, ChainConfig, Settings, preview_of
from progressive_upsampling.core.checkpoint import CheckpointError, read_checkpoint, write_checkpoint
from progressive_upsampling.core.config import from_dict, to_dict
from progressive_upsampling.core.noise import KINDS, inject_noise
from progressive_upsampling.core.progress import OnStep
from progressive_upsampling.core.resample import resample
from progressive_upsampling.core.sizes import stage_sizes
from progressive_upsampling.core.stage import Stage

from .tiny import largest_difference, picture, random_chain, stage_config, untrained_chain

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


def test_the_automatic_tile_gives_the_same(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    image = picture(60, 61)
    whole = chain(image, 2, tile=10**6, **FP32)
    for module in ("denoise", "upsample"):
        name = f"progressive_upsampling.core.{module}"
        monkeypatch.setattr(sys.modules[name], "auto_tile", lambda *_: 64)
    assert largest_difference(chain(image, 2, **FP32), whole) < 1e-4


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
            result, _ = stage.fuse([image, result])
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
    expected, _ = stage.fuse([image, current])
    assert largest_difference(chain(image, 2, upsampler="nearest", **FP32), expected) < 1e-6


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


def test_later_stages_count_for_more(chain: Chain) -> None:
    calls: list[Call] = []
    chain(picture(16, 16), 4, on_step=lambda *call: calls.append(call))
    previews = [call[0] / call[1] for call in calls if call[2] is not None]
    assert previews[1] == pytest.approx(0.2)  # 32² of 32² + 64² pixels


@pytest.mark.parametrize(
    ("size", "expected"),
    [((33, 47), (33, 47)), ((2, 1024), (1, 512)), ((1, 3000), (1, 512)), ((600, 300), (512, 256)), ((1, 1), (1, 1))],
)
def test_a_preview_is_the_first_image_at_most_512_pixels_a_side(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    for channels in (1, 3, 4):
        preview = preview_of(picture(*size, batch=2, channels=channels))
        assert preview.shape == (1, min(channels, 3), *expected)
        assert preview.isfinite().all() and preview.min() >= 0 and preview.max() <= 1


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


# Files.


@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_a_saved_chain_is_the_same_chain(chain: Chain, tmp_path: Path, dtype: torch.dtype | None) -> None:
    path = tmp_path / "chain.safetensors"
    chain.save(path, {"data": "none", "licence": "MIT"}, dtype)
    read = Chain.from_pretrained(path)
    assert read.config == chain.config
    assert read.provenance == {"data": "none", "licence": "MIT"}
    assert not read.training
    assert {value.dtype for value in read.parameters()} == {torch.float32}
    image = picture(9, 11)
    difference = largest_difference(read(image, 4, **FP32), chain(image, 4, **FP32))
    assert difference < (1e-5 if dtype is None else 2e-3)
    assert (difference > 0) or dtype is None


def test_half_precision_halves_the_file(chain: Chain, tmp_path: Path) -> None:
    for name, dtype in (("whole", None), ("half", torch.float16)):
        chain.save(tmp_path / f"{name}.safetensors", {}, dtype)
    header = 16_000
    whole, half = ((tmp_path / f"{name}.safetensors").stat().st_size for name in ("whole", "half"))
    assert half < whole / 2 + header < whole + header
    assert sum(p.numel() for p in chain.parameters()) * 2 < half


def test_saving_again_keeps_where_it_came_from(chain: Chain, tmp_path: Path) -> None:
    path = tmp_path / "chain.safetensors"
    chain.save(path, {"data": "mine"})
    Chain.from_pretrained(path).save(path)
    assert read_checkpoint(path).provenance == {"data": "mine"}


def test_a_bundled_name_is_found(chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("progressive_upsampling.core.checkpoint._WEIGHTS", tmp_path)
    chain.save(tmp_path / "default.safetensors", {"data": "bundled"})
    chain.save(tmp_path / "other.safetensors", {"data": "other"})
    assert Chain.from_pretrained().provenance == {"data": "bundled"}
    assert Chain.from_pretrained("other").provenance == {"data": "other"}
    with pytest.raises(CheckpointError, match="'nothing': no such model; bundled are: default, other"):
        Chain.from_pretrained("nothing")


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    write_checkpoint(path, {"a": torch.zeros(1)}, kind="upsampler", config={}, provenance={})
    with pytest.raises(CheckpointError, match="expected a checkpoint of kind 'chain', got 'upsampler'"):
        Chain.from_pretrained(path)


@pytest.mark.parametrize(
    "config",
    [
        {"stages": []},
        {"stages": 3},
        {"levels": 3},
        {"stages": [{"kappa": -1.0}]},
        {"stages": [{"upsampler": {"kind": "no"}}]},
    ],
)
def test_a_checkpoint_with_a_broken_config_is_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    path = tmp_path / "chain.safetensors"
    write_checkpoint(path, {"a": torch.zeros(1)}, kind="chain", config=config, provenance={})
    with pytest.raises(CheckpointError, match=r"chain.safetensors: damaged metadata: config: "):
        Chain.from_pretrained(path)


def test_a_checkpoint_whose_tensors_do_not_fit_is_refused(chain: Chain, tmp_path: Path) -> None:
    path = tmp_path / "chain.safetensors"
    tensors = dict(list(chain.state_dict().items())[1:])
    write_checkpoint(path, tensors, kind="chain", config=to_dict(chain.config), provenance={})
    with pytest.raises(CheckpointError, match=r"1 missing: stages\.0"):
        Chain.from_pretrained(path)


# Configs, settings, errors.


def test_a_config_survives_json() -> None:
    config = ChainConfig((stage_config(kappa=0.5), stage_config()))
    assert from_dict(ChainConfig, to_dict(config)) == config
    assert from_dict(ChainConfig, to_dict(ChainConfig())) == ChainConfig()


def test_a_chain_needs_a_stage() -> None:
    with pytest.raises(ValueError, match="stages: expected at least one, got none"):
        ChainConfig(())


@pytest.mark.parametrize(("number", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("1", TypeError)])
def test_stages_are_counted_from_1(chain: Chain, number: object, error: type[Exception]) -> None:
    assert chain.stage(1) is chain.stages[0] and isinstance(chain.stage(1), Stage)
    with pytest.raises(error, match="stage: expected an integer >= 1, got"):
        chain.stage(number)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"seed": -1}, ValueError, "seed: expected an integer in 0..1.84467e\\+19, got -1"),
        ({"seed": 2**64}, ValueError, "seed: expected an integer in"),
        ({"seed": 1.0}, TypeError, "seed: expected an integer in"),
        ({"seed": [1, -1]}, ValueError, "seed: expected an integer in"),
        ({"seed": "12"}, TypeError, "seed: expected an integer in"),
        ({"strength": -0.1}, ValueError, "strength: expected a number >= 0, got -0.1"),
        ({"strength": math.nan}, ValueError, "strength: expected a number >= 0, got nan"),
        ({"noise": "none"}, ValueError, "noise: expected one of 'uniform', 'gradient', 'learned'"),
        ({"distribution": "normal"}, ValueError, "distribution: expected one of 'gaussian', 'uniform', 'correlated'"),
        ({"steps": 3}, ValueError, "steps: expected one of 1, 2, 4, 8, got int 3"),
        ({"detail": 2}, ValueError, "detail: expected a number in 0..1, got 2"),
        ({"skip": 1.5}, ValueError, "skip: expected a number in 0..1, got 1.5"),
        ({"fusion": "no"}, ValueError, "fusion: expected one of False, True, got str 'no'"),
        ({"tile": 0}, ValueError, "tile: expected an integer >= 1, got 0"),
        ({"tile": 64.0}, TypeError, "tile: expected an integer >= 1, got float 64.0"),
        ({"dtype": "half"}, ValueError, "dtype: expected one of 'auto', 'fp32', 'bf16', 'fp16'"),
    ],
    ids=str,
)
def test_settings_name_what_is_wrong(chain: Chain, changes: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"^{words}"):
        Settings(**changes)
    with pytest.raises(error, match=f"^{words}"):
        chain(picture(2, 2), 2, **changes)


def test_integers_of_numpy_are_integers(chain: Chain) -> None:
    image = picture(4, 5)
    assert torch.equal(chain(image, 2, seed=np.uint64(7), detail=0.5), chain(image, 2, seed=7, detail=0.5))


def test_seeds_for_another_batch_are_refused(chain: Chain) -> None:
    for scale in (1, 2):
        with pytest.raises(ValueError, match="seed: expected one, or one for each of 2 images, got 3"):
            chain(picture(4, 5, batch=2), scale, seed=[1, 2, 3])


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({}, ValueError, "scale, size: expected exactly one of the two"),
        ({"scale": 2, "size": (8, 8)}, ValueError, "scale, size: expected exactly one of the two"),
        ({"scale": 0}, ValueError, "scale: expected a number <= 64 and > 0, got 0"),
        ({"scale": -1}, ValueError, "scale: expected a number <= 64 and > 0, got -1"),
        ({"scale": 1e9}, ValueError, "scale: expected a number <= 64 and > 0, got 1000000000.0"),
        ({"scale": math.nan}, ValueError, "scale: expected a number <= 64 and > 0, got nan"),
        ({"size": (0, 8)}, ValueError, "size: expected"),
        ({"image": torch.zeros(4, 4), "scale": 2}, ValueError, r"image: expected \[B, 1\|3\|4, H, W\], got \(4, 4\)"),
        ({"image": torch.zeros(1, 3, 4, 4).byte(), "scale": 2}, TypeError, "image: expected a float tensor"),
        ({"scale": 2, "upsampler": "cubic"}, ValueError, "method: expected one of 'nearest'"),
        ({"scale": 2, "colour": True}, TypeError, ".*unexpected keyword argument 'colour'"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(chain: Chain, arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"^{words}"):
        chain(**({"image": picture(4, 5)} | arguments))
