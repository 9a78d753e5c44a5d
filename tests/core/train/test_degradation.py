from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.filters import gaussian

from progressive_upsampling.core.resample import resample
from progressive_upsampling.core.train.degradation import RESIZINGS, RealisticConfig, degrade_realistic

from .conftest import noise_picture, soft_picture

NOTHING = RealisticConfig(blur=0, anisotropic=0, resizing=("area",), noise=0, poisson=0, grey=0, jpeg=0)


def tensor_of(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture.copy()).permute(2, 0, 1)


def soft(height: int, width: int) -> torch.Tensor:
    return tensor_of(soft_picture(height, width))


def flat(value: int, side: int = 96) -> torch.Tensor:
    return torch.full((3, side, side), value, dtype=torch.uint8)


def degrade(image: torch.Tensor, size: tuple[int, int], seed: int = 0, **settings: object) -> torch.Tensor:
    return degrade_realistic(image, size, np.random.default_rng(seed), replace(NOTHING, **settings))


def spread(image: torch.Tensor, level: int) -> torch.Tensor:
    return (image.double() - level) / 255


@pytest.mark.parametrize(("factor", "size"), [(2, (33, 47)), (8, (3, 3)), (1, (7, 5)), (1, (1, 1))])
def test_the_result_is_a_function_of_the_generator_alone(factor, size):
    image = soft(factor * size[0], factor * size[1])
    before = image.clone()
    for seed in range(20):
        one, again = (degrade_realistic(image, size, np.random.default_rng(seed)) for _ in range(2))
        assert torch.equal(one, again) and one.dtype == torch.uint8 and one.shape == (3, *size)
    assert torch.equal(image, before)


def test_another_generator_gives_another_result():
    results = {degrade_realistic(soft(60, 60), (20, 20), np.random.default_rng(s)).numpy().tobytes() for s in range(20)}
    assert len(results) == 20


def test_the_mean_brightness_is_kept():
    image = soft(144, 144)
    for channel in range(3):
        results = [degrade_realistic(image, (48, 48), np.random.default_rng(seed))[channel] for seed in range(40)]
        mean = torch.stack(results).double().mean().item()
        assert mean == pytest.approx(image[channel].double().mean().item(), abs=1.0)


def test_with_everything_off_the_picture_is_reduced_and_nothing_else():
    image = soft(60, 90)
    expected = image.double().reshape(3, 20, 3, 30, 3).mean((2, 4)).round()
    assert torch.equal(degrade(image, (20, 30)).double(), expected)
    assert torch.equal(degrade(image, (60, 90)), image)


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_reductions_are_those_of_their_name(method):
    image = soft(60, 90)
    expected = (resample(image[None].double() / 255, (20, 30), method)[0].clamp(0, 1) * 255).round()
    assert torch.equal(degrade(image, (20, 30), resizing=(method,)).double(), expected)


def test_each_way_of_reducing_is_drawn():
    image = tensor_of(noise_picture(60, 90))
    single = {method: degrade(image, (20, 30), resizing=(method,)) for method in RESIZINGS}
    drawn = [degrade(image, (20, 30), seed, resizing=RESIZINGS) for seed in range(30)]
    counts = [sum(torch.equal(result, single[method]) for result in drawn) for method in RESIZINGS]
    assert sum(counts) == 30 and min(counts) > 3


@pytest.mark.parametrize("width", [0.4, 1.0, 2.5])
def test_an_isotropic_blur_is_gaussian_of_the_width_in_pixels_of_the_input(width):
    image = tensor_of(noise_picture(64, 80))
    blurred = gaussian(image.double().numpy(), 2 * width, mode="reflect", truncate=6, channel_axis=0)
    expected = blurred.reshape(3, 32, 2, 40, 2).mean((2, 4))
    result = degrade(image, (32, 40), blur=1, width=(width, width)).double().numpy()
    # Half a level is rounding; a narrow Gaussian, sampled, is not quite what its transform gives.
    assert np.abs(result - expected).max() < (0.6 if width > 0.5 else 1.5)


def test_an_anisotropic_blur_has_two_widths_and_an_angle():
    point = torch.zeros(3, 61, 61, dtype=torch.uint8)
    point[:, 27:34, 27:34] = 255
    ratios, angles = [], []
    for seed in range(30):
        spot = degrade(point, (61, 61), seed, blur=1, anisotropic=1, width=(1.0, 5.0))[0].double().numpy()
        rows, columns = np.mgrid[:61, :61] - 30
        moments = np.array([[rows * rows, rows * columns], [rows * columns, columns * columns]])
        covariance = (moments * spot).sum((2, 3)) / spot.sum() - 4 * np.eye(2)  # less that of the square itself
        values, vectors = np.linalg.eigh(covariance)
        assert np.sqrt(values[0]) > 0.6 and np.sqrt(values[1]) < 5.3
        ratios.append(np.sqrt(values[1] / values[0]))
        angles.append(np.arctan2(vectors[0, 1], vectors[1, 1]) % np.pi)
    assert max(ratios) > 2
    assert np.histogram(angles, 4, (0, np.pi))[0].min() > 1
    isotropic = degrade(point, (61, 61), blur=1, width=(1.0, 5.0))[0]
    assert torch.equal(isotropic, isotropic.T) and torch.equal(isotropic, isotropic.flip(0))


@pytest.mark.parametrize("sigma", [0.02, 0.08])
def test_gaussian_noise_has_the_strength_drawn_and_is_the_same_in_all_channels_where_it_is_grey(sigma):
    for level in (70, 180):
        colour = spread(degrade(flat(level), (96, 96), noise=1, sigma=(sigma, sigma)), level)
        assert colour.std().item() == pytest.approx(sigma, rel=0.05)
        assert np.abs(np.corrcoef(colour.flatten(1).numpy()) - np.eye(3)).max() < 0.06
    grey = degrade(flat(128), (96, 96), noise=1, sigma=(sigma, sigma), grey=1)
    assert torch.equal(grey[0], grey[1]) and torch.equal(grey[0], grey[2])
    assert spread(grey, 128).std().item() == pytest.approx(sigma, rel=0.05)


@pytest.mark.parametrize("grey", [0, 1])
def test_poisson_noise_grows_with_the_root_of_the_brightness(grey):
    for level in (20, 80, 180):
        noisy = degrade(flat(level), (96, 96), noise=1, poisson=1, grey=grey, sigma=(0.05, 0.05))
        assert spread(noisy, level).std().item() == pytest.approx(0.05 * (level / 255) ** 0.5, rel=0.05)
        assert bool(torch.equal(noisy[0], noisy[1])) is bool(grey)


def test_shares_of_the_noises_are_grey_and_of_the_blurs_round():
    noises = [degrade(flat(128, 16), (16, 16), seed, noise=1, grey=0.3) for seed in range(200)]
    assert sum(bool(torch.equal(noise[0], noise[1])) for noise in noises) == pytest.approx(60, abs=20)
    dark = [degrade(flat(2, 16), (16, 16), seed, noise=1, poisson=0.3, sigma=(0.2, 0.2)) for seed in range(200)]
    # A photon is worth ten levels here: in the dark most pixels get none.
    assert sum(bool((noise == 0).double().mean() > 0.7) for noise in dark) == pytest.approx(60, abs=20)
    point = flat(0, 21)
    point[:, 10, 10] = 255
    spots = [degrade(point, (21, 21), seed, blur=1, anisotropic=0.3, width=(0.5, 3.0))[0] for seed in range(200)]
    assert sum(not torch.equal(spot, spot.T.flip(0)) for spot in spots) == pytest.approx(60, abs=20)


def jpeg_of(samples: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(samples).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def test_jpeg_is_pillows_of_the_quality_drawn_on_a_grid_that_begins_anywhere():
    image, found = soft(33, 27), set()
    pixels = image.permute(1, 2, 0).numpy()
    for seed in range(6):
        result = degrade(image, (33, 27), seed, jpeg=1, quality=(30, 32)).permute(1, 2, 0).numpy()
        for quality in range(30, 33):
            for top in range(16):
                for left in range(16):
                    padded = np.pad(pixels, ((top, 0), (left, 0), (0, 0)), "symmetric")
                    if np.array_equal(jpeg_of(padded, quality)[top:, left:], result):
                        found.add((seed, quality, top, left))
    assert {seed for seed, *_ in found} == set(range(6))
    assert len({quality for _, quality, *_ in found}) > 1 and len({place for *_, place in found}) > 3


def test_a_jpeg_of_lower_quality_does_more_harm():
    image = soft(64, 64)
    errors = [
        (degrade(image, (64, 64), jpeg=1, quality=(q, q)).double() - image.double()).abs().mean() for q in (95, 60, 15)
    ]
    assert 0 < errors[0] < errors[1] < errors[2]


@pytest.mark.parametrize("part", ["blur", "noise", "jpeg"])
def test_each_part_takes_its_share_of_the_pictures(part):
    image = soft(32, 32)
    clean = degrade(image, (32, 32))
    changed = sum(not torch.equal(degrade(image, (32, 32), seed, **{part: 0.3}), clean) for seed in range(200))
    assert changed == pytest.approx(60, abs=20)


def test_pixels_keep_their_place():
    rows, columns = np.mgrid[:72, :72]
    ramp = np.stack([rows * 2 + 40, columns * 2 + 40, rows + columns + 40], axis=2).astype(np.uint8)
    expected = ramp.reshape(24, 3, 24, 3, 3).mean((1, 3))
    for seed in range(10):
        result = degrade(tensor_of(ramp), (24, 24), seed, blur=1, anisotropic=0.5, width=(0.1, 0.8), resizing=RESIZINGS)
        assert np.abs(result.permute(1, 2, 0).numpy() - expected)[4:-4, 4:-4].max() <= 1


@pytest.mark.parametrize("image", [torch.rand(3, 8, 8), np.zeros((3, 8, 8), np.uint8)])
def test_what_is_no_8_bit_tensor_is_an_error(image):
    with pytest.raises(TypeError, match="image: expected a uint8 tensor"):
        degrade_realistic(image, (4, 4), np.random.default_rng(0))


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 3, 8, 8), (3, 0, 8)])
def test_what_is_no_rgb_picture_is_an_error(shape):
    with pytest.raises(ValueError, match="image: expected"):
        degrade_realistic(torch.zeros(shape, dtype=torch.uint8), (4, 4), np.random.default_rng(0))
