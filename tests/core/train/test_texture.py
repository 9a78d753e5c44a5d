"""The terms on texture, against numpy and by what they are for."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
import torch

from progressive_upsampling.core.train import texture
from progressive_upsampling.core.train.losses import l1
from progressive_upsampling.core.train.texture import checkerboard, spectrum

from .test_losses import pair

SIDE = texture.SPECTRUM_WINDOW
ALL = [spectrum, checkerboard]


def noise(seed: int, size: tuple[int, int] = (64, 64), strength: float = 0.05) -> torch.Tensor:
    return strength * torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(seed))


def grid(image: torch.Tensor, period: int, strength: float = 0.02) -> torch.Tensor:
    dots = torch.zeros_like(image)
    dots[..., ::period, ::period] = strength
    return image + dots


def log_powers(image: np.ndarray) -> np.ndarray:
    """Those of a picture `[3, H, W]`, averaged over neighbouring windows, as the docstring has it."""
    matrix = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]) / 255
    planes = np.einsum("kc, c y x -> k y x", matrix, image)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(SIDE) / SIDE)
    shape = np.outer(hann, hann) / np.sqrt((np.outer(hann, hann) ** 2).sum())
    tops, lefts = (range(0, length - SIDE + 1, SIDE // 2) for length in image.shape[1:])
    power = {}
    for top, left in itertools.product(tops, lefts):
        cut = planes[:, top : top + SIDE, left : left + SIDE]
        power[top, left] = np.abs(np.fft.rfft2((cut - cut.mean((1, 2), keepdims=True)) * shape)) ** 2
    some = [(min(3, len(starts)), starts) for starts in (tops, lefts)]
    groups = [[starts[i : i + count] for i in range(len(starts) - count + 1)] for count, starts in some]
    means = [np.mean([power[at] for at in itertools.product(*group)], 0) for group in itertools.product(*groups)]
    return np.log(np.stack(means) + 0.3 / 255**2)


@pytest.mark.parametrize("size", [(16, 16), (33, 47), (64, 25)])
def test_spectrum_is_what_numpy_finds(size):
    image, target = pair(size)
    pairs = zip(image.double().numpy(), target.double().numpy(), strict=True)
    expected = np.mean([np.abs(log_powers(a) - log_powers(b)) for a, b in pairs])
    assert spectrum(image, target).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("size", [(16, 16), (16, 20), (33, 47)])
def test_checkerboard_is_what_numpy_finds(size):
    image, target = pair(size)
    error = (image - target).double().numpy()
    found = []
    for top in range(0, size[0] - 15, 16):
        for left in range(0, size[1] - 15, 16):
            window = error[..., top : top + 16, left : left + 16]
            means = np.stack([window[..., y::4, x::4].mean((2, 3)) for y in range(4) for x in range(4)], -1)
            found.append(np.abs(means - means.mean(-1, keepdims=True)))
    assert checkerboard(image, target).item() == pytest.approx(np.mean(found), rel=1e-4)


def test_spectrum_of_noise_off_by_a_factor_is_its_logarithm():
    target = noise(0, (128, 128))
    assert spectrum(3 * target, target).item() == pytest.approx(2 * math.log(3), rel=0.05)  # the floor takes a little


def test_spectrum_does_not_ask_where_grains_lie_and_blur_costs_it_most():
    target = noise(0)
    moved, blurred = target.roll((SIDE // 2, SIDE // 2), (2, 3)), torch.nn.functional.avg_pool2d(target, 3, 1, 1)
    assert l1(moved, target) > l1(blurred, target)  # pixels would have it the other way round
    assert spectrum(noise(1), target) < 0.7 * spectrum(blurred, target)


@pytest.mark.parametrize("period", [2, 4])
def test_no_other_noise_takes_the_place_of_texture(period):
    """A grid has all the power that a blurred picture lacks, yet costs more than noise of that power."""
    target = noise(0)
    blurred = torch.nn.functional.avg_pool2d(target, 3, 1, 1)
    lost = (target - blurred).square().mean().sqrt()
    dots = grid(torch.zeros_like(target), period)
    dots = dots - dots.mean()
    gridded = blurred + dots * lost / dots.square().mean().sqrt()
    textured = blurred + noise(2, strength=float(lost))
    assert spectrum(gridded, target) > 1.3 * spectrum(textured, target)


@pytest.mark.parametrize("period", [2, 4])
def test_a_grid_costs_more_than_any_other_error_of_its_size(period):
    target = noise(0)
    gridded = grid(target, period)
    size = l1(gridded, target)
    other = noise(3)
    other = target + other * size / l1(other, torch.zeros_like(other))
    smooth = target + size
    assert l1(other, target) == pytest.approx(l1(smooth, target).item(), rel=1e-3)
    assert checkerboard(gridded, target) > 2 * checkerboard(other, target)
    assert checkerboard(smooth, target) < 1e-6


def test_a_grid_is_found_in_each_place_by_itself():
    """Grids that cancel out over the batch or the picture are grids all the same."""
    target = torch.zeros(2, 3, 32, 32)
    signs = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat_interleave(16, 1).view(2, 1, 1, 32)
    opposed = grid(target, 2) * signs
    assert checkerboard(opposed, target) == pytest.approx(checkerboard(grid(target, 2), target).item())


@pytest.mark.parametrize("loss", ALL)
def test_flat_images_have_finite_slopes(loss):
    image = torch.full((1, 3, 32, 32), 0.5, requires_grad=True)
    loss(image, noise(0, (32, 32))[:1]).backward()
    assert torch.isfinite(image.grad).all()


@pytest.mark.parametrize(
    ("loss", "smallest"), [(spectrum, texture.SPECTRUM_WINDOW), (checkerboard, texture.GRID_WINDOW)]
)
def test_smaller_images_are_refused(loss, smallest):
    image = torch.zeros(1, 3, smallest - 1, 64)
    said = re.escape(f"image: expected at least {smallest}x{smallest} px, got (1, 3, {smallest - 1}, 64)")
    with pytest.raises(ValueError, match=said):
        loss(image, image)
