from __future__ import annotations

import math
import re

import pytest
import torch
from skimage.color import rgb2ycbcr

from progressive_upsampling.core.layout import (
    from_bhwc,
    map_to_mask,
    mask_to_map,
    rgb_to_y,
    rgb_to_ycbcr,
    through_rgb,
    through_rgb_only,
    to_bhwc,
    ycbcr_to_rgb,
)
from progressive_upsampling.core.resample import resample

SIZES = [(33, 47), (1, 1), (257, 129), (3, 700)]


def double(rgb: torch.Tensor) -> torch.Tensor:
    return rgb.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_bhwc_there_and_back_is_the_same_image(size: tuple[int, int], channels: int) -> None:
    image_bhwc = torch.rand(2, *size, channels)
    image = from_bhwc(image_bhwc)
    assert image.shape == (2, channels, *size)
    assert torch.equal(image[1, :, 0, -1], image_bhwc[1, 0, -1])
    assert torch.equal(to_bhwc(image), image_bhwc)


def test_bhwc_comes_as_half_and_goes_back_as_half() -> None:
    image_bhwc = torch.rand(1, 33, 47, 3).half()
    image = from_bhwc(image_bhwc)
    assert image.dtype == torch.float32
    assert torch.equal(to_bhwc(image, torch.float16), image_bhwc)


@pytest.mark.parametrize("channels", [1, 3])
def test_conversions_share_no_memory_with_their_input(channels: int) -> None:
    image_bhwc, mask = torch.ones(1, 33, 47, channels), torch.ones(1, 33, 47)
    from_bhwc(image_bhwc).zero_()
    mask_to_map(mask).zero_()
    assert image_bhwc.min() == 1
    assert mask.min() == 1
    image, map_ = torch.ones(1, channels, 33, 47), torch.ones(1, 1, 33, 47)
    to_bhwc(image).zero_()
    map_to_mask(map_).zero_()
    assert image.min() == 1
    assert map_.min() == 1


def test_conversions_are_contiguous() -> None:
    image = from_bhwc(torch.rand(2, 33, 47, 3))
    assert image.is_contiguous()
    assert to_bhwc(image).is_contiguous()


@pytest.mark.parametrize("shape", [(33, 47, 3), (1, 3, 33, 47), (1, 33, 47, 5), (1, 0, 47, 3), (0, 33, 47, 3)])
def test_from_bhwc_names_a_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        ValueError, match=re.escape(f"image: expected [B, H, W, 1|3|4] with no axis of length 0, got {shape}")
    ):
        from_bhwc(torch.zeros(shape))


def test_from_bhwc_refuses_nan_and_other_types() -> None:
    with pytest.raises(ValueError, match="NaN"):
        from_bhwc(torch.full((1, 4, 4, 3), math.nan))
    with pytest.raises(TypeError, match="image"):
        from_bhwc([[0.0]])
    with pytest.raises(TypeError, match="image"):
        from_bhwc(torch.zeros(1, 4, 4, 3, dtype=torch.uint8))


@pytest.mark.parametrize("size", SIZES)
def test_mask_there_and_back_is_the_same_mask(size: tuple[int, int]) -> None:
    mask = torch.rand(2, *size)
    assert mask_to_map(mask).shape == (2, 1, *size)
    assert torch.equal(map_to_mask(mask_to_map(mask)), mask)
    assert torch.equal(mask_to_map(mask[0]), mask[:1, None])


@pytest.mark.parametrize("shape", [(7,), (1, 1, 4, 4), (0, 4, 4)])
def test_mask_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="mask: expected"):
        mask_to_map(torch.zeros(shape))


def test_ycbcr_is_that_of_scikit_image() -> None:
    rgb = torch.rand(1, 3, 33, 47, dtype=torch.float64)
    expected = torch.from_numpy(rgb2ycbcr(rgb[0].numpy(), channel_axis=0)) / 255.0
    assert torch.allclose(rgb_to_ycbcr(rgb)[0], expected, atol=1e-12)


@pytest.mark.parametrize("level", [0.0, 0.25, 1.0])
def test_grey_has_no_chroma_and_studio_luma(level: float) -> None:
    y, cb, cr = rgb_to_ycbcr(torch.full((1, 3, 1, 1), level, dtype=torch.float64)).flatten().tolist()
    assert y * 255 == pytest.approx(16 + 219 * level)
    assert cb * 255 == pytest.approx(128)
    assert cr * 255 == pytest.approx(128)


@pytest.mark.parametrize("size", SIZES)
def test_ycbcr_there_and_back_is_the_same_image(size: tuple[int, int]) -> None:
    rgb = torch.rand(2, 3, *size)
    assert torch.allclose(ycbcr_to_rgb(rgb_to_ycbcr(rgb)), rgb, atol=1e-6)


def test_luma_is_the_first_channel_of_ycbcr() -> None:
    rgb = torch.rand(2, 3, 33, 47)
    assert torch.equal(rgb_to_y(rgb), rgb_to_ycbcr(rgb)[:, :1])


def test_autocast_leaves_colour_conversion_exact() -> None:
    rgb = torch.rand(1, 3, 33, 47)
    with torch.autocast("cpu", torch.bfloat16):
        there, back = rgb_to_ycbcr(rgb), ycbcr_to_rgb(rgb_to_ycbcr(rgb))
    assert torch.equal(there, rgb_to_ycbcr(rgb))
    assert torch.allclose(back, rgb, atol=1e-6)


def test_half_precision_colour_is_rounded_once_at_the_end() -> None:
    rgb = torch.rand(1, 3, 33, 47).bfloat16()
    assert torch.equal(rgb_to_y(rgb), rgb_to_y(rgb.float()).bfloat16())


@pytest.mark.parametrize("shape", [(1, 1, 4, 4), (1, 4, 4, 4), (3, 4, 4)])
def test_colour_conversion_takes_three_channels(shape: tuple[int, ...]) -> None:
    for convert in (rgb_to_ycbcr, ycbcr_to_rgb, rgb_to_y):
        with pytest.raises(ValueError, match=re.escape("image: expected [B, 3, H, W]")):
            convert(torch.zeros(shape))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_through_rgb_keeps_channels_and_applies_the_function(size: tuple[int, int], channels: int) -> None:
    image = torch.rand(2, channels, *size)
    colours = channels - 1 if channels in (2, 4) else channels
    result = through_rgb(image, double)
    assert result.shape == (2, channels, 2 * size[0], 2 * size[1])
    assert torch.allclose(result[:, :colours], double(image[:, :colours]), atol=1e-6)


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_resampled_bicubically_and_clamped(channels: int) -> None:
    image = torch.rand(1, channels, 33, 47).round()
    alpha = through_rgb(image, double)[:, -1:]
    assert torch.equal(alpha, resample(image[:, -1:], (66, 94)).clamp(0, 1))
    assert alpha.min() == 0
    assert alpha.max() == 1


def test_alpha_is_kept_exactly_where_the_size_stays() -> None:
    image = torch.rand(1, 4, 33, 47)
    assert torch.equal(through_rgb(image, lambda rgb: 1 - rgb)[:, 3], image[:, 3])


def test_function_never_sees_alpha() -> None:
    seen = []
    image = torch.rand(1, 4, 33, 47)
    through_rgb(image, lambda rgb: seen.append(rgb) or rgb)
    assert torch.equal(seen[0], image[:, :3])


def test_grey_is_the_mean_of_the_channels_that_come_back() -> None:
    grey = torch.rand(1, 1, 33, 47)
    weights = torch.tensor([1.0, 2.0, 6.0]).view(1, 3, 1, 1)
    assert torch.allclose(through_rgb(grey, lambda rgb: rgb * weights), grey * 3, atol=1e-6)


def test_through_rgb_leaves_its_input_alone() -> None:
    image = torch.rand(1, 4, 33, 47)
    before = image.clone()
    through_rgb(image, double)
    assert torch.equal(image, before)


@pytest.mark.parametrize("size", [None, (66, 93)])
def test_function_that_returns_another_shape_is_refused(size: tuple[int, int] | None) -> None:
    with pytest.raises(ValueError, match="function: expected a result"):
        through_rgb(torch.rand(1, 4, 33, 47), (lambda rgb: rgb[:, :1]) if size is None else double, size)


def test_colour_of_any_image_is_rgb():
    grey, rgb, rgba = (torch.rand(2, channels, 5, 7) for channels in (1, 3, 4))
    assert torch.equal(through_rgb_only(grey), torch.cat([grey] * 3, 1))
    assert torch.equal(through_rgb_only(rgb), rgb)
    assert torch.equal(through_rgb_only(rgba), rgba[:, :3])
