from __future__ import annotations

import math

import kornia
import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from progressive_upsampling.core.train import losses
from progressive_upsampling.core.train.losses import PIXEL_LOSSES, charbonnier, frequency, l1, l2, pixel_loss, ssim
from progressive_upsampling.core.train.texture import checkerboard, spectrum

SIZES = [(33, 47), (11, 11), (12, 70)]
ALL = [l1, l2, charbonnier, ssim, frequency, spectrum, checkerboard]


def pair(size: tuple[int, int] = (33, 47), noise: float = 0.1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(size[0])
    coarse = torch.rand(2, 3, 6, 6, generator=generator)
    target = torch.nn.functional.interpolate(coarse, size, mode="bilinear")
    return target + noise * torch.randn(target.shape, generator=generator), target


def numpy_of(*images: torch.Tensor) -> list[np.ndarray]:
    return [image.double().numpy() for image in images]


@pytest.mark.parametrize("size", [*SIZES, (1, 1)])
def test_pixel_losses_follow_their_formulas(size):
    image, target = pair(size)
    d = np.subtract(*numpy_of(image, target))
    assert l1(image, target).item() == pytest.approx(np.abs(d).mean(), rel=1e-5)
    assert l2(image, target).item() == pytest.approx((d**2).mean(), rel=1e-5)
    for epsilon in (1e-3, 0.1):
        expected = np.sqrt(d**2 + epsilon**2).mean()
        assert charbonnier(image, target, epsilon).item() == pytest.approx(expected, rel=1e-5)
    assert charbonnier(image, target).item() == pytest.approx(np.sqrt(d**2 + 1e-6).mean(), rel=1e-5)


def test_charbonnier_is_not_kornias():
    image, target = pair()
    other = kornia.losses.charbonnier_loss(image, target, reduction="mean")
    assert charbonnier(image, target) > 5 * other


def test_charbonnier_has_a_slope_everywhere():
    image, target = torch.zeros(1, 1, 2, 2, requires_grad=True), torch.zeros(1, 1, 2, 2)
    charbonnier(image, target).backward()
    assert not image.grad.any()  # flat, and finite, where plain √d² has no slope


@pytest.mark.parametrize("size", SIZES)
def test_ssim_is_that_of_scikit_image(size):
    image, target = pair(size)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    pairs = zip(*numpy_of(image, target), strict=True)
    similar = np.mean([structural_similarity(a, b, channel_axis=0, **options) for a, b in pairs])
    assert ssim(image, target).item() == pytest.approx(1 - similar, abs=2e-5)


@pytest.mark.parametrize("size", [*SIZES, (1, 1)])
def test_frequency_is_the_mean_distance_of_coefficients(size):
    image, target = pair(size)
    a, b = (np.fft.fft2(x, norm="ortho") for x in numpy_of(image, target))
    assert frequency(image, target).item() == pytest.approx(np.abs(a - b).mean(), rel=1e-5)


def test_frequency_of_white_noise_is_what_is_said():
    target = torch.zeros(1, 3, 257, 129)
    image = 0.1 * torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
    assert frequency(image, target).item() == pytest.approx(0.1 * math.sqrt(math.pi) / 2, rel=0.01)


def test_frequency_tells_ringing_from_noise_of_the_same_l1():
    target, x = torch.zeros(1, 1, 64, 64), torch.arange(64.0)
    ringing = (0.1 * torch.sin(2 * math.pi * x / 4 + 0.7)).expand_as(target)
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
    noise = noise * l1(ringing, target) / l1(noise, target)
    assert l1(noise, target) == pytest.approx(l1(ringing, target))
    assert frequency(ringing, target) < 0.1 * frequency(noise, target)


@pytest.mark.parametrize("loss", ALL)
def test_equal_images_cost_the_least_and_have_finite_slopes(loss):
    image = pair()[1].requires_grad_()
    value = loss(image, image.detach())
    value.backward()
    least = losses.EPSILON if loss is charbonnier else 0.0
    assert value.item() == pytest.approx(least, abs=1e-6) and torch.isfinite(image.grad).all()


@pytest.mark.parametrize("loss", ALL)
def test_more_noise_costs_more(loss):
    costs = [loss(*pair(noise=noise)).item() for noise in (0.01, 0.03, 0.1, 0.3)]
    assert costs == sorted(costs) and costs[-1] > 2 * costs[0]


@pytest.mark.parametrize("loss", ALL)
def test_gradients_are_those_of_the_value(loss):
    image, target = (x[:1, :, :17, :18].double() for x in pair())
    assert torch.autograd.gradcheck(lambda x: loss(x, target), (image.requires_grad_(),), fast_mode=True)


@pytest.mark.parametrize("loss", ALL)
def test_nothing_is_lost_to_half_precision_around(loss):
    image, target = pair()
    expected = loss(image, target)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(image, target), expected)
    halves = image.bfloat16(), target.bfloat16()
    assert loss(*halves).dtype == torch.float32 and torch.equal(loss(*halves), loss(*(x.float() for x in halves)))
    assert loss(image.double(), target.double()).dtype == torch.float64


@pytest.mark.parametrize("loss", ALL)
@pytest.mark.parametrize("bad", [(torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 17)), (torch.rand(3, 16, 16),) * 2])
def test_a_wrong_shape_is_named(loss, bad):
    with pytest.raises(ValueError, match="expected two of one shape"):
        loss(*bad)


@pytest.mark.parametrize("loss", ALL)
def test_a_wrong_type_is_named(loss):
    with pytest.raises(TypeError, match=r"target: expected a float tensor .*uint8"):
        loss(torch.rand(1, 3, 16, 16), torch.zeros(1, 3, 16, 16, dtype=torch.uint8))


def test_ssim_of_less_than_its_window_is_refused():
    with pytest.raises(ValueError, match="at least 11x11"):
        ssim(torch.rand(1, 3, 10, 40), torch.rand(1, 3, 10, 40))


def test_pixel_losses_are_found_by_name():
    assert {name: pixel_loss(name) for name in PIXEL_LOSSES} == PIXEL_LOSSES
    with pytest.raises(ValueError, match="pixel: expected one of 'l1', 'l2', 'charbonnier'"):
        pixel_loss("l3")


@pytest.mark.parametrize("epsilon", [0, -1, math.nan])
def test_a_wrong_epsilon_is_named(epsilon):
    with pytest.raises(ValueError, match="epsilon"):
        charbonnier(*pair(), epsilon)
