from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from progressive_upsampling.core.local_features import blur, gradient_magnitude, luma, similarity

SIZES = [(33, 47), (1, 1), (257, 129), (3, 700)]


def test_luma_is_the_mean_of_the_colours_without_alpha() -> None:
    image = torch.rand(2, 4, 5, 6)
    torch.testing.assert_close(luma(image), image[:, :3].sum(1, keepdim=True) / 3)
    assert torch.equal(luma(image[:, :1]), image[:, :1])


def test_gradient_of_a_ramp_is_its_slope_in_any_direction() -> None:
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(20.0), indexing="ij")
    for dy, dx in ((0.0, 0.03), (0.04, 0.0), (0.03, -0.04)):
        gradient = gradient_magnitude((dy * y + dx * x)[None, None])[..., 1:-1, 1:-1]
        torch.testing.assert_close(gradient, torch.full_like(gradient, (dy**2 + dx**2) ** 0.5), atol=2e-4, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_gradient_of_a_flat_plane_is_0_with_a_finite_derivative(size: tuple[int, int]) -> None:
    plane = torch.full((1, 1, *size), 0.37, requires_grad=True)
    gradient = gradient_magnitude(plane)
    assert gradient.max() < 1e-6
    gradient.sum().backward()
    assert plane.grad is not None and plane.grad.isfinite().all()


@pytest.mark.parametrize("size", SIZES)
def test_blur_keeps_a_constant_image(size: tuple[int, int]) -> None:
    image = torch.full((1, 3, *size), 0.6)
    torch.testing.assert_close(blur(image, 1.3), image)


def test_blur_spreads_a_point_by_sigma() -> None:
    point = torch.zeros(1, 1, 41, 41, dtype=torch.float64)
    point[..., 20, 20] = 1.0
    spread = blur(point, 2.0)[0, 0]
    distance = (torch.arange(41, dtype=torch.float64) - 20).square()
    assert (spread.sum(0) * distance).sum().sqrt().item() == pytest.approx(2.0, rel=0.02)
    assert (spread.sum(1) * distance).sum().sqrt().item() == pytest.approx(2.0, rel=0.02)


@pytest.mark.parametrize("size", SIZES)
def test_an_image_is_wholly_similar_to_itself(size: tuple[int, int]) -> None:
    image = torch.rand(2, 3, *size)
    assert torch.equal(similarity(image, image), torch.ones(2, 1, *size))


def test_similarity_falls_with_the_difference_and_forgives_more_at_a_higher_temperature() -> None:
    image, change = torch.rand(1, 3, 33, 47), torch.rand(1, 3, 33, 47) - 0.5
    falling = [similarity(image, image + step * change).mean() for step in (0.0, 0.05, 0.1, 0.2)]
    assert all(a > b for a, b in pairwise(falling))
    hot, cold = (similarity(image, image + 0.1 * change, t) for t in (4.0, 0.25))
    assert (hot > cold).all() and cold.min() >= 0 and hot.max() <= 1


def test_at_the_lowest_temperature_only_equals_are_similar() -> None:
    image = torch.rand(1, 3, 33, 47)
    assert torch.equal(similarity(image, image, 1e-50), torch.ones(1, 1, 33, 47))
    assert torch.equal(similarity(image, 1 - image, 1e-50), torch.zeros(1, 1, 33, 47))


def test_similarity_sees_what_differs_in_one_place_only() -> None:
    image = torch.rand(1, 3, 33, 47)
    other = image.clone()
    other[..., 10, 20] = 1.0 - other[..., 10, 20].round()
    alike = similarity(image, other)
    assert alike[..., 10, 20] < 0.5
    assert (alike[..., :, 26:] == 1).all() and (alike[..., 16:, :] == 1).all()


def test_autocast_does_not_coarsen_the_filters() -> None:
    image, other = torch.rand(2, 1, 3, 33, 47)
    expected = gradient_magnitude(luma(image)), blur(image, 1.0), similarity(image, other, 50.0)
    with torch.autocast("cpu", torch.bfloat16):
        result = gradient_magnitude(luma(image)), blur(image, 1.0), similarity(image, other, 50.0)
    for a, b in zip(result, expected, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b)
