from __future__ import annotations

from dataclasses import asdict

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from progressive_upsampling.core.train.discriminators import (
    DiscriminatorConfig,
    MultiScaleDiscriminator,
    PatchDiscriminator,
    UNetDiscriminator,
    build_discriminator,
)
from progressive_upsampling.core.train.spectral import SpectralNorm, follow_weights, spectral_norm


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def convolutions(network: nn.Module) -> list[nn.Conv2d]:
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]


def largest(weight: torch.Tensor) -> float:
    return torch.linalg.matrix_norm(weight.detach().flatten(1), 2).item()


def test_the_patch_discriminator_is_that_of_the_paper():
    network = PatchDiscriminator()
    shapes = [tuple(conv.weight.shape) for conv in convolutions(network)]
    assert shapes == [(64, 3, 4, 4), (128, 64, 4, 4), (256, 128, 4, 4), (512, 256, 4, 4), (1, 512, 4, 4)]
    assert [conv.stride[0] for conv in convolutions(network)] == [2, 2, 2, 1, 1]
    assert network.field == 70
    logits, features = network(torch.rand(1, 3, 256, 256))
    assert logits.shape == (1, 1, 30, 30)
    assert [tuple(f.shape[1:]) for f in features] == [(64, 128, 128), (128, 64, 64), (256, 32, 32), (512, 31, 31)]


def test_patch_logits_are_those_of_plain_convolutions():
    network = PatchDiscriminator(4, 2, spectral=False)
    image = torch.rand(2, 3, 33, 47)
    x, features = 2 * image - 1, []
    for number, conv in enumerate(convolutions(network)):
        x = F.conv2d(x, conv.weight, conv.bias, stride=2 if number < 2 else 1, padding=1)
        if number < 3:
            x = torch.where(x > 0, x, 0.2 * x)
            features.append(x)
    logits, found = network(image)
    assert torch.allclose(logits, x, atol=1e-6)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, features, strict=True))


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_logit_depends_on_its_field_and_on_nothing_else(layers):
    network = PatchDiscriminator(4, layers).eval()
    image = torch.rand(1, 3, 129, 131).requires_grad_()
    logits = network(image)[0]
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()
    rows, columns = (image.grad.abs().sum(dim).nonzero() for dim in ((0, 1, 3), (0, 1, 2)))
    assert rows.max() - rows.min() + 1 == columns.max() - columns.min() + 1 == network.field


def test_the_second_scale_judges_the_image_at_half_the_size():
    network = MultiScaleDiscriminator(4, 2, scales=3).eval()
    image = torch.rand(2, 3, 61, 95)
    judged = network(image)
    assert len(judged.logits) == len(judged.features) == 3
    half = F.avg_pool2d(F.pad(image, (1, 1, 1, 1)), 3, 2) * 9
    half = half / (F.avg_pool2d(F.pad(torch.ones_like(image), (1, 1, 1, 1)), 3, 2) * 9)
    assert torch.allclose(judged.logits[1], network.patches[1](half)[0], atol=1e-5)
    assert torch.equal(judged.logits[0], network.patches[0](image)[0])


def plain_unet(network: UNetDiscriminator, image: torch.Tensor) -> torch.Tensor:
    def act(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x > 0, x, 0.2 * x)

    def double(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, like.shape[-2:], mode="bilinear")

    x0 = act(network.head(2 * image - 1))
    x1 = act(network.downs[0](x0))
    x2 = act(network.downs[1](x1))
    x3 = act(network.downs[2](x2))
    x4 = act(network.ups[0](double(x3, x2))) + x2
    x5 = act(network.ups[1](double(x4, x1))) + x1
    x6 = act(network.ups[2](double(x5, x0))) + x0
    return network.last(act(network.ends[1](act(network.ends[0](x6)))))


@pytest.mark.parametrize("size", [(8, 8), (33, 47)])
def test_the_u_net_judges_every_pixel(size):
    network = UNetDiscriminator(4).eval()
    image = torch.rand(2, 3, *size)
    judged = network(image)
    assert [tuple(scale.shape) for scale in judged.logits] == [(2, 1, *size)]
    assert torch.allclose(judged.logits[0], plain_unet(network, image), atol=1e-5)
    assert len(judged.features[0]) == 9
    widths = [feature.shape[1] for feature in judged.features[0]]
    assert widths == [4, 8, 16, 32, 16, 8, 4, 4, 4]


@pytest.mark.parametrize("kind", ["patch", "unet"])
def test_an_image_is_judged_by_itself(kind):
    network = build_discriminator(DiscriminatorConfig(kind, width=4)).eval()
    images = torch.rand(3, 3, 64, 51)
    together, alone = network(images), network(images[1:2])
    for a, b in zip(together.logits, alone.logits, strict=True):
        assert torch.allclose(a[1:2], b, atol=1e-5)


@pytest.mark.parametrize(
    "network", [MultiScaleDiscriminator(4, 3, 2), MultiScaleDiscriminator(4, 1, 1), UNetDiscriminator(4)]
)
def test_the_smallest_image_works_and_a_smaller_one_is_refused(network):
    side = network.smallest
    assert torch.isfinite(network(torch.rand(1, 3, side, side)).logits[-1]).all()
    with pytest.raises(ValueError, match=f"at least {side} px"):
        network(torch.rand(1, 3, side, side - 1))


def test_an_image_is_as_large_as_its_smallest_reduction_needs():
    assert MultiScaleDiscriminator(4, 3, 1).smallest == 24
    assert MultiScaleDiscriminator(4, 3, 2).smallest == 47  # whose reduction has 24 pixels a side


def test_another_number_of_channels_is_refused():
    with pytest.raises(ValueError, match=r"\[B, 3, H, W\]"):
        UNetDiscriminator(4)(torch.rand(1, 4, 64, 64))


@pytest.mark.parametrize("kind", ["patch", "unet"])
@pytest.mark.parametrize("spectral", [True, False])
def test_spectral_norm_is_on_the_layers_it_belongs_to(kind, spectral):
    network = build_discriminator(DiscriminatorConfig(kind, width=4, spectral=spectral))
    normed = [hasattr(conv, "parametrizations") for conv in convolutions(network)]
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())
    if not spectral:
        assert not any(normed)
    elif kind == "patch":
        assert all(normed)
    else:  # Real-ESRGAN leaves the first and the last layer free
        assert normed == [False, *[True] * 8, False]


def test_a_normalised_weight_has_a_largest_singular_value_of_1():
    layer = spectral_norm(nn.Conv2d(5, 7, 3))
    for _ in range(50):
        follow_weights(layer)
    weight = layer.weight
    assert largest(weight) == pytest.approx(1.0, abs=1e-4)
    original = layer.get_parameter("parametrizations.weight.original")
    assert torch.allclose(weight * largest(original), original, atol=1e-3)


def test_weights_are_normalised_from_birth_on():
    for conv in convolutions(PatchDiscriminator(8)):
        assert largest(conv.weight) == pytest.approx(1.0, abs=0.1)


def test_the_norm_is_torchs_own():
    mine, other = nn.Linear(9, 6, bias=False), nn.Linear(9, 6, bias=False)
    other.load_state_dict(mine.state_dict())
    spectral_norm(mine)
    nn.utils.parametrizations.spectral_norm(other).train()
    x = torch.rand(4, 9)
    for _ in range(60):
        follow_weights(mine)
        other(x)
    a, b = mine(x), other.eval()(x)
    assert torch.allclose(a, b, atol=1e-4)
    a.square().sum().backward()
    b.square().sum().backward()
    gradients = [next(layer.parameters()).grad for layer in (mine, other)]
    assert torch.allclose(gradients[0], gradients[1], atol=1e-3)


def test_the_norm_stays_as_it_is_until_it_is_told_of_other_weights():
    layer = spectral_norm(nn.Conv2d(5, 7, 3)).train()
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    layer(torch.rand(1, 5, 8, 8)).sum().backward()
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())
    follow_weights(nn.Sequential(layer))
    assert [name for name, value in layer.state_dict().items() if not torch.equal(before[name], value)] == [
        "parametrizations.weight.0.u",
        "parametrizations.weight.0.v",
    ]


def test_the_norm_follows_weights_that_change_step_by_step():
    layer = spectral_norm(nn.Conv2d(5, 7, 3))
    original = layer.get_parameter("parametrizations.weight.original")
    for _ in range(30):
        original.data.add_(0.01 * torch.randn(original.shape))
        follow_weights(layer)
    assert largest(layer.weight) == pytest.approx(1.0, abs=0.05)


def test_half_precision_around_does_not_reach_the_norm():
    norm = SpectralNorm(torch.randn(32, 64))
    weight = torch.randn(32, 64)
    expected = norm(weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(norm(weight), expected)


def test_a_network_of_zeros_stays_finite():
    layer = spectral_norm(nn.Conv2d(3, 4, 3, bias=False))
    layer.get_parameter("parametrizations.weight.original").data.mul_(1e-20)
    follow_weights(layer)
    assert torch.isfinite(layer(torch.rand(1, 3, 8, 8))).all()


@pytest.mark.parametrize("change", [{"kind": "tree"}, {"width": 0}, {"layers": 0}, {"scales": 0}])
def test_a_bad_shape_is_named(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        DiscriminatorConfig(**(asdict(DiscriminatorConfig()) | change))
