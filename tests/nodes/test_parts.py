"""What each node of a stage adds to core."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from progressive_upsampling.core.back_projection import back_project
from progressive_upsampling.core.chain import Chain
from progressive_upsampling.core.denoise import denoise
from progressive_upsampling.core.denoiser_file import load_denoiser
from progressive_upsampling.core.layout import from_bhwc, to_bhwc
from progressive_upsampling.core.noise import inject_noise
from progressive_upsampling.core.resample import METHODS, resample
from progressive_upsampling.core.residual import skip
from progressive_upsampling.nodes._inputs import wanted_size
from progressive_upsampling.nodes.adaptive_noise import AdaptiveNoise
from progressive_upsampling.nodes.compare import Compare
from progressive_upsampling.nodes.denoise import AttnUNetDenoise
from progressive_upsampling.nodes.inject_noise import InjectNoise
from progressive_upsampling.nodes.multi_scale_fuse import MultiScaleFuse, parse_weights
from progressive_upsampling.nodes.progressive_upscale import ProgressiveUpscale
from progressive_upsampling.nodes.residual_skip import ResidualSkip
from progressive_upsampling.nodes.upsample import Upsample

from .conftest import call

Picture = Callable[..., Tensor]


@pytest.mark.parametrize("method", METHODS)
def test_upsample_is_the_method_of_core(picture: Picture, method: str) -> None:
    image = picture()
    (result,) = call(Upsample, image=image, method=method, scale=2.5)
    expected = resample(from_bhwc(image), (52, 85), method).clamp(0, 1)
    torch.testing.assert_close(from_bhwc(result), expected)


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(0, 0, (63, 102)), (50, 0, (31, 50)), (0, 50, (50, 81)), (7, 90, (90, 7)), (34, 21, (21, 34))],
)
def test_upsample_reaches_the_size_asked_for(
    picture: Picture, width: int, height: int, expected: tuple[int, int]
) -> None:
    (result,) = call(Upsample, image=picture(), method="bicubic", scale=3.0, width=width, height=height)
    assert tuple(result.shape[1:3]) == expected


def test_no_side_becomes_less_than_a_pixel() -> None:
    assert wanted_size((1, 300), 1.0, 10, 0) == (1, 10)
    assert wanted_size((300, 1), 1.0, 0, 10) == (10, 1)


def test_upsample_uses_the_stage_that_is_asked_for(picture: Picture, chain: Any) -> None:
    image = picture()
    first, second, third = (
        call(Upsample, image=image, model=chain, stage=stage, precision="fp32")[0] for stage in (1, 2, 3)
    )
    assert not torch.equal(first, second)
    assert torch.equal(second, third)  # beyond the last trained stage


def test_upsample_without_a_model_uses_the_bundled_one(picture: Picture, default_chain: Any) -> None:
    ours, named = (
        call(Upsample, image=picture(), precision="fp32", **extra)[0] for extra in ({}, {"model": default_chain})
    )
    assert torch.equal(ours, named)


def test_upsample_keeps_to_its_method_whatever_is_connected(picture: Picture, chain: Any) -> None:
    plain, connected = (
        call(Upsample, image=picture(), method="bicubic", **extra)[0]
        for extra in ({}, {"model": chain, "upscale_model": object()})
    )
    assert torch.equal(plain, connected)


def test_upsample_refuses_two_sources(picture: Picture, chain: Any) -> None:
    with pytest.raises(ValueError, match="expected one of the two, got both"):
        call(Upsample, image=picture(), model=chain, upscale_model=object())


@pytest.mark.parametrize("scale", [0.0, -1.0, 1e9, float("nan")])
def test_upsample_refuses_a_senseless_scale(picture: Picture, scale: float) -> None:
    with pytest.raises(ValueError, match="scale"):
        call(Upsample, image=picture(), method="bicubic", scale=scale)


def test_upsample_refuses_an_unknown_method(picture: Picture) -> None:
    with pytest.raises(ValueError, match="method: expected one of 'model', 'nearest'"):
        call(Upsample, image=picture(), method="magic")


@pytest.mark.parametrize("mode", ["learned", "gradient", "uniform"])
def test_adaptive_noise_grows_with_strength_from_zero(picture: Picture, chain: Any, mode: str) -> None:
    off, half, full = (
        call(AdaptiveNoise, image=picture(), mode=mode, strength=s, model=chain)[0] for s in (0.0, 0.5, 1.0)
    )
    assert off.shape == (1, 21, 34)
    assert not off.any()
    assert (half > 0).all()
    torch.testing.assert_close(full, 2 * half)


def test_adaptive_noise_needs_no_model_for_the_analytic_modes(picture: Picture) -> None:
    (uniform,) = call(AdaptiveNoise, image=picture(), mode="uniform", base_sigma=0.1, strength=0.5)
    torch.testing.assert_close(uniform, torch.full_like(uniform, 0.05))
    (gradient,) = call(AdaptiveNoise, image=picture(), mode="gradient", base_sigma=0.1)
    assert gradient.max() <= 0.1
    assert gradient.std() > 0


@pytest.mark.parametrize("mode", ["learned", "uniform"])
@pytest.mark.parametrize("shape", [(21, 34), (1, 10, 9), (2, 21, 34)])
def test_a_mask_of_any_size_limits_where_noise_goes(
    picture: Picture, chain: Any, mode: str, shape: tuple[int, ...]
) -> None:
    common = {"image": picture(batch=2), "mode": mode, "model": chain}
    (free,) = call(AdaptiveNoise, **common)
    for value in (0.0, 0.5, 1.0):
        (limited,) = call(AdaptiveNoise, **common, mask=torch.full(shape, value))
        torch.testing.assert_close(limited, value * free)
    left = torch.zeros(21, 34)
    left[:, :17] = 1
    (limited,) = call(AdaptiveNoise, **common, mask=left)
    assert torch.equal(limited[:, :, :17], free[:, :, :17])
    assert not limited[:, :, 17:].any()


def test_a_mask_out_of_range_counts_as_white_or_black(picture: Picture, chain: Any) -> None:
    common = {"image": picture(), "mode": "uniform", "model": chain}
    (free,) = call(AdaptiveNoise, **common)
    assert torch.equal(call(AdaptiveNoise, **common, mask=torch.full((21, 34), 2.0))[0], free)
    assert not call(AdaptiveNoise, **common, mask=torch.full((21, 34), -1.0))[0].any()


def test_a_noise_mask_for_another_batch_is_refused(picture: Picture) -> None:
    with pytest.raises(ValueError, match="mask: expected one, or one for each of 3 images, got 2"):
        call(AdaptiveNoise, image=picture(batch=3), mode="uniform", mask=torch.ones(2, 9, 9))


def test_inject_noise_of_strength_zero_returns_the_image_exactly(picture: Picture) -> None:
    image = picture()
    noisy, sigma = call(InjectNoise, image=image, strength=0.0)
    assert torch.equal(noisy, image)
    assert not sigma.any()


def test_inject_noise_has_the_deviation_it_says(picture: Picture) -> None:
    image = picture(90, 120)
    noisy, sigma = call(InjectNoise, image=image, sigma=0.1, strength=0.5, seed=3)
    assert (noisy - image).std().item() == pytest.approx(0.05, rel=0.02)
    torch.testing.assert_close(sigma, torch.full((1, 90, 120), 0.05))


def test_inject_noise_depends_on_seed_and_stage_alone(picture: Picture) -> None:
    image = picture()
    first = call(InjectNoise, image=image, seed=1)[0]
    assert torch.equal(first, call(InjectNoise, image=image, seed=1)[0])
    assert not torch.equal(first, call(InjectNoise, image=image, seed=2)[0])
    assert not torch.equal(first, call(InjectNoise, image=image, seed=1, stage=2)[0])


@pytest.mark.parametrize("shape", [(21, 34), (1, 21, 34), (1, 10, 9), (2, 21, 34)])
def test_masks_of_any_size_and_without_batch_are_sigma_maps(picture: Picture, shape: tuple[int, ...]) -> None:
    image = picture(batch=2)
    noisy, applied = call(InjectNoise, image=image, sigma_map=torch.full(shape, 0.03))
    torch.testing.assert_close(applied, torch.full((2, 21, 34), 0.03))
    assert noisy.shape == image.shape


def test_strength_multiplies_the_sigma_map(picture: Picture) -> None:
    mask = torch.rand(21, 34, generator=torch.Generator().manual_seed(0))
    _, applied = call(InjectNoise, image=picture(), sigma_map=mask, strength=0.25)
    torch.testing.assert_close(applied[0], 0.25 * mask)


def test_a_negative_sigma_map_is_refused(picture: Picture) -> None:
    with pytest.raises(ValueError, match=r"sigma_map: expected values >= 0, got a minimum of -0\.5"):
        call(InjectNoise, image=picture(), sigma_map=torch.full((21, 34), -0.5))


def test_denoise_without_detail_ignores_the_noise(picture: Picture, chain: Any) -> None:
    image = picture()
    sigma = torch.full((21, 34), 0.05)
    noisy, _ = call(InjectNoise, image=image, sigma_map=sigma, seed=5)
    common = {"sigma_map": sigma, "conditioning": image, "model": chain, "precision": "fp32"}
    clean = call(AttnUNetDenoise, noisy_image=image, **common)[0]
    assert torch.equal(call(AttnUNetDenoise, noisy_image=noisy, **common)[0], clean)
    assert not torch.equal(call(AttnUNetDenoise, noisy_image=noisy, detail=1.0, **common)[0], clean)


@pytest.mark.parametrize("shape", [(21, 34), (1, 21, 34), (1, 10, 9), (2, 21, 34), (2, 64, 80)])
def test_a_detail_mask_of_any_size_limits_detail(picture: Picture, chain: Any, shape: tuple[int, ...]) -> None:
    image = picture(batch=2)
    common: dict[str, Any] = {"sigma_map": torch.full((21, 34), 0.05), "conditioning": image, "model": chain}
    common |= {"noisy_image": call(InjectNoise, image=image, sigma=0.05)[0], "precision": "fp32"}
    white = torch.ones(shape)
    none, full = (call(AttnUNetDenoise, detail=detail, **common)[0] for detail in (0.0, 0.8))
    for value, expected in ((0.0, none), (-0.5, none), (1.0, full), (1.5, full), (0.5, (none + full) / 2)):
        (result,) = call(AttnUNetDenoise, detail=0.8, detail_mask=value * white, **common)
        torch.testing.assert_close(result, expected, atol=0 if value <= 0 else 1e-5, rtol=0)


def test_without_model_and_conditioning_the_bundled_denoiser_takes_the_noise_out(picture: Picture) -> None:
    image = picture()
    noisy, sigma = inject_noise(from_bhwc(image), 0.1), torch.full((21, 34), 0.1)
    common = {"sigma_map": sigma, "precision": "fp32"}
    (result,) = call(AttnUNetDenoise, noisy_image=to_bhwc(noisy), **common)
    bundled = load_denoiser("denoiser")
    expected = denoise(bundled, noisy, sigma[None, None], dtype="fp32")
    torch.testing.assert_close(from_bhwc(result), expected, atol=1e-5, rtol=0)
    # what the chain adds, it adds to that
    chain = Chain.from_pretrained().stage(1).denoiser
    refined = denoise(chain, noisy, sigma[None, None], blind=bundled, detail=0.5, dtype="fp32")
    (result,) = call(AttnUNetDenoise, noisy_image=to_bhwc(noisy), detail=0.5, **common)
    torch.testing.assert_close(from_bhwc(result), refined, atol=1e-5, rtol=0)


def test_a_detail_mask_for_another_batch_is_refused(picture: Picture, chain: Any) -> None:
    common = {"detail_mask": torch.ones(2, 9, 9), "detail": 0.5, "model": chain}
    with pytest.raises(ValueError, match="detail_mask: expected"):
        call(AttnUNetDenoise, noisy_image=picture(batch=3), sigma_map=torch.full((21, 34), 0.05), **common)
    with pytest.raises(ValueError, match="detail_mask: expected one, or one for each of 3 images, got 2"):
        call(ProgressiveUpscale, image=picture(batch=3), **common)


def test_denoise_does_not_depend_on_the_tile(picture: Picture, chain: Any) -> None:
    image = picture(150, 170)
    common = {"noisy_image": image, "sigma_map": torch.full((150, 170), 0.04), "conditioning": image}
    common |= {"model": chain, "precision": "fp32", "detail": 0.7}
    whole, tiled = (call(AttnUNetDenoise, tile=tile, **common)[0] for tile in (1024, 64))
    torch.testing.assert_close(tiled, whole, atol=1e-4, rtol=0)


def test_denoise_refuses_conditioning_of_another_size(picture: Picture, chain: Any) -> None:
    with pytest.raises(ValueError, match="conditioning: expected"):
        call(
            AttnUNetDenoise,
            noisy_image=picture(),
            conditioning=picture(10, 10),
            sigma_map=torch.zeros(21, 34),
            model=chain,
        )


@pytest.mark.parametrize("mode", ["learned", "attention", "weighted"])
@pytest.mark.parametrize("structure", ["flat", "hierarchical", "laplacian"])
def test_fuse_of_equal_images_is_that_image(picture: Picture, chain: Any, mode: str, structure: str) -> None:
    image = picture()
    inputs = {f"image_{i}": image for i in (1, 2, 3)}
    fused, weights = call(MultiScaleFuse, **inputs, mode=mode, structure=structure, model=chain)
    torch.testing.assert_close(fused, image, atol=1e-6, rtol=0)
    assert len(weights) == 3
    torch.testing.assert_close(sum(weights), torch.ones(1, 21, 34))


@pytest.mark.parametrize("structure", ["flat", "hierarchical", "laplacian"])
def test_fuse_computes_its_weights_in_the_precision_asked_for(
    picture: Picture, default_chain: Any, structure: str
) -> None:
    inputs = {"image_1": picture(40, 60), "image_2": picture(20, 30), "structure": structure, "model": default_chain}
    exact, rounded = (call(MultiScaleFuse, **inputs, precision=precision)[0] for precision in ("fp32", "bf16"))
    assert 0 < (exact - rounded).abs().max() < 0.02
    with pytest.raises(ValueError, match="precision"):
        call(MultiScaleFuse, **inputs, precision="fp16")
    call(MultiScaleFuse, **inputs, precision="fp16", mode="weighted")  # without a network it does not matter


def test_fuse_takes_up_to_six_images_of_any_sizes_in_order(picture: Picture) -> None:
    images = {f"image_{i}": torch.full((1, 28 - 4 * i, 35 - 5 * i, 3), i / 10) for i in (1, 2, 4, 6)}
    fused, weights = call(MultiScaleFuse, **images, mode="weighted", weights="3 1 0 0")
    assert fused.shape == (1, 24, 30, 3)
    torch.testing.assert_close(fused, torch.full_like(fused, 0.75 * 0.1 + 0.25 * 0.2))
    assert [float(w.mean()) for w in weights] == pytest.approx([0.75, 0.25, 0, 0])


@pytest.mark.parametrize("structure", ["flat", "hierarchical", "laplacian"])
def test_fuse_has_the_size_of_the_first_image_not_of_the_largest(picture: Picture, structure: str) -> None:
    images = {"image_1": picture(8, 10), "image_2": picture(12, 9)}
    fused, weights = call(MultiScaleFuse, **images, mode="weighted", structure=structure)
    assert fused.shape == (1, 8, 10, 3)
    assert all(shares.shape == (1, 8, 10) for shares in weights)


@pytest.mark.parametrize(("text", "expected"), [("", []), (" 1,2 ;3 ", [1, 2, 3]), ("0.5 0.5", [0.5, 0.5])])
def test_weights_are_read_from_text(text: str, expected: list[float]) -> None:
    assert parse_weights(text) == expected


@pytest.mark.parametrize(
    ("weights", "reason"),
    [("1, x", "expected numbers"), ("1 2 3", "expected 2"), ("1 -1", "weights, number 2: expected")],
)
def test_bad_weights_are_refused(picture: Picture, weights: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        call(MultiScaleFuse, image_1=picture(), image_2=picture(), mode="weighted", weights=weights)


@pytest.mark.parametrize("mode", ["weighted", "constant", "cosine", "attention", "back_projection"])
def test_skip_of_strength_zero_returns_the_current_image_exactly(picture: Picture, chain: Any, mode: str) -> None:
    now, before = picture(), picture(11, 17, seed=1)
    (result,) = call(ResidualSkip, current=now, previous=before, mode=mode, strength=0.0, model=chain)
    assert torch.equal(result, now)


@pytest.mark.parametrize("mode", ["constant", "cosine", "attention"])
def test_skip_is_the_mode_of_core(picture: Picture, mode: str) -> None:
    now, before = picture(), picture(11, 17, seed=1)
    inputs = {"strength": 0.7, "position": 0.8, "levels": 2}
    (result,) = call(ResidualSkip, current=now, previous=before, mode=mode, **inputs)
    expected = skip(from_bhwc(now), from_bhwc(before), mode, **inputs)
    torch.testing.assert_close(result, to_bhwc(expected))
    assert not torch.equal(result, now)


def test_back_projection_is_that_of_core_and_leaves_alpha(picture: Picture) -> None:
    now, before = picture(80, 60, channels=4), picture(20, 15, channels=4, seed=1)
    (result,) = call(ResidualSkip, current=now, previous=before, mode="back_projection", strength=0.7)
    torch.testing.assert_close(result, to_bhwc(back_project(from_bhwc(now), from_bhwc(before), 0.7)))
    assert torch.equal(result[..., 3], now[..., 3]) and not torch.equal(result, now)


@pytest.mark.parametrize(
    ("node", "name", "inputs"),
    [
        (Upsample, "image", ("image",)),
        (AdaptiveNoise, "mask", ("image", "mask")),
        (InjectNoise, "sigma_map", ("image", "sigma_map")),
        (AttnUNetDenoise, "noisy_image", ("noisy_image", "sigma_map")),
        (AttnUNetDenoise, "sigma_map", ("noisy_image", "sigma_map")),
        (AttnUNetDenoise, "conditioning", ("noisy_image", "sigma_map", "conditioning")),
        (AttnUNetDenoise, "detail_mask", ("noisy_image", "sigma_map", "conditioning", "detail_mask")),
        (ResidualSkip, "current", ("current", "previous")),
        (ResidualSkip, "previous", ("current", "previous")),
        (MultiScaleFuse, "image_2", ("image_1", "image_2", "image_3")),
        (ProgressiveUpscale, "detail_mask", ("image", "detail_mask")),
        (Compare, "reference", ("image", "reference")),
    ],
)
def test_what_is_not_a_number_is_refused_by_the_name_of_its_input(
    picture: Picture, chain: Any, node: Any, name: str, inputs: tuple[str, ...]
) -> None:
    values = {one: torch.full((1, 21, 34), 0.1) if one.endswith(("map", "mask")) else picture() for one in inputs}
    values[name] = values[name].clone()
    values[name][0, 3, 4] = torch.nan
    model = {} if node in (Compare, InjectNoise) else {"model": chain}
    with pytest.raises(ValueError, match=f"^{name}: expected finite values, got NaN"):
        call(node, **values, **model)


@pytest.mark.parametrize("node", [Upsample, AttnUNetDenoise, ProgressiveUpscale])
def test_a_precision_that_the_device_has_not_is_refused_by_its_name(picture: Picture, chain: Any, node: Any) -> None:
    image = {"image": picture()}
    if node is AttnUNetDenoise:
        image = {"noisy_image": picture(), "sigma_map": torch.full((1, 21, 34), 0.1)}
    with pytest.raises(ValueError, match=r"^precision: expected auto, fp32 or bf16 on a CPU, got 'fp16'"):
        call(node, **image, model=chain, precision="fp16")


def test_interpolation_takes_any_precision(picture: Picture) -> None:
    half, whole = (call(Upsample, image=picture(), method="bicubic", precision=p)[0] for p in ("fp16", "fp32"))
    assert torch.equal(half, whole)


def test_without_a_sigma_map_there_is_no_noise_and_a_blind_estimate_is_refused(picture: Picture, chain: Any) -> None:
    noisy, known = picture(), picture(seed=1)
    common = {"noisy_image": noisy, "detail": 1.0, "model": chain, "precision": "fp32"}
    (without,) = call(AttnUNetDenoise, conditioning=known, **common)
    (zero,) = call(AttnUNetDenoise, conditioning=known, sigma_map=torch.zeros(1, 21, 34), **common)
    assert torch.equal(without, zero)
    with pytest.raises(ValueError, match=r"^sigma_map: expected how strong the noise is, .* got none"):
        call(AttnUNetDenoise, **common)


def test_fuse_names_the_image_of_other_channels(picture: Picture) -> None:
    with pytest.raises(ValueError, match=r"^image_3: expected 4 channels as image_1, got 3"):
        call(MultiScaleFuse, image_3=picture(), image_1=picture(channels=4), image_2=picture(channels=4))


def test_a_width_that_makes_too_high_a_picture_is_named(picture: Picture) -> None:
    with pytest.raises(ValueError, match=r"^width: expected at most 131072 pixels a side, got 16384"):
        call(Upsample, image=picture(400, 1), method="bicubic", width=16384)
