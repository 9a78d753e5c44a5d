"""Skip and fusion in bands of rows equal those of whole images."""

from __future__ import annotations

import pytest
import torch

from progressive_upsampling.core.dynamic_weights import DynamicWeights
from progressive_upsampling.core.fusion import fuse
from progressive_upsampling.core.merge import fuse_in_bands, merge_in_bands, skip_in_bands
from progressive_upsampling.core.residual import skip

from .tiny import picture, randomised

SIZES = [((64, 94), (32, 47)), ((67, 41), (40, 41)), ((1, 1), (1, 1)), ((2, 300), (1, 151)), ((131, 7), (66, 20))]
WEIGHTS = [0.2, 0.0, 0.6]
BANDS = [1, 300, 10**9]


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("size", "before"), SIZES)
def test_a_skip_in_bands_is_the_skip(size: tuple[int, int], before: tuple[int, int], channels: int) -> None:
    current, previous = picture(*size, 2, channels, seed=1), picture(*before, 2, channels)
    whole = skip(current, previous, "weighted", weights=WEIGHTS)
    kept = previous.clone()
    for band in BANDS:
        image = current.clone()
        assert skip_in_bands(image, previous, WEIGHTS, band=band) is image
        torch.testing.assert_close(image, whole, atol=2e-6, rtol=0)
    assert torch.equal(previous, kept)


@pytest.mark.parametrize(("size", "before"), SIZES)
@torch.no_grad()
def test_a_fusion_in_bands_is_the_fusion(size: tuple[int, int], before: tuple[int, int]) -> None:
    images = [picture(5, 9, 2, seed=2), picture(*before, 2), picture(*size, 2, seed=1)]
    model = randomised(DynamicWeights(), 0.3)
    whole = fuse(images, "learned", model=model, size=size)
    kept = [image.clone() for image in images]
    for band in BANDS:
        out, maps = torch.empty(2, 3, *size), torch.empty(2, 3, *size)
        fuse_in_bands(images, model, out, maps, band=band)
        torch.testing.assert_close(out, whole.image, atol=2e-6, rtol=0)
        torch.testing.assert_close(maps, whole.weights, atol=1e-5, rtol=0)
        assert all(torch.equal(a, b) for a, b in zip(images, kept, strict=True))
        last = images[-1].clone()
        assert fuse_in_bands([*images[:-1], last], model, last, band=band) is last
        torch.testing.assert_close(last, whole.image, atol=2e-6, rtol=0)


def test_without_weights_nothing_changes() -> None:
    current = picture(20, 30)
    assert torch.equal(skip_in_bands(current.clone(), picture(10, 15, seed=1), [0.0, 0.0]), current)
    assert skip_in_bands(current + 0.5, picture(10, 15), [0.0, 0.0]).max() == 1


def test_the_previous_image_is_an_image_again_before_it_is_mixed_in() -> None:
    current, previous = picture(33, 47, seed=1).round(), picture(17, 24).round()  # bicubic overshoots at such edges
    whole = skip(current, previous, "weighted", weights=[0.3, 0.6])
    torch.testing.assert_close(skip_in_bands(current, previous, [0.3, 0.6]), whole, atol=2e-6, rtol=0)


@torch.no_grad()
def test_so_it_is_before_it_is_fused() -> None:
    current, previous = picture(33, 47, seed=1).round(), picture(17, 24).round()
    model = randomised(DynamicWeights(), 0.3)
    whole = fuse([previous, current], "learned", model=model).image
    torch.testing.assert_close(fuse_in_bands([previous, current], model, current.clone()), whole, atol=2e-6, rtol=0)
    kept = skip(current, previous, "weighted", weights=[0.3, 0.6])
    both = fuse([previous, kept], "learned", model=model).image
    merged = merge_in_bands(current.clone(), previous, [0.3, 0.6], model)
    torch.testing.assert_close(merged, both, atol=2e-6, rtol=0)


def test_every_band_is_reported() -> None:
    for run in (
        lambda on_band: skip_in_bands(picture(20, 30), picture(10, 15), [0.5], band=120, on_band=on_band),
        lambda on_band: fuse_in_bands(
            [picture(10, 15), picture(20, 30)], DynamicWeights(), picture(20, 30), band=120, on_band=on_band
        ),
    ):
        calls: list[tuple[int, int]] = []
        run(lambda *call, calls=calls: calls.append(call))
        assert calls == [(4, 20), (8, 20), (12, 20), (16, 20), (20, 20)]


def test_whole_images_of_a_batch_go_together_as_long_as_they_fit() -> None:
    calls: list[tuple[int, int]] = []
    current, previous = picture(20, 30, 3, seed=1), picture(10, 15, 3)
    whole = skip(current, previous, "weighted", weights=[0.5])
    skip_in_bands(current, previous, [0.5], band=1200, on_band=lambda *call: calls.append(call))
    assert calls == [(40, 60), (60, 60)]
    torch.testing.assert_close(current, whole, atol=2e-6, rtol=0)


def test_images_that_do_not_belong_together_are_refused() -> None:
    two, one = picture(5, 6, 2), picture(10, 12)
    for images, words in (([two, one], r"images\[0\].* got \(2, 3, 5, 6\)"), ([one, two], r"images\[1\]")):
        with pytest.raises(ValueError, match=f"{words}"):
            fuse_in_bands(images, DynamicWeights(), torch.empty(1, 3, 10, 12))
    with pytest.raises(ValueError, match=r"previous: expected \[1, 3, H, W\] as current, got \(1, 4, 5, 6\)"):
        skip_in_bands(picture(5, 6), picture(5, 6, channels=4), [0.5])
