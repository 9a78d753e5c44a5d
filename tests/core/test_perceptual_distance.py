from __future__ import annotations

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from progressive_upsampling.core.perceptual_distance import LAYERS, PerceptualDistance, feature_distance
from progressive_upsampling.core.resample import resample
from progressive_upsampling.core.squeezenet import SqueezeNet, convert_squeezenet

from .plain_squeezenet import plain_features, random_arrays
from .tiny import picture


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return random_arrays(1)


@pytest.fixture(scope="module")
def distance(arrays, tmp_path_factory) -> PerceptualDistance:
    folder = tmp_path_factory.mktemp("weights")
    np.savez(folder / "original.npz", **arrays)
    return PerceptualDistance(convert_squeezenet(folder / "original.npz", folder / "squeezenet.safetensors"))


def plain_distance(a: Tensor, b: Tensor, arrays: dict[str, np.ndarray]) -> float:
    """Zhang 2018, equation 1 with w = 1, of one picture; mean over the layers."""
    features = [plain_features(x, arrays) for x in (a, b)]
    total = 0.0
    for layer in ("conv1", "fire3", "fire5", "fire6", "fire7", "fire8", "fire9"):
        x, y = (f[layer] / (np.sqrt((f[layer] ** 2).sum(0)) + 1e-10) for f in features)
        total += ((x - y) ** 2).sum(0).mean() / 7
    return total


@pytest.mark.parametrize("size", [(21, 21), (33, 47), (64, 85)])
def test_it_is_the_distance_of_the_paper_on_the_original_network(distance, arrays, size):
    a, b = picture(*size), picture(*size, seed=1)
    found = distance(a, b)
    assert found.shape == (1,) and found.dtype == torch.float32
    assert found.item() == pytest.approx(plain_distance(a, b, arrays), rel=1e-4) and found > 0.01


def test_its_name_is_its_own(distance):
    assert distance.name == "PD-squeeze" and len(LAYERS) == 7


def test_equal_images_are_at_0_and_it_is_symmetric(distance):
    a, b = picture(33, 47, batch=2), picture(33, 47, batch=2, seed=1)
    assert torch.equal(distance(a, a.clone()), torch.zeros(2))
    assert torch.equal(distance(a, b), distance(b, a))


def test_it_grows_with_noise_and_with_blur(distance):
    image = picture(65, 87)
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    noisy = [distance(image + s * noise, image).item() for s in (0.0, 0.01, 0.03, 0.1, 0.3)]
    blurred = [
        distance(resample(resample(image, size, "bicubic"), (65, 87), "bicubic"), image).item()
        for size in ((65, 87), (48, 64), (32, 43), (16, 21), (8, 10))
    ]
    for values in (noisy, blurred):
        assert values[0] < 1e-6 and values == sorted(set(values))


def test_a_batch_is_each_image_by_itself(distance):
    a, b = picture(33, 47, batch=3), picture(33, 47, batch=3, seed=1)
    alone = torch.cat([distance(a[i : i + 1], b[i : i + 1]) for i in range(3)])
    assert torch.allclose(distance(a, b), alone, rtol=1e-4)
    assert alone.unique().numel() == 3


def test_grey_is_seen_as_rgb(distance):
    a, b = picture(33, 47, channels=1), picture(33, 47, channels=1, seed=1)
    assert torch.equal(distance(a, b), distance(a.expand(-1, 3, -1, -1), b.expand(-1, 3, -1, -1)))


def test_it_is_float32_whatever_is_around(distance):
    a, b = picture(33, 47), picture(33, 47, seed=1)
    expected = distance(a, b)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(distance(a, b), expected)
    assert distance(a.double(), b.double()).dtype == torch.float32


def test_inputs_are_not_changed_and_may_lie_anyhow_in_memory(distance):
    a, b = picture(33, 47), picture(33, 47, seed=1)
    kept, strided = a.clone(), a.transpose(2, 3).contiguous().transpose(2, 3)
    assert torch.allclose(distance(strided, b), distance(a, b), rtol=1e-5)
    distance.measure(a, b, crop=2)
    assert torch.equal(a, kept)


def test_gradients_reach_the_image_and_are_finite_where_features_are_0(distance):
    image = picture(33, 47).requires_grad_()
    distance(image, picture(33, 47, seed=1)).sum().backward()
    assert image.grad is not None and image.grad.any()
    a = torch.zeros(1, 4, 3, 3, requires_grad=True)
    feature_distance(a, torch.ones(1, 4, 3, 3)).sum().backward()
    assert a.grad is not None and torch.isfinite(a.grad).all()


def test_only_the_direction_of_features_counts():
    random = torch.Generator().manual_seed(0)
    a, b = (torch.rand(2, 5, 3, 7, generator=random) for _ in range(2))
    expected = 2 - 2 * F.cosine_similarity(a, b, dim=1).mean((1, 2))  # |x - y|² of unit vectors
    assert torch.allclose(feature_distance(a, b), expected, atol=1e-6)
    assert torch.allclose(feature_distance(300 * a, 0.01 * b), expected, atol=1e-6)
    one, other = torch.eye(4)[0].view(1, 4, 1, 1), torch.eye(4)[1].view(1, 4, 1, 1)
    assert feature_distance(one, other) == 2 and feature_distance(one, 0 * one) == 1
    assert feature_distance(0 * one, 0 * one) == 0


@pytest.mark.parametrize("crop", [0, 3])
def test_measured_are_8_bits_without_the_border(distance, crop):
    a = picture(40, 47, batch=2) * 1.4 - 0.2
    b = picture(40, 47, batch=2, seed=1)
    inside = (..., slice(crop, 40 - crop), slice(crop, 47 - crop))
    x, y = (((v.clamp(0, 1) * 255).round() / 255)[inside] for v in (a, b))
    found = distance.measure(a.clone().requires_grad_(), b, crop=crop)
    assert found.shape == (2,) and found.dtype == torch.float64 and not found.requires_grad
    assert torch.allclose(found, distance(x, y).double(), rtol=1e-5)
    assert not torch.allclose(found, distance(a[inside], b[inside]).double(), rtol=1e-3)
    levels = (b * 255).round() / 255
    assert distance.measure(levels + 0.4 / 255, levels, crop=crop).max() == 0


def test_weights_are_not_trained():
    distance = PerceptualDistance(SqueezeNet().train().requires_grad_())
    assert not any(parameter.requires_grad for parameter in distance.parameters())


@pytest.mark.parametrize(
    ("image", "reference", "said"),
    [
        (torch.rand(1, 3, 20, 47), torch.rand(1, 3, 20, 47), "image: expected at least 21 px a side"),
        (torch.rand(1, 3, 33, 47), torch.rand(1, 3, 33, 48), "reference: expected (1, 3, 33, 47) as image"),
        (torch.rand(1, 3, 33, 47), torch.rand(2, 3, 33, 47), "reference: expected (1, 3, 33, 47) as image"),
        (torch.rand(1, 4, 33, 47), torch.rand(1, 4, 33, 47), "image: expected [B, 1|3, H, W], got (1, 4, 33, 47)"),
        (torch.rand(3, 33, 47), torch.rand(3, 33, 47), "image: expected [B, 1|3, H, W], got (3, 33, 47)"),
        (torch.rand(1, 3, 33, 47), torch.full((1, 3, 33, 47), torch.nan), "reference: expected finite values"),
    ],
)
def test_images_that_cannot_be_compared_are_named(distance, image, reference, said):
    for measure in (distance, distance.measure):
        with pytest.raises(ValueError, match=re.escape(said)):
            measure(image, reference)


def test_a_crop_that_leaves_too_little_is_named(distance):
    image = picture(33, 47)
    with pytest.raises(ValueError, match="crop: expected less than half of 33 x 47 pixels, got 17"):
        distance.measure(image, image, crop=17)
    with pytest.raises(ValueError, match="crop: expected an integer >= 0, got -1"):
        distance.measure(image, image, crop=-1)
    assert distance.measure(image, image, crop=6) == 0
    with pytest.raises(ValueError, match="at least 21 px a side"):
        distance.measure(image, image, crop=7)
    with pytest.raises(TypeError, match="image: expected a float tensor"):
        distance(image.mul(255).byte(), image)
