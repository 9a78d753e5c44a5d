from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from progressive_upsampling.core.adaptive_noise import MODES, gradient_map
from progressive_upsampling.core.config import from_dict, to_dict
from progressive_upsampling.core.denoise import denoise
from progressive_upsampling.core.denoiser import DenoiserConfig
from progressive_upsampling.core.fusion import fuse
from progressive_upsampling.core.layout import through_rgb_only
from progressive_upsampling.core.noise import inject_noise
from progressive_upsampling.core.resample import resample
from progressive_upsampling.core.residual import skip
from progressive_upsampling.core.stage import Stage, StageConfig
from progressive_upsampling.core.upsample import upsample

from .tiny import largest_difference, lively, picture, randomised, stage_config, unet_config


def random_stage(**changes: Any) -> Stage:
    return lively(randomised(Stage(stage_config(**changes))))


# At birth.


def test_an_untrained_stage_upsamples_by_bicubic() -> None:
    image = picture()
    out = Stage(stage_config()).upsample(image, (66, 94), dtype="fp32")
    assert largest_difference(out, resample(image, (66, 94)).clamp(0, 1)) < 1e-5


def test_an_untrained_stage_expects_the_same_error_everywhere() -> None:
    sigma = Stage(stage_config()).sigma(picture(), "learned")
    torch.testing.assert_close(sigma, torch.full((1, 1, 33, 47), 0.04))


def test_an_untrained_stage_changes_nothing() -> None:
    stage, image = Stage(stage_config()), picture()
    sigma = torch.full((1, 1, 33, 47), 0.1)
    assert torch.equal(stage.denoise(inject_noise(image, sigma), sigma, image), image)
    assert torch.equal(stage.skip(image, picture(16, 23)), image)


def test_an_untrained_stage_fuses_to_the_finest() -> None:
    coarse, fine = picture(16, 23), picture(seed=1)
    image, weights = Stage(stage_config()).fuse([coarse, fine])
    assert weights[:, 1].min() > 0.99
    assert largest_difference(image, fine) < 0.01


# Each part is the function of core.


def test_upsample_is_that_of_its_network_or_of_the_method() -> None:
    stage, image = random_stage(), picture(channels=4)
    assert torch.equal(stage.upsample(image, (66, 94)), upsample(image, (66, 94), stage.upsampler))
    assert torch.equal(stage.upsample(image, (66, 94), method="lanczos"), upsample(image, (66, 94), "lanczos"))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("mode", MODES)
def test_sigma_is_kappa_times_the_map(mode: str, channels: int) -> None:
    stage, image = random_stage(kappa=1.5), picture(channels=channels, batch=2)
    with torch.no_grad():
        expected = {
            "uniform": torch.full((2, 1, 33, 47), 0.04),
            "gradient": 0.04 * gradient_map(image),
            "learned": stage.controller(image),
        }[mode]
    torch.testing.assert_close(stage.sigma(image, mode, 0.5), 0.75 * expected)
    assert not stage.sigma(image, mode, 0).any()
    assert not stage.sigma(image, mode).requires_grad


def test_sigma_is_in_units_of_the_error_that_the_denoiser_expects() -> None:
    stage = Stage(stage_config(denoiser=DenoiserConfig(unet_config(), sigma_r=0.1), kappa=0.5))
    assert torch.equal(stage.sigma(picture(), "uniform"), torch.full((1, 1, 33, 47), 0.05))


def test_denoise_is_that_of_its_network() -> None:
    stage, image = random_stage(), picture()
    sigma = stage.sigma(image)
    noisy = inject_noise(image, sigma, 1)
    run: dict[str, Any] = {"detail": 0.5, "steps": 2, "dtype": "fp32"}
    for known in (image, None):
        expected = denoise(stage.denoiser, noisy, sigma, known, **run)
        assert torch.equal(stage.denoise(noisy, sigma, known, **run), expected)


def test_denoise_keeps_alpha_and_grey() -> None:
    stage = random_stage()
    for channels in (1, 4):
        image = picture(channels=channels)
        sigma = stage.sigma(image)
        noisy = inject_noise(image, sigma, 1)
        out = stage.denoise(noisy, sigma, image, detail=0.5, dtype="fp32")
        rgb = stage.denoise(through_rgb_only(noisy), sigma, through_rgb_only(image), detail=0.5, dtype="fp32")
        if channels == 4:
            assert torch.equal(out[:, 3:], image[:, 3:])
            assert torch.equal(out[:, :3], rgb)
        else:
            assert largest_difference(out, rgb.mean(1, keepdim=True)) < 1e-6


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_skip_is_weighted_by_its_bands(channels: int) -> None:
    stage = random_stage()
    current, previous = picture(channels=channels), picture(16, 23, channels=channels, seed=1)
    expected = skip(current, previous, "weighted", 0.5, weights=[0.1, 0.2, 0.3])
    torch.testing.assert_close(stage.skip(current, previous, 0.5), expected)
    assert torch.equal(stage.skip(current, previous, 0), current)
    assert not stage.skip(current, previous).requires_grad


def test_skip_keeps_the_format_of_the_current_image() -> None:
    stage, current, previous = random_stage(), picture().half(), picture(16, 23, seed=1).half()
    assert torch.equal(stage.skip(current, previous), stage.skip(current.float(), previous.float()).half())


@pytest.mark.parametrize("size", [None, (40, 50), (10, 47)])
def test_fuse_is_by_its_weights(size: tuple[int, int] | None) -> None:
    stage, images = random_stage(), [picture(16, 23), picture(seed=1), picture(20, 30, seed=2)]
    with torch.no_grad():
        expected = fuse(images, "learned", model=stage.weights, size=size)
    image, weights = stage.fuse(images, size, dtype="fp32")
    torch.testing.assert_close(image, expected.image)
    torch.testing.assert_close(weights, expected.weights)
    assert not image.requires_grad


def test_fuse_keeps_the_channels_and_alpha_of_the_last() -> None:
    stage = random_stage()
    coarse, fine = picture(16, 23, channels=4), picture(channels=4, seed=1)
    image, weights = stage.fuse([coarse, fine])
    assert torch.equal(image[:, 3:], fine[:, 3:])
    rgb, rgb_weights = stage.fuse([coarse[:, :3], fine[:, :3]])
    assert torch.equal(image[:, :3], rgb) and torch.equal(weights, rgb_weights)
    grey, _ = stage.fuse([coarse, fine[:, :1]])
    assert grey.shape == (1, 1, 33, 47)


@pytest.mark.parametrize("count", [0, 1])
def test_fuse_needs_two_images(count: int) -> None:
    with pytest.raises(ValueError, match=f"images: expected at least 2, got {count}"):
        random_stage().fuse([picture()] * count)


@pytest.mark.parametrize(
    ("images", "size", "error", "words"),
    [
        ([picture(batch=2), picture()], None, ValueError, r"images\[1\]: expected \[2, 1\|3\|4, H, W\] as images"),
        ([picture(), picture(batch=2)], None, ValueError, r"images\[1\]: expected \[1, 1\|3\|4, H, W\] as images"),
        ([picture().numpy(), picture()], None, TypeError, r"images\[0\]: expected a float tensor .* got ndarray"),
        ([picture(), picture() * math.nan], None, ValueError, r"images\[1\]: expected finite values, got NaN"),
        (picture(batch=2), None, TypeError, "images: expected a sequence of images, got Tensor"),
        ([picture(), picture()], (2.5, 3), TypeError, r"size: expected \(height, width\)"),
        ([picture(), picture()], (), ValueError, r"size: expected \(height, width\)"),
    ],
)
def test_fuse_names_what_is_wrong(images: Any, size: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"^{words}"):
        random_stage().fuse(images, size)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"detail_mask": torch.ones(3, 3)}, ValueError, r"detail_mask: expected \[B, 1, H, W\], got \(3, 3\)"),
        ({"detail_mask": torch.full((1, 1, 3, 3), 5.0)}, ValueError, "detail_mask: expected values <= 1, got .* 5"),
        ({"detail_mask": -torch.ones(1, 1, 33, 47)}, ValueError, "detail_mask: expected values >= 0, got .* -1"),
        ({"detail_mask": torch.ones(2, 1, 3, 3)}, ValueError, r"detail_mask: expected \[1, 1, 33, 47\] to match"),
        ({"detail_mask": 0.5}, TypeError, r"detail_mask: expected a float tensor \[B, 1, H, W\], got float"),
        ({"noisy": picture()[0]}, ValueError, r"noisy: expected \[B, .*, H, W\], got \(3, 33, 47\)"),
        ({"conditioning": picture().numpy()}, TypeError, "conditioning: expected a float tensor .* got ndarray"),
    ],
)
def test_denoise_names_what_is_wrong(changes: dict[str, Any], error: type[Exception], words: str) -> None:
    arguments = {"noisy": picture(), "sigma": torch.full((1, 1, 33, 47), 0.1), "conditioning": picture(), "detail": 1.0}
    with pytest.raises(error, match=f"^{words}"):
        random_stage().denoise(**(arguments | changes))


def test_large_images_go_through_the_controller_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    stage, image = random_stage(), picture(70, 120, batch=2)
    whole = stage.sigma(image)
    monkeypatch.setattr("progressive_upsampling.core.stage.CONTROLLER_TILE", 32)
    sizes: list[int] = []
    stage.controller.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape[-1]))
    tiled = stage.sigma(image)
    assert max(sizes) < 60
    assert largest_difference(tiled, whole) < 1e-5


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("band", [2000, 1 << 18])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_what_overwrites_gives_the_same_bits(
    channels: int, band: int, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Separate nodes and the chain do not differ even by rounding, as the next network may work in bfloat16; but bands
    # of rows are enlarged from other rows where both are one pass.
    monkeypatch.setattr("progressive_upsampling.core.merge.band_pixels", lambda _: band)
    stage = random_stage()
    current, previous = picture(66, 94, 2, channels, seed=1), picture(33, 47, 2, channels)
    assert torch.equal(stage.skip(current.clone(), previous, 0.7, overwrite=True), stage.skip(current, previous, 0.7))
    for strength in (0.0, 0.7):
        fused, _ = stage.fuse([previous, stage.skip(current, previous, strength)], dtype=dtype)
        merged = stage.merge_over(current.clone(), previous, strength, dtype=dtype)
        assert largest_difference(merged, fused) <= (0 if band > 2000 else 2e-6 if dtype == "fp32" else 1e-3)
    regressed = stage.regress(current)
    assert torch.equal(stage.regress(current.clone(), overwrite=True), regressed)


def test_the_skip_alone_is_merged_where_there_is_no_fusion() -> None:
    stage, current, previous = random_stage(), picture(66, 94, seed=1), picture()
    alone = stage.merge_over(current.clone(), previous, 0.7, fusion=False)
    assert torch.equal(alone, stage.skip(current, previous, 0.7))
    assert largest_difference(alone, stage.merge_over(current.clone(), previous, 0.7)) > 1e-4


@pytest.mark.parametrize("channels", [3, 4])
def test_merging_reports_its_progress_up_to_the_end(channels: int) -> None:
    calls: list[tuple[float, float]] = []
    current, previous = picture(66, 94, channels=channels), picture(channels=channels)
    random_stage().merge_over(current, previous, on_step=lambda done, total, _: calls.append((done, total)))
    assert calls[-1][0] == pytest.approx(calls[-1][1]) and calls == sorted(calls)


def test_the_weights_of_a_fusion_are_computed_in_the_format_asked_for() -> None:
    stage, images = random_stage(), [picture(), picture(66, 94, seed=1)]
    exact, rounded = (stage.fuse(images, dtype=dtype)[1] for dtype in ("fp32", "bf16"))
    assert exact.dtype is rounded.dtype is torch.float32
    assert 0 < largest_difference(exact, rounded) < 0.02


def test_inputs_are_not_changed() -> None:
    stage = random_stage()
    images = [picture(16, 23, channels=4), picture(channels=4)]
    kept = [image.clone() for image in images]
    sigma = stage.sigma(images[1])
    stage.upsample(images[0], (33, 47)).zero_()
    stage.denoise(images[1], sigma, images[1], detail=0.5).zero_()
    stage.skip(images[1], images[0]).zero_()
    stage.skip(images[1], images[0], 0.0).zero_()
    stage.fuse(images)[0].zero_()
    assert all(torch.equal(a, b) for a, b in zip(images, kept, strict=True))


# Config.


def test_a_config_survives_json() -> None:
    for config in (StageConfig(), stage_config(kappa=0.7)):
        assert from_dict(StageConfig, json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize("kappa", [0, -1.0, math.nan])
def test_kappa_must_be_positive(kappa: float) -> None:
    with pytest.raises(ValueError, match="kappa: expected a number > 0, got"):
        StageConfig(kappa=kappa)


def test_the_parts_keep_their_names() -> None:
    # Checkpoints are read by these names.
    names = {name.split(".")[0] for name in Stage(stage_config()).state_dict()}
    assert names == {"upsampler", "controller", "denoiser", "weights", "skip_weights"}


def test_progress_of_the_long_parts_reaches_the_total() -> None:
    stage, image = random_stage(), picture()
    calls: list[tuple[float, float]] = []

    def listen(done: float, total: float, preview: Tensor | None) -> None:
        calls.append((done, total))

    stage.upsample(image, (66, 94), on_step=listen)
    assert calls[-1] == (1, 1)
    stage.denoise(image, stage.sigma(image), detail=0.5, steps=2, on_step=listen)
    assert calls[-1] == (3, 3)
