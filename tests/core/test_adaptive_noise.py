from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from progressive_upsampling.core.adaptive_noise import (
    MODES,
    NoiseController,
    NoiseControllerConfig,
    adaptive_sigma,
    gradient_map,
    laplace_nll,
)
from progressive_upsampling.core.local_features import blur, gradient_magnitude

SIZES = [(33, 47), (1, 1), (257, 129), (3, 700)]


def _awake(seed: int = 0, **config: object) -> NoiseController:
    """A controller whose last layer is not zero."""
    controller = NoiseController(NoiseControllerConfig(**config))
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in controller.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=random))
    return controller


def _plain_gradient_map(image: np.ndarray, floor: float, quantile: float) -> np.ndarray:
    """[3, H, W] to [H, W] by slices of a padded array."""
    p = np.pad(image.mean(axis=0), 1, mode="edge")
    dx = (p[:-2, 2:] + 2 * p[1:-1, 2:] + p[2:, 2:] - p[:-2, :-2] - 2 * p[1:-1, :-2] - p[2:, :-2]) / 8
    dy = (p[2:, :-2] + 2 * p[2:, 1:-1] + p[2:, 2:] - p[:-2, :-2] - 2 * p[:-2, 1:-1] - p[:-2, 2:]) / 8
    gradient = np.hypot(dx, dy)
    return floor + (1 - floor) * np.clip(gradient / np.quantile(gradient, quantile), 0, 1)


@pytest.mark.parametrize("size", [(33, 47), (257, 129), (3, 700)])
def test_gradient_map_equals_a_plain_implementation(size: tuple[int, int]) -> None:
    image = torch.rand(1, 3, *size, dtype=torch.float64)
    expected = _plain_gradient_map(image[0].numpy(), 0.3, 0.9)
    result = gradient_map(image, floor=0.3, quantile=0.9)[0, 0].numpy()
    np.testing.assert_allclose(result, expected, atol=1e-3)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("value", [0.0, 0.31, 1.0])
def test_gradient_map_of_a_flat_image_is_the_floor(size: tuple[int, int], value: float) -> None:
    result = gradient_map(torch.full((2, 3, *size), value), floor=0.4)
    torch.testing.assert_close(result, torch.full((2, 1, *size), 0.4), atol=1e-4, rtol=0)


def test_gradient_map_is_highest_at_the_edge_and_lowest_away_from_it() -> None:
    image = torch.zeros(1, 3, 33, 47)
    image[..., 20:] = 0.8
    result = gradient_map(image, quantile=0.99)
    assert (result[..., 19:21] > 0.99).all()
    torch.testing.assert_close(result[..., :18], torch.full((1, 1, 33, 18), 0.4))


def test_one_sharp_point_does_not_flatten_the_rest_of_the_map() -> None:
    image = 0.1 * torch.rand(1, 3, 65, 65, generator=torch.Generator().manual_seed(0))
    spiked = image.clone()
    spiked[..., 30, 30] = 1.0
    difference = (gradient_map(spiked) - gradient_map(image)).abs()
    assert difference.mean() < 0.02


def test_faint_grain_is_not_taken_for_edges() -> None:
    image = 0.5 + torch.randint(0, 2, (1, 3, 64, 64)) * 1e-4
    assert gradient_map(image, floor=0.0).max() < 0.05


def test_gradient_map_does_not_depend_on_the_batch() -> None:
    images = torch.rand(3, 3, 33, 47) * torch.tensor([0.1, 0.5, 1.0]).view(3, 1, 1, 1)
    together = gradient_map(images)
    for i in range(3):
        # convolutions of other batches may be rounded otherwise
        assert torch.allclose(together[i : i + 1], gradient_map(images[i : i + 1]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_gradient_map_takes_any_channels_and_dtype(channels: int, dtype: torch.dtype) -> None:
    image = torch.rand(1, channels, 9, 12).to(dtype)
    result = gradient_map(image)
    assert result.shape == (1, 1, 9, 12) and result.dtype == dtype
    torch.testing.assert_close(result, gradient_map(image[:, :3]))


@pytest.mark.slow
def test_gradient_map_of_more_pixels_than_torch_sorts_has_the_quantile_of_all() -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 1, 4100, 4100).square_()
    share = (gradient_map(image, floor=0.0, quantile=0.8) >= 1.0).float().mean().item()
    assert share == pytest.approx(0.2, abs=0.005)


def test_gradient_map_of_a_large_picture_does_not_sample_the_same_columns_only() -> None:
    fence = torch.tensor([0.0, 0.1, 0.3, 0.3]).repeat(512).expand(1, 1, 2048, 2048)
    small, large = gradient_map(fence[..., :512, :512], quantile=0.9), gradient_map(fence, quantile=0.9)
    torch.testing.assert_close(large[..., :500, :500], small[..., :500, :500], atol=1e-3, rtol=0)


@pytest.mark.parametrize("arguments", [{"floor": -0.1}, {"floor": 1.1}, {"quantile": 2.0}, {"quantile": math.nan}])
def test_gradient_map_names_the_wrong_argument(arguments: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        gradient_map(torch.rand(1, 3, 4, 4), **arguments)


@pytest.mark.parametrize("size", SIZES)
def test_controller_at_birth_gives_sigma_r_everywhere(size: tuple[int, int]) -> None:
    controller = NoiseController(NoiseControllerConfig(sigma_r=0.05))
    result = controller(torch.rand(2, 3, *size))
    torch.testing.assert_close(result, torch.full((2, 1, *size), 0.05), rtol=1e-6, atol=0)


def test_controller_weighs_gradient_detail_and_centred_luma() -> None:
    controller, image = _awake(), torch.rand(2, 3, 33, 47)
    plane = image.mean(dim=1, keepdim=True)
    planes = torch.cat([gradient_magnitude(plane) / 0.04, (plane - blur(plane, 1.0)).abs() / 0.04, plane - 0.5], dim=1)
    expected = 0.04 * F.softplus(controller.last(controller.layers(planes)) + math.log(math.e - 1))
    torch.testing.assert_close(controller(image), expected)


def test_controller_is_positive_and_takes_grey_and_alpha() -> None:
    controller, image = _awake(), torch.rand(2, 4, 33, 47)
    assert controller(image).min() > 0
    assert torch.equal(controller(image), controller(image[:, :3]))
    assert controller(image[:, :1]).shape == (2, 1, 33, 47)


def test_controller_on_a_crop_with_its_halo_equals_the_whole() -> None:
    controller, image = _awake(), torch.rand(1, 3, 65, 47)
    halo, whole = controller.halo, controller(image)
    crop = controller(image[..., 20 - halo : 40 + halo, : 30 + halo])
    torch.testing.assert_close(crop[..., halo:-halo, :-halo], whole[..., 20:40, :30], atol=1e-6, rtol=1e-5)
    short = controller(image[..., 20 - halo + 1 : 40 + halo - 1, : 30 + halo - 1])
    assert (short[..., halo - 1 : -halo + 1, : -halo + 1] - whole[..., 20:40, :30]).abs().max() > 1e-6


def test_controller_does_not_depend_on_the_batch() -> None:
    controller, images = _awake(), torch.rand(3, 3, 33, 47)
    torch.testing.assert_close(controller(images)[1:2], controller(images[1:2]))


def test_controller_is_differentiable() -> None:
    controller = _awake(width=2).double()
    image = torch.rand(1, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    parameters = tuple(controller.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: controller(x), (image, *parameters), atol=1e-6)


def test_controller_agrees_with_itself_under_autocast_and_in_half_precision() -> None:
    controller, image = _awake(), torch.rand(1, 3, 33, 47)
    expected = controller(image)
    with torch.autocast("cpu", torch.bfloat16):
        result = controller(image)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected, atol=2e-3, rtol=0.05)
    half = controller.to(torch.bfloat16)(image)
    torch.testing.assert_close(half, expected, atol=2e-3, rtol=0.1)


def test_controller_learns_a_calibrated_error_map() -> None:
    torch.manual_seed(0)
    image = torch.rand(4, 3, 6, 6).repeat_interleave(8, 2).repeat_interleave(8, 3)
    edges = gradient_map(image, floor=0.0, quantile=0.9)
    scale = 0.01 + 0.09 * edges
    controller = NoiseController()
    optimizer = torch.optim.Adam(controller.parameters(), lr=1e-2)
    for _ in range(120):
        error = torch.distributions.Laplace(torch.tensor(0.0), scale.expand(-1, 3, -1, -1)).sample()
        optimizer.zero_grad()
        laplace_nll(error, controller(image)).backward()
        optimizer.step()
    predicted = controller(image).detach()
    assert torch.corrcoef(torch.stack([predicted.flatten(), scale.flatten()]))[0, 1] > 0.9
    assert predicted.mean().item() == pytest.approx(scale.mean().item(), rel=0.15)


def test_laplace_nll_is_that_of_the_laplace_distribution() -> None:
    error, scale = torch.randn(2, 3, 5, 6), torch.rand(2, 1, 5, 6) + 0.1
    distribution = torch.distributions.Laplace(torch.zeros(()), scale.expand(-1, 3, -1, -1))
    expected = -distribution.log_prob(error).mean() - math.log(2)
    torch.testing.assert_close(laplace_nll(error, scale), expected)


def test_laplace_nll_is_least_at_the_mean_absolute_error() -> None:
    error = torch.randn(1, 3, 40, 40)
    best = error.abs().mean()
    losses = [laplace_nll(error, (best * f).expand(1, 1, 40, 40)) for f in (0.8, 1.0, 1.25)]
    assert losses[1] < losses[0] and losses[1] < losses[2]


def test_laplace_nll_stays_finite_without_error_and_in_half_precision() -> None:
    zeros = torch.zeros(1, 1, 3, 3)
    assert laplace_nll(zeros, zeros).isfinite()
    assert laplace_nll(zeros.half(), zeros.half()).dtype == torch.float32
    scale = torch.rand(1, 1, 3, 3, dtype=torch.float64).add(0.1).requires_grad_()
    assert torch.autograd.gradcheck(lambda b: laplace_nll(torch.ones(1, 3, 3, 3, dtype=torch.float64), b), (scale,))


@pytest.mark.parametrize("mode", MODES)
def test_strength_0_gives_exact_zeros_and_the_map_grows_in_proportion(mode: str) -> None:
    image, controller = torch.rand(2, 3, 33, 47), _awake()
    one = adaptive_sigma(image, mode, 1.0, controller=controller)
    assert one.shape == (2, 1, 33, 47) and one.min() > 0
    assert torch.equal(adaptive_sigma(image, mode, 0, controller=controller), torch.zeros(2, 1, 33, 47))
    torch.testing.assert_close(adaptive_sigma(image, mode, 2.5, controller=controller), 2.5 * one)


def test_the_modes_are_what_they_say() -> None:
    image, controller = torch.rand(1, 3, 33, 47), _awake()
    assert torch.equal(adaptive_sigma(image, "uniform", 2.0, 0.03), torch.full((1, 1, 33, 47), 0.06))
    torch.testing.assert_close(adaptive_sigma(image, "gradient", 2.0, 0.03), 0.06 * gradient_map(image))
    learned = adaptive_sigma(image, "learned", 2.0, 0.03, controller)
    torch.testing.assert_close(learned, 2.0 * controller(image))


def test_learned_sigma_passes_gradients_to_the_controller() -> None:
    controller = NoiseController()
    adaptive_sigma(torch.rand(1, 3, 9, 9), "learned", controller=controller).sum().backward()
    assert all(p.grad is not None for p in controller.parameters())
    assert controller.last.weight.grad.abs().max() > 0


def test_adaptive_sigma_does_not_change_its_input() -> None:
    image = torch.rand(1, 4, 9, 7)
    copy = image.clone()
    for mode in MODES:
        adaptive_sigma(image, mode, controller=_awake())
    assert torch.equal(image, copy)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "learned"}, "controller: expected a NoiseController"),
        ({"mode": "edges"}, "mode"),
        ({"strength": -1.0}, "strength"),
        ({"sigma": math.nan}, "sigma"),
    ],
)
def test_adaptive_sigma_names_the_wrong_argument(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adaptive_sigma(torch.rand(1, 3, 4, 4), **arguments)


@pytest.mark.parametrize("arguments", [{"width": 0}, {"sigma_r": 0.0}])
def test_controller_config_names_the_wrong_field(arguments: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        NoiseControllerConfig(**arguments)
