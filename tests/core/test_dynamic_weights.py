from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from progressive_upsampling.core.dynamic_weights import DynamicWeights, DynamicWeightsConfig

SIZES = [(33, 47), (1, 1), (257, 129), (3, 700), (2, 5)]


def _awake(seed: int = 0, **config: int) -> DynamicWeights:
    """Weights whose last layer is not zero and whose prior leaves something to the coarse images."""
    model = DynamicWeights(DynamicWeightsConfig(**config))
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=random))
    return model


def _plain(model: DynamicWeights, images: torch.Tensor) -> torch.Tensor:
    """[N, 3, H, W] to [N, H, W], image by image, with one convolution over [own, context]."""
    N, _, H, W = images.shape
    padded = F.pad(images, (0, W % 2, 0, H % 2), mode="replicate")
    corners = [padded[..., i::2, j::2] for i in (0, 1) for j in (0, 1)]
    mean = sum(corners) / 4
    grey = mean.mean(dim=1, keepdim=True)
    contrast = sum((corner.mean(dim=1, keepdim=True) - grey).abs() for corner in corners) / 4
    own = []
    for i in range(N):
        planes = torch.cat([mean[i] - 0.5, (mean[i] - mean[-1]) / 0.04, contrast[i] / 0.04])
        own.append(F.relu(F.conv2d(planes[None], model.own.weight, model.own.bias, padding=1)))
    context = sum(own) / N
    kernel = torch.cat([model.joint.weight, model.context.weight], dim=1)
    logits = []
    for i in range(N):
        joint = F.conv2d(torch.cat([own[i], context], dim=1), kernel, model.joint.bias, padding=1)
        logit = F.conv2d(F.relu(joint), model.last.weight)
        level = N - 1 - i
        up = F.interpolate(logit, size=padded.shape[-2:], mode="bilinear")[0, 0, :H, :W]
        logits.append(up - level * torch.log1p(model.prior.exp()))
    weights = torch.stack(logits).exp()
    return weights / weights.sum(dim=0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [2, 3, 5])
def test_weights_equal_a_plain_implementation(size: tuple[int, int], count: int) -> None:
    model, images = _awake(), torch.rand(2, count, 3, *size)
    result = model(images)
    for i in range(2):
        torch.testing.assert_close(result[i], _plain(model, images[i]), atol=1e-5, rtol=1e-4)


def test_images_need_not_be_put_together() -> None:
    model, images = _awake(), torch.rand(2, 3, 3, 9, 14)
    assert torch.equal(model(list(images.unbind(1))), model(images))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [2, 3, 7])
def test_weights_sum_to_1_and_are_not_negative(size: tuple[int, int], count: int) -> None:
    weights = _awake()(torch.rand(2, count, 3, *size))
    assert weights.shape == (2, count, *size) and weights.min() >= 0
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2, *size), atol=1e-6, rtol=0)


@pytest.mark.parametrize("count", [2, 3, 4, 8])
def test_at_birth_the_finest_image_has_nearly_all_the_weight(count: int) -> None:
    weights = DynamicWeights()(torch.rand(1, count, 3, 33, 47))
    assert weights[:, -1].min() >= 0.99
    assert (weights[:, 1:] > weights[:, :-1]).all()


def test_at_birth_every_weight_can_still_learn() -> None:
    model = DynamicWeights()
    images = torch.rand(1, 3, 3, 9, 9)
    (model(images)[:, 0] * torch.rand(9, 9)).sum().backward()
    assert model.last.weight.grad.abs().max() > 0 and model.prior.grad.abs() > 0


def test_images_of_one_level_are_exchangeable() -> None:
    model, images = _awake(), torch.rand(1, 3, 3, 33, 47)
    with torch.no_grad():
        model.prior.fill_(-100.0)  # a prior of 0: nothing but the order is left to tell the images apart
    torch.testing.assert_close(model(images[:, [1, 0, 2]]), model(images)[:, [1, 0, 2]])


def test_a_crop_with_the_halo_equals_the_whole() -> None:
    model, images = _awake(), torch.rand(1, 3, 3, 65, 47)
    halo, whole = model.halo, model(images)
    assert halo % model.align == 0
    crop = model(images[..., 20 - halo : 40 + halo, 10 - halo :])
    torch.testing.assert_close(crop[..., halo:-halo, halo:], whole[..., 20:40, 10:], atol=1e-6, rtol=1e-5)
    short = model(images[..., 20 - halo + 2 : 40 + halo - 2, 10 - halo + 2 :])
    assert (short[..., halo - 2 : -halo + 2, halo - 2 :] - whole[..., 20:40, 10:]).abs().max() > 1e-6


def test_weights_do_not_depend_on_the_batch() -> None:
    model, images = _awake(), torch.rand(3, 2, 3, 33, 47)
    torch.testing.assert_close(model(images)[1:2], model(images[1:2]))


def test_weights_are_differentiable() -> None:
    model = _awake(width=2).double()
    images = torch.rand(1, 2, 3, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: model(x), (images, *model.parameters()))


def test_weights_agree_with_themselves_under_autocast() -> None:
    model, images = _awake(), torch.rand(1, 3, 3, 33, 47)
    expected = model(images)
    with torch.autocast("cpu", torch.bfloat16):
        result = model(images)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.sum(dim=1), torch.ones(1, 33, 47), atol=1e-6, rtol=0)
    torch.testing.assert_close(result, expected, atol=0.1, rtol=0)


def test_the_model_learns_to_take_the_better_image() -> None:
    torch.manual_seed(0)
    model = DynamicWeights(DynamicWeightsConfig(width=8))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    truth = torch.rand(4, 3, 4, 4).repeat_interleave(6, 2).repeat_interleave(6, 3)
    good = truth.clone()
    bad = truth + 0.2 * torch.randn(4, 3, 24, 24)
    images = torch.stack([good, bad], dim=1)  # the finest is spoilt by grain
    for _ in range(60):
        optimizer.zero_grad()
        ((model(images).unsqueeze(2) * images).sum(dim=1) - truth).abs().mean().backward()
        optimizer.step()
    assert model(images)[:, 0].mean() > 0.8


@pytest.mark.parametrize("shape", [(1, 1, 3, 4, 4), (1, 2, 4, 4, 4), (2, 3, 4, 4)])
def test_wrong_shapes_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="images: expected"):
        DynamicWeights()(torch.rand(shape))


@pytest.mark.parametrize("shapes", [[(1, 3, 4, 4)], [(3, 4, 4)] * 2, [(1, 3, 4, 4), (1, 3, 4, 5)], [(1, 4, 4, 4)] * 2])
def test_images_that_are_not_alike_are_named(shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="images: expected N >= 2 of one size"):
        DynamicWeights()([torch.rand(shape) for shape in shapes])


def test_config_names_the_wrong_field() -> None:
    with pytest.raises(ValueError, match="width"):
        DynamicWeightsConfig(width=0)
