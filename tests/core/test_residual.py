from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from progressive_upsampling.core.local_features import similarity
from progressive_upsampling.core.resample import resample
from progressive_upsampling.core.residual import MODES, SkipWeights, SkipWeightsConfig, cosine_weight, skip

SIZES = [(33, 47), (1, 1), (257, 129), (3, 700)]


def _arguments(mode: str, levels: int) -> dict:
    return {"weights": [0.8] * levels} if mode == "weighted" else {"levels": levels}


def _pair(*size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two images of which attention finds a part alike."""
    current = torch.rand(2, 3, *size)
    return current, (current + 0.04 * torch.randn_like(current)).clamp(0, 1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("mode", MODES)
def test_strength_0_returns_the_current_image_exactly(mode: str, levels: int, size: tuple[int, int]) -> None:
    current, previous = torch.rand(2, 3, *size), torch.rand(2, 3, (size[0] + 1) // 2, (size[1] + 1) // 2)
    assert torch.equal(skip(current, previous, mode, 0.0, 0.5, **_arguments(mode, levels)), current)


@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("mode", MODES)
def test_the_effect_grows_with_strength(mode: str, levels: int) -> None:
    current, previous = _pair(33, 47)
    change = [
        (skip(current, previous, mode, s, 0.8, **_arguments(mode, levels)) - current).norm().item()
        for s in (0.0, 1e-4, 0.1, 0.4, 0.7, 1.0)
    ]
    assert all(b > a for a, b in pairwise(change))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("levels", [1, 2, 5])
@pytest.mark.parametrize("mode", MODES)
def test_equal_images_come_back_unchanged(mode: str, levels: int, size: tuple[int, int]) -> None:
    image = torch.rand(2, 3, *size)
    assert torch.equal(skip(image, image, mode, 0.7, 0.9, **_arguments(mode, levels)), image)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("levels", [1, 4])
def test_strength_1_constant_returns_the_upsampled_previous_image(levels: int, size: tuple[int, int]) -> None:
    current, previous = torch.rand(2, 3, *size), torch.rand(2, 3, 5, 6)
    result = skip(current, previous, "constant", 1.0, levels=levels)
    torch.testing.assert_close(result, resample(previous, size).clamp(0, 1), atol=1e-6, rtol=0)


def test_constant_is_the_plain_mix() -> None:
    current, previous = torch.rand(2, 1, 3, 33, 47)
    torch.testing.assert_close(skip(current, previous, "constant", 0.3), 0.7 * current + 0.3 * previous)


def test_the_previous_image_is_an_image_again_before_it_is_mixed_in() -> None:
    current, previous = torch.rand(1, 3, 33, 47), (torch.rand(1, 3, 17, 24) > 0.5).float()
    up = resample(previous, (33, 47))
    assert up.max() > 1.05  # bicubic overshoots here
    result = skip(current, previous, "constant", 0.5)
    torch.testing.assert_close(result, (current + up.clamp(0, 1)) / 2)


def test_cosine_weights_are_those_of_demofusion() -> None:
    values = [cosine_weight(position) for position in (1.0, 0.9, 0.7, 0.5, 0.3, 0.0)]
    assert values == pytest.approx([1.0, 0.93, 0.50, 0.125, 0.009, 0.0], abs=0.005)


def test_cosine_is_constant_with_the_weight_of_the_position() -> None:
    current, previous = torch.rand(2, 1, 3, 33, 47)
    for position in (0.0, 0.4, 0.9, 1.0):
        expected = skip(current, previous, "constant", 0.6 * cosine_weight(position), levels=2)
        result = skip(current, previous, "cosine", 0.6, position, levels=2)
        torch.testing.assert_close(result, expected)


def test_attention_is_the_mix_by_similarity() -> None:
    current, previous = _pair(33, 47)
    w = 0.5 * similarity(current, previous, 2.0)
    result = skip(current, previous, "attention", 0.5, temperature=2.0)
    torch.testing.assert_close(result, (1 - w) * current + w * previous)
    assert 0.01 < w.mean() < 0.45


def test_attention_keeps_what_the_current_image_has_added() -> None:
    current = torch.full((1, 3, 33, 47), 0.5)
    previous = current + 0.01
    current[..., 20:] = torch.rand(1, 3, 33, 27).round()
    result = skip(current, previous, "attention", 1.0)
    assert (result - current)[..., 24:].abs().max() < 0.01
    torch.testing.assert_close(result[..., :15], previous[..., :15], atol=2e-3, rtol=0)


def test_two_levels_equal_the_pyramid_written_out() -> None:
    current, previous = torch.rand(2, 1, 3, 32, 48) * 0.2 + 0.4
    difference = previous - current
    coarse = F.interpolate(difference, scale_factor=0.5, mode="bilinear", antialias=True)
    low = F.interpolate(coarse, scale_factor=2, mode="bilinear")
    high = difference - low
    result = skip(current, previous, "constant", 0.3, levels=2)
    torch.testing.assert_close(result, current + 0.3 * high + (1 - 0.7**2) * low, atol=1e-5, rtol=0)
    result = skip(current, previous, "weighted", 0.5, weights=[0.2, 0.9])
    torch.testing.assert_close(result, current + 0.1 * high + 0.45 * low, atol=1e-5, rtol=0)


def test_attention_with_three_levels_equals_the_pyramid_written_out() -> None:
    current = 0.3 + 0.4 * torch.rand(1, 3, 32, 48)
    previous = current + 0.05 * torch.randn_like(current)

    def reduced(image: torch.Tensor, factor: int) -> torch.Tensor:
        return F.interpolate(image, scale_factor=1 / factor, mode="bilinear", antialias=True)

    def double(image: torch.Tensor) -> torch.Tensor:
        return F.interpolate(image, scale_factor=2, mode="bilinear")

    w = 0.8 * similarity(current, previous, 2.0)
    fine = previous - current
    middle = reduced(fine, 2)
    rest = reduced(middle, 2)
    added = (1 - (1 - reduced(w, 4)) ** 3) * rest
    added = (1 - (1 - reduced(w, 2)) ** 2) * (middle - double(rest)) + double(added)
    added = w * (fine - double(middle)) + double(added)
    result = skip(current, previous, "attention", 0.8, levels=3, temperature=2.0)
    torch.testing.assert_close(result, current + added, atol=1e-5, rtol=0)
    assert 0.1 < w.mean() < 0.7


@pytest.mark.parametrize("mode", MODES)
def test_one_level_stays_between_the_two_images(mode: str) -> None:
    current, previous = _pair(33, 47)
    result = skip(current, previous, mode, 0.9, 0.9, **_arguments(mode, 1))
    assert (result >= torch.minimum(current, previous) - 1e-6).all()
    assert (result <= torch.maximum(current, previous) + 1e-6).all()


@pytest.mark.parametrize("mode", MODES)
def test_the_result_is_an_image(mode: str) -> None:
    current, previous = (torch.rand(2, 1, 3, 33, 47) > 0.5).float()
    result = skip(current, previous, mode, 1.0, 0.7, **_arguments(mode, 4))
    assert result.min() >= 0 and result.max() <= 1


def test_skip_weights_at_birth_return_the_current_image() -> None:
    current, previous = torch.rand(1, 3, 33, 47), torch.rand(1, 3, 17, 24)
    model = SkipWeights()
    assert torch.equal(skip(current, previous, "weighted", model=model), current)
    with torch.inference_mode():
        assert torch.equal(skip(current, previous, "weighted", model=model), current)


def test_skip_weights_at_birth_have_a_gradient_in_either_direction() -> None:
    # Far from the range's ends, where the result would be clamped.
    current, previous = 0.3 + 0.4 * torch.rand(2, 1, 3, 32, 32)
    for sign in (1.0, -1.0):
        model = SkipWeights()
        target = current + sign * (previous - current)
        (skip(current, previous, "weighted", model=model) - target).square().mean().backward()
        assert (sign * model.weights.grad < -1e-5).all()


def test_skip_weights_learn_what_each_band_is_worth() -> None:
    torch.manual_seed(0)
    current, previous = torch.rand(2, 2, 3, 32, 32) * 0.2 + 0.4
    truth = skip(current, previous, "weighted", weights=[0.1, 0.5, 0.9])
    model = SkipWeights(SkipWeightsConfig(levels=3))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(150):
        optimizer.zero_grad()
        (skip(current, previous, "weighted", model=model) - truth).square().mean().mul(1e3).backward()
        optimizer.step()
    torch.testing.assert_close(model().detach(), torch.tensor([0.1, 0.5, 0.9]), atol=0.03, rtol=0)


def test_skip_weights_stay_in_0_to_1_and_come_back_from_outside() -> None:
    model = SkipWeights(SkipWeightsConfig(levels=4))
    with torch.no_grad():
        model.weights.copy_(torch.tensor([-0.5, 1.5, -0.5, 1.5]))
    weights = model()
    assert torch.equal(weights, torch.tensor([0.0, 1.0, 0.0, 1.0]))
    # Descent moves against the gradient: the first two come back, the last two may not go further out.
    weights.backward(torch.tensor([-1.0, 1.0, 1.0, -1.0]))
    assert torch.equal(model.weights.grad, torch.tensor([-1.0, 1.0, 0.0, 0.0]))


def test_numbers_and_a_model_of_the_same_weights_agree() -> None:
    current, previous = torch.rand(1, 3, 33, 47), torch.rand(1, 3, 17, 24)
    model = SkipWeights()
    with torch.no_grad():
        model.weights.copy_(torch.tensor([0.1, 0.4, 0.8]))
    expected = skip(current, previous, "weighted", 0.5, weights=[0.1, 0.4, 0.8])
    torch.testing.assert_close(skip(current, previous, "weighted", 0.5, model=model), expected)
    with torch.no_grad():
        torch.testing.assert_close(skip(current, previous, "weighted", 0.5, model=model), expected)


@pytest.mark.parametrize("mode", MODES)
def test_skip_is_differentiable(mode: str) -> None:
    base = 0.3 + 0.4 * torch.rand(1, 3, 5, 4, dtype=torch.float64)
    current, previous = ((base + 0.02 * torch.randn_like(base)).requires_grad_() for _ in range(2))
    model = SkipWeights(SkipWeightsConfig(levels=2)).double()
    with torch.no_grad():
        model.weights.fill_(0.4)

    def run(a: torch.Tensor, b: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return skip(a, b, mode, 0.6, 0.8, 2, model=model)

    assert torch.autograd.gradcheck(run, (current, previous, model.weights))


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("mode", MODES)
def test_grey_and_alpha_are_carried_through(mode: str, channels: int) -> None:
    current, previous = torch.rand(1, channels, 33, 47), torch.rand(1, channels, 17, 24)
    for image in (current, previous):
        image[:, 3:].clamp_(min=0.1)  # what alpha hides is another matter, see test_transparency
    result = skip(current, previous, mode, 0.5, 0.8, **_arguments(mode, 2))
    assert result.shape == current.shape
    alone = skip(current[:, :3], previous[:, :3], mode, 0.5, 0.8, **_arguments(mode, 2))
    torch.testing.assert_close(result[:, :3], alone)


@pytest.mark.parametrize("mode", MODES)
def test_an_image_is_treated_the_same_in_any_batch(mode: str) -> None:
    current, previous = torch.rand(3, 3, 33, 47), torch.rand(3, 3, 17, 24)
    together = skip(current, previous, mode, 0.5, 0.8, **_arguments(mode, 2))
    alone = skip(current[1:2], previous[1:2], mode, 0.5, 0.8, **_arguments(mode, 2))
    torch.testing.assert_close(together[1:2], alone)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_result_has_the_dtype_of_the_current_image(dtype: torch.dtype) -> None:
    current, previous = torch.rand(1, 3, 9, 9).to(dtype), torch.rand(1, 3, 5, 5)
    result = skip(current, previous, "attention", 0.5, levels=2)
    assert result.dtype == dtype
    expected = skip(current.double(), previous.double(), "attention", 0.5, levels=2)
    torch.testing.assert_close(result.double(), expected, atol=5e-3, rtol=0)


def test_skip_does_not_change_its_inputs() -> None:
    current, previous = torch.rand(2, 1, 3, 9, 9)
    copies = current.clone(), previous.clone()
    for mode in MODES:
        for strength in (0.0, 0.5):
            skip(current, previous, mode, strength, **_arguments(mode, 2)).zero_()
    assert torch.equal(current, copies[0]) and torch.equal(previous, copies[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"previous": torch.rand(2, 3, 4, 4)}, r"previous: expected \[1, 3, H, W\]"),
        ({"previous": torch.rand(1, 4, 4, 4)}, "previous"),
        ({"current": torch.full((1, 3, 8, 8), float("nan"))}, "current.*NaN"),
        ({"mode": "linear"}, "mode"),
        ({"strength": -0.1}, "strength"),
        ({"strength": 1.1}, "strength"),
        ({"position": 1.1}, "position"),
        ({"levels": 0}, "levels"),
        ({"temperature": 0}, "temperature"),
        ({"mode": "weighted"}, "weights: expected weights or a SkipWeights"),
        ({"mode": "weighted", "weights": []}, "weights"),
        ({"mode": "weighted", "weights": [0.5, 1.5]}, r"weights\[1\]"),
        ({"mode": "weighted", "weights": [0.5], "model": SkipWeights()}, "weights: expected None"),
        ({"mode": "constant", "weights": [0.5]}, "weights: expected None"),
    ],
)
def test_skip_names_the_wrong_argument(arguments: dict, message: str) -> None:
    valid = {"current": torch.rand(1, 3, 8, 8), "previous": torch.rand(1, 3, 4, 4)}
    with pytest.raises(ValueError, match=message):
        skip(**{**valid, **arguments})


def test_config_names_the_wrong_field() -> None:
    with pytest.raises(ValueError, match="levels"):
        SkipWeightsConfig(levels=0)
