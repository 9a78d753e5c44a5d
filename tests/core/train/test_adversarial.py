from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from progressive_upsampling.core.train.adversarial import (
    KINDS,
    AdversarialConfig,
    discriminator_loss,
    feature_matching,
    generator_loss,
    r1_penalty,
)
from progressive_upsampling.core.train.discriminators import DiscriminatorConfig, Judgement, build_discriminator


def sp(x: float) -> float:
    return math.log1p(math.exp(-abs(x))) + max(x, 0)


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


R, F = [0.3, -1.2, 2.5], [0.9, -0.4]
DISCRIMINATOR = {
    "vanilla": mean(sp(-r) for r in R) + mean(sp(f) for f in F),
    "hinge": mean(max(1 - r, 0) for r in R) + mean(max(1 + f, 0) for f in F),
    "relativistic": mean(sp(-(r - mean(F))) for r in R) + mean(sp(f - mean(R)) for f in F),
}
GENERATOR = {
    "vanilla": mean(sp(-f) for f in F),
    "hinge": mean(-f for f in F),
    "relativistic": mean(sp(r - mean(F)) for r in R) + mean(sp(-(f - mean(R))) for f in F),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_losses_follow_their_formulas(kind):
    r, f = torch.tensor(R), torch.tensor(F)
    assert discriminator_loss([r], [f], kind).item() == pytest.approx(DISCRIMINATOR[kind], rel=1e-6)
    assert generator_loss([r], [f], kind).item() == pytest.approx(GENERATOR[kind], rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_scales_count_alike_whatever_their_size(kind):
    generator = torch.Generator().manual_seed(0)
    fine, coarse = ([torch.randn(2, 1, side, side, generator=generator) for _ in range(2)] for side in (9, 3))
    for loss in (discriminator_loss, generator_loss):
        both = loss([fine[0], coarse[0]], [fine[1], coarse[1]], kind)
        each = [loss([pair[0]], [pair[1]], kind) for pair in (fine, coarse)]
        assert torch.allclose(both, torch.stack(each).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_each_side_gains_by_moving_its_own_way(kind):
    r, f = torch.zeros(4, requires_grad=True), torch.zeros(4, requires_grad=True)
    of_r, of_f = torch.autograd.grad(discriminator_loss([r], [f], kind), (r, f))
    assert (of_r < 0).all() and (of_f > 0).all()  # pictures up, results down
    of_r, of_f = torch.autograd.grad(generator_loss([r], [f], kind), (r, f), allow_unused=True)
    assert of_r is None and (of_f < 0).all()  # results up, and pictures left as they are


@pytest.mark.parametrize("kind", KINDS)
def test_large_logits_stay_finite(kind):
    r, f = torch.tensor([1e4, -1e4]), torch.tensor([-1e4, 1e4])
    for loss in (discriminator_loss, generator_loss):
        assert torch.isfinite(loss([r], [f], kind))
        with torch.autocast("cpu", torch.bfloat16):
            assert loss([r.bfloat16()], [f.bfloat16()], kind).dtype == torch.float32


def test_wrong_arguments_are_named():
    one = [torch.zeros(1)]
    with pytest.raises(ValueError, match="kind: expected one of 'vanilla'"):
        generator_loss(one, one, "wgan")
    for pair in ((one, []), ([], []), (one, one * 2)):
        with pytest.raises(ValueError, match="as many scales"):
            discriminator_loss(*pair)


class Quadratic(nn.Module):
    """Two scales whose logits' gradients are known: w·x and x²/2."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(3.0))

    def forward(self, x: torch.Tensor) -> Judgement:
        return Judgement((self.weight * x, x.square().mean((1, 2, 3), keepdim=True) / 2), ())


def test_r1_is_the_mean_squared_slope_of_an_images_mean_logit():
    image, network = torch.rand(2, 3, 5, 4), Quadratic()
    count = 60
    slope = 0.5 * (3.0 / count + image / count)  # of the mean over the two scales
    expected = 0.5 * 10 * slope.square().flatten(1).sum(1).mean()
    penalty = r1_penalty(network, image)
    assert torch.allclose(penalty, expected)
    penalty.backward()
    derivative = 10 * (0.5 / count * slope).flatten(1).sum(1).mean()
    assert torch.allclose(network.weight.grad, derivative)


def test_r1_is_in_full_precision_and_works_without_gradients_around():
    network, image = build_discriminator(DiscriminatorConfig("unet", width=4)).eval(), torch.rand(1, 3, 16, 16)
    expected = r1_penalty(network, image)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert torch.equal(r1_penalty(network, image), expected)
    assert expected > 0 and r1_penalty(network, image, 0) == 0
    with pytest.raises(ValueError, match="gamma"):
        r1_penalty(network, image, -1)


@pytest.mark.parametrize("kind", ["patch", "unet"])
def test_r1_reaches_the_weights_through_second_derivatives(kind):
    network = build_discriminator(DiscriminatorConfig(kind, width=4, layers=1))
    r1_penalty(network, torch.rand(1, 3, 24, 24)).backward()
    reached = [p.grad is not None and bool(p.grad.any()) for p in network.parameters() if p.ndim > 1]
    assert all(reached)


def test_feature_matching_follows_its_formula():
    generator = torch.Generator().manual_seed(0)
    shapes = [[(2, 4, 8, 8), (2, 8, 4, 4), (2, 8, 3, 3)], [(2, 4, 4, 4), (2, 8, 2, 2), (2, 8, 1, 1)]]
    real, fake = ([[torch.randn(s, generator=generator) for s in scale] for scale in shapes] for _ in range(2))
    pairs = [zip(a, b, strict=True) for a, b in zip(real, fake, strict=True)]
    expected = sum((r - f).abs().mean().item() for scale in pairs for r, f in scale) / 2 * 4 / 3
    assert feature_matching(real, fake).item() == pytest.approx(expected, rel=1e-5)
    assert feature_matching(real, real) == 0


def test_feature_matching_moves_the_result_alone():
    real, fake = (torch.rand(1, 2, 3, 3, requires_grad=True) for _ in range(2))
    feature_matching([[real]], [[fake]]).backward()
    assert real.grad is None and fake.grad.any()
    for other in ([[fake, fake]], [[fake], [fake]], []):
        with pytest.raises(ValueError, match="as many scales and layers"):
            feature_matching([[real]], other)


@pytest.mark.parametrize("change", [{"kind": "w"}, {"learning_rate": 0.0}, {"r1": -1.0}, {"r1_every": 0}, {"clip": 0}])
def test_a_bad_setting_is_named(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        AdversarialConfig(**change)
