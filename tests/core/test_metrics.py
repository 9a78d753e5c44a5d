from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np
import pytest
import skimage.data
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from progressive_upsampling.core.metrics import psnr, radial_log_ratio, radial_spectrum_error, ssim

METRICS = [psnr, ssim, radial_log_ratio, radial_spectrum_error]
SIZES = [(33, 47), (257, 129), (11, 300)]


def photo(size: tuple[int, int] = (257, 129)) -> torch.Tensor:
    pixels = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1)[None]
    return pixels[..., 100 : 100 + size[0], 150 : 150 + size[1]] / 255.0


def noisy(image: torch.Tensor, sigma: float = 0.05) -> torch.Tensor:
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
    return (image + sigma * noise).clamp(0, 1)


def levels(image: torch.Tensor) -> np.ndarray:
    """[1, C, H, W] as an 8-bit picture [H, W, C] in float64."""
    return np.floor(image[0].permute(1, 2, 0).double().numpy().clip(0, 1) * 255 + 0.5)


def luma(picture: np.ndarray) -> np.ndarray:
    return picture @ np.array([65.481, 128.553, 24.966]) / 255 + 16


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crop", [0, 2, 5])
def test_psnr_is_that_of_scikit_image(size: tuple[int, int], crop: int) -> None:
    image, reference = noisy(photo(size)), photo(size)
    inside = slice(crop, -crop or None)
    a, b = levels(image)[inside, inside], levels(reference)[inside, inside]
    rgb = peak_signal_noise_ratio(b, a, data_range=255)
    y = peak_signal_noise_ratio(luma(b), luma(a), data_range=255)
    assert float(psnr(image, reference, channel="rgb", crop=crop)) == pytest.approx(rgb, abs=1e-9)
    assert float(psnr(image, reference, crop=crop)) == pytest.approx(y, abs=1e-9)


@pytest.mark.parametrize(("size", "crop"), [((33, 47), 0), ((257, 129), 4), ((33, 47), 11), ((11, 300), 0)])
def test_ssim_is_that_of_scikit_image(size: tuple[int, int], crop: int) -> None:
    image, reference = noisy(photo(size)), photo(size)
    inside = slice(crop, -crop or None)
    a, b = levels(image)[inside, inside], levels(reference)[inside, inside]
    options = {"data_range": 255, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    rgb = structural_similarity(a, b, channel_axis=2, **options)
    y = structural_similarity(luma(a), luma(b), **options)
    assert float(ssim(image, reference, channel="rgb", crop=crop)) == pytest.approx(rgb, abs=1e-9)
    assert float(ssim(image, reference, crop=crop)) == pytest.approx(y, abs=1e-9)


@pytest.mark.parametrize("channel", ["y", "rgb"])
def test_grey_stays_what_it_is(channel: str) -> None:
    grey = photo()[:, :1]
    image = noisy(grey)
    expected = peak_signal_noise_ratio(levels(grey), levels(image), data_range=255)
    assert float(psnr(image, grey, channel=channel)) == pytest.approx(expected, abs=1e-9)


def test_one_level_of_difference_has_its_known_psnr() -> None:
    reference = torch.full((1, 1, 33, 47), 100 / 255)
    image = torch.full((1, 1, 33, 47), 101 / 255)
    assert float(psnr(image, reference)) == pytest.approx(20 * math.log10(255))


@pytest.mark.parametrize("channel", ["y", "rgb"])
def test_equal_images_are_perfect(channel: str) -> None:
    image = photo()
    assert float(psnr(image, image.clone(), channel=channel)) == math.inf
    assert float(ssim(image, image.clone(), channel=channel)) == pytest.approx(1)
    assert float(radial_spectrum_error(image, image.clone(), channel=channel)) == 0


@pytest.mark.parametrize("metric", METRICS)
def test_images_are_clamped_and_quantised_first(metric: Callable[..., torch.Tensor]) -> None:
    image, reference = noisy(photo()), photo()
    whole = (image * 255).round() / 255
    assert torch.equal(metric(whole + 0.4 / 255, reference), metric(whole, reference))
    beyond = torch.where(whole == 1, 1.7, torch.where(whole == 0, -0.7, whole))
    assert not torch.equal(beyond, whole)
    assert torch.equal(metric(beyond, reference), metric(whole, reference))


def test_half_a_level_is_rounded_up() -> None:
    image = torch.tensor([0.5, 2.5, 4.5], dtype=torch.float64).view(1, 1, 1, 3) / 255
    expected = torch.tensor([1.0, 3.0, 5.0], dtype=torch.float64).view(1, 1, 1, 3) / 255
    assert float(psnr(image, expected)) == math.inf


@pytest.mark.parametrize("metric", METRICS)
def test_cropped_border_does_not_count(metric: Callable[..., torch.Tensor]) -> None:
    image, reference = noisy(photo()), photo()
    framed = torch.zeros_like(image)
    framed[..., 3:-3, 3:-3] = image[..., 3:-3, 3:-3]
    assert torch.equal(metric(framed, reference, crop=3), metric(image, reference, crop=3))
    assert not torch.equal(metric(framed, reference, crop=2), metric(image, reference, crop=2))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("channel", ["y", "rgb"])
def test_every_image_of_a_batch_has_its_own_value(metric: Callable[..., torch.Tensor], channel: str) -> None:
    reference = torch.cat([photo(), photo().flip(2), photo().flip(1)])
    image = torch.cat([noisy(reference[:1]), noisy(reference[1:2], 0.1), reference[2:]])
    together = metric(image, reference, channel=channel)
    assert together.dtype == torch.float64
    assert together.shape[0] == 3
    for b in range(3):
        alone = metric(image[b : b + 1], reference[b : b + 1], channel=channel)
        assert torch.allclose(together[b], alone[0], rtol=1e-12, atol=1e-12)


def blur(image: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.avg_pool2d(image, 3, stride=1, padding=1, count_include_pad=False)


def test_smoothing_lowers_and_noise_raises_the_high_frequencies() -> None:
    reference = photo()
    smooth, rough = (radial_log_ratio(x, reference)[0] for x in (blur(reference), noisy(reference)))
    assert smooth.shape == (32,)
    assert (smooth[16:] < -1).all()
    assert (rough[16:] > 0.5).all()
    assert abs(float(smooth[0])) < 1
    assert abs(float(rough[0])) < 1


def test_smoothing_and_noise_both_raise_the_spectrum_error() -> None:
    reference = photo()
    errors = [float(radial_spectrum_error(x, reference)) for x in (blur(reference), noisy(reference))]
    worse = [float(radial_spectrum_error(x, reference)) for x in (blur(blur(reference)), noisy(reference, 0.1))]
    assert min(errors) > 1
    assert worse[0] > errors[0]
    assert worse[1] > errors[1]


@pytest.mark.parametrize(("dim", "frequency"), [(2, 0.2), (3, 0.2), (3, 0.45), (2, 0.03)])
def test_a_wave_shows_in_the_ring_of_its_frequency(dim: int, frequency: float) -> None:
    flat = torch.full((1, 1, 200, 160), 0.5)
    phase = 2 * math.pi * frequency * torch.arange(flat.shape[dim])
    wave = 0.4 * torch.sin(phase).view([-1 if axis == dim else 1 for axis in range(4)])
    ratio = radial_log_ratio(flat + wave, flat, rings=20)[0]
    assert int(ratio.argmax()) == math.ceil(frequency * 40) - 1


def test_half_the_contrast_is_6_decibels_less() -> None:
    reference = noisy(torch.full((1, 1, 128, 128), 0.5), 0.1)
    ratio = radial_log_ratio(0.25 + reference / 2, reference)[0]
    assert torch.allclose(ratio, torch.tensor(-6.02, dtype=torch.float64), atol=0.1)


def test_noise_of_one_level_on_a_flat_image_is_measured_against_the_rounding() -> None:
    signs = torch.randint(0, 2, (1, 1, 256, 200), generator=torch.Generator().manual_seed(0)) * 2 - 1
    ratio = radial_log_ratio((100 + signs) / 255, torch.full((1, 1, 256, 200), 100 / 255), rings=8)[0]
    expected = torch.tensor(10 * math.log10((1 + 1 / 12) / (1 / 12)), dtype=torch.float64)
    assert torch.allclose(ratio, expected, rtol=0, atol=0.6)


def test_the_spectrum_error_is_the_mean_of_the_absolute_ratios() -> None:
    reference = torch.cat([photo(), photo().flip(1)])
    ratio = radial_log_ratio(noisy(reference), reference)
    assert torch.equal(radial_spectrum_error(noisy(reference), reference), ratio.abs().mean(dim=1))


def test_empty_rings_compare_as_equal() -> None:
    dark, light = torch.full((1, 1, 33, 47), 0.2), torch.full((1, 1, 33, 47), 0.8)
    assert float(radial_spectrum_error(dark, light)) == 0


@pytest.mark.parametrize(("size", "rings"), [((4, 4), 2), ((5, 300), 2), ((33, 47), 16), ((257, 129), 32)])
def test_no_ring_is_empty(size: tuple[int, int], rings: int) -> None:
    image = torch.rand(1, 3, *size)
    ratio = radial_log_ratio(image, image.flip(1))
    assert ratio.shape == (1, rings)
    assert ratio.isfinite().all()


@pytest.mark.parametrize("metric", METRICS)
def test_wrong_input_is_named(metric: Callable[..., torch.Tensor]) -> None:
    image = torch.rand(1, 3, 33, 47)
    with pytest.raises(ValueError, match=re.escape("reference: expected (1, 3, 33, 47) as image, got (1, 3, 33, 46)")):
        metric(image, image[..., :-1])
    with pytest.raises(ValueError, match="reference: expected"):
        metric(image, image[:, :1])
    with pytest.raises(ValueError, match=re.escape("image: expected [B, 1|3, H, W], got (1, 4, 33, 47)")):
        metric(torch.rand(1, 4, 33, 47), torch.rand(1, 4, 33, 47))
    with pytest.raises(ValueError, match="reference: expected finite values, got NaN"):
        metric(image, image * math.nan)
    with pytest.raises(ValueError, match="channel: expected one of 'y', 'rgb', got str 'luma'"):
        metric(image, image, channel="luma")
    with pytest.raises(ValueError, match="crop: expected less than half of 33 x 47 pixels, got 17"):
        metric(image, image, crop=17)
    with pytest.raises(ValueError, match="crop: expected less than half of 8 x 20 pixels, got 4"):
        metric(image[..., :8, :20], image[..., :8, :20], crop=4)
    with pytest.raises(ValueError, match="crop: expected an integer >= 0, got -1"):
        metric(image, image, crop=-1)


def test_too_small_for_the_window_is_named() -> None:
    image = torch.rand(1, 3, 14, 47)
    assert ssim(image, image, crop=1).shape == (1,)
    with pytest.raises(ValueError, match="at least 11 x 11 pixels after the crop for SSIM, got 10 x 43"):
        ssim(image, image, crop=2)
    with pytest.raises(ValueError, match="at least 4 x 4 pixels after the crop for a spectrum, got 2 x 35"):
        radial_log_ratio(image, image, crop=6)
