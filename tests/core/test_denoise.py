from __future__ import annotations

import math
import sys

import pytest
import torch
from torch import Tensor

from progressive_upsampling.core.denoise import STEPS, denoise, sample, times
from progressive_upsampling.core.denoiser import SIGMA_FLOOR, Denoiser, DenoiserConfig
from progressive_upsampling.core.noise import inject_noise

from .noisy import ETAS, WHOLE, Stub, flat, noised
from .tiny import denoiser, largest_difference, picture, unet_config

# The preconditioning.


@pytest.mark.parametrize("eta", ETAS)
@pytest.mark.parametrize("s", [0.01, 0.04, 0.3])
def test_the_network_sees_and_learns_numbers_of_unit_variance(eta: float, s: float) -> None:
    net, sigma_r = denoiser(), 0.04
    random = torch.Generator().manual_seed(0)
    d, n = sigma_r * torch.randn(400_000, generator=random), torch.randn(400_000, generator=random)
    z = (1 - eta) * d + math.sqrt(eta) * s * n
    c_skip, c_out, c_in, _ = net.coefficients(torch.tensor(s), torch.tensor(eta))
    target = (d - c_skip * z) / c_out
    assert (c_in * z).var().item() == pytest.approx(1, abs=0.01)
    if math.sqrt(eta) * s > SIGMA_FLOOR:
        assert target.var().item() == pytest.approx(1, abs=0.01)
        # c_skip is the best guess that is linear in z: nothing of z is left in the target (Karras 2022, B.6).
        assert (target * c_in * z).mean().item() == pytest.approx(0, abs=0.01)


def test_at_time_1_it_is_a_regression_and_towards_0_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    net, s = denoiser(), torch.tensor(0.1)
    c_skip, c_out, _, b = net.coefficients(s, torch.tensor(1.0))
    assert (c_skip.item(), c_out.item(), b.item()) == pytest.approx((0, 0.04, 0.1))
    monkeypatch.setattr(sys.modules[Denoiser.__module__], "SIGMA_FLOOR", 1e-9)
    c_skip, c_out, _, _ = net.coefficients(s, torch.tensor(1e-9))
    assert (c_skip.item(), c_out.item()) == pytest.approx((1, 0), abs=1e-4)


def test_coefficients_are_finite_without_noise() -> None:
    c_skip, c_out, c_in, b = denoiser().coefficients(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 1, 1))
    for value in (c_skip, c_out, c_in, b.log()):
        assert value.isfinite().all()
    assert (b == SIGMA_FLOOR).all()


def test_the_estimate_is_the_formula_pixel_by_pixel() -> None:
    net, sigma_r, eta = denoiser(0.2), 0.04, 0.3
    y, noisy, s = noised(height=5, width=7)
    s = s * torch.linspace(0, 2, 7)
    z = noisy - y
    seen: list[Tensor] = []
    answers: list[Tensor] = []
    net.unet.register_forward_hook(lambda _, inputs, output: (seen.append(inputs[0]), answers.append(output), None)[-1])
    with torch.no_grad():
        out = net(z, y, s, torch.tensor(eta).reshape(1, 1, 1, 1))
    (x,), (F,) = seen, answers
    for i in range(5):
        for j in range(7):
            b = max(math.sqrt(eta) * s[0, 0, i, j].item(), 1 / 255)
            V = ((1 - eta) * sigma_r) ** 2 + b**2
            for c in range(3):
                state, pixel = z[0, c, i, j].item(), y[0, c, i, j].item()
                assert x[0, c, i, j].item() == pytest.approx(state / math.sqrt(V), abs=1e-5)
                assert x[0, 3 + c, i, j].item() == pytest.approx(pixel - 0.5, abs=1e-6)
                expected = pixel + (1 - eta) * sigma_r**2 / V * state
                expected += sigma_r * b / math.sqrt(V) * F[0, c, i, j].item()
                assert out[0, c, i, j].item() == pytest.approx(expected, abs=1e-5)
            assert x[0, 6, i, j].item() == pytest.approx(math.log(b / sigma_r), abs=1e-5)
            assert x[0, 7, i, j].item() == pytest.approx(eta)


def test_the_blind_estimate_is_the_formula() -> None:
    net, (_, noisy, s) = denoiser(0.2), noised()
    seen: list[Tensor] = []
    answers: list[Tensor] = []
    net.unet.register_forward_hook(lambda _, inputs, output: (seen.append(inputs[0]), answers.append(output), None)[-1])
    with torch.no_grad():
        out = net.blind(noisy, s)
    tau = math.sqrt(0.04**2 + 0.1**2)
    torch.testing.assert_close(out, noisy + tau * answers[0])
    assert not seen[0][:, :3].any() and not seen[0][:, 7].any()
    torch.testing.assert_close(seen[0][:, 3:6], noisy - 0.5)
    torch.testing.assert_close(seen[0][:, 6:7], flat(math.log(tau / 0.04)))


# The sampler.


@pytest.mark.parametrize("steps", STEPS)
def test_times_fall_evenly_from_1_to_0(steps: int) -> None:
    path = times(steps)
    assert len(path) == steps + 1
    assert path == pytest.approx([1 - k / steps for k in range(steps + 1)])
    assert path[-1] == 0


@pytest.mark.parametrize("steps", STEPS)
def test_an_oracle_brings_the_truth_and_keeps_the_noise_on_the_way(steps: int) -> None:
    y, noisy, s = noised()
    x = picture(seed=4)
    noisy = noisy + (x - y) * 0  # at time 1 nothing of d is in the state
    oracle = Stub(lambda z, y, eta: x)
    out = denoise(oracle, noisy, s, y, steps=steps, detail=1.0, tile=WHOLE)
    assert largest_difference(out, x) < 1e-6
    n = (noisy - y) / s
    assert [eta for eta, _ in oracle.states] == pytest.approx(times(steps)[:-1])
    for eta, z in oracle.states:
        torch.testing.assert_close(z, (1 - eta) * (x - y) + math.sqrt(eta) * s * n, atol=1e-5, rtol=0)


@pytest.mark.parametrize("steps", STEPS)
def test_the_sampler_follows_the_formula(steps: int) -> None:
    y, noisy, s = noised(0.2)
    z0 = noisy - y

    def estimate(z: Tensor, y: Tensor, eta: float) -> Tensor:
        return y + 0.6 * z - 0.3 * eta * torch.sin(9 * z)

    z, d_hat = z0, torch.zeros_like(z0)
    for k in range(steps, 0, -1):
        eta, following = k / steps, (k - 1) / steps
        d_hat = estimate(z, y, eta) - y
        n_hat = (z - (1 - eta) * d_hat) / (math.sqrt(eta) * s)
        z = (1 - following) * d_hat + math.sqrt(following) * s * n_hat
    torch.testing.assert_close(sample(estimate, z0, y, steps), y + d_hat, atol=1e-5, rtol=1e-5)


# What users steer.


def regression(net: Denoiser, y: Tensor) -> Tensor:
    zero = torch.zeros_like(y)
    with torch.no_grad():
        return net(zero, y, zero[:, :1], torch.ones(1, 1, 1, 1)).clamp(0, 1)


def test_detail_0_is_the_regression_and_ignores_the_noise() -> None:
    net, (y, noisy, s) = denoiser(), noised()
    out = denoise(net, noisy, s, y, dtype="fp32", tile=WHOLE)
    assert torch.equal(out, regression(net, y))
    assert torch.equal(denoise(net, 1 - noisy, 2 * s, y, dtype="fp32", tile=WHOLE), out)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("detail", [0.0, 0.3, 1.0])
def test_no_noise_is_the_regression(steps: int, detail: float) -> None:
    net, y = denoiser(), picture()
    out = denoise(net, y, flat(0.0), y, steps=steps, detail=detail, dtype="fp32", tile=WHOLE)
    assert torch.equal(out, regression(net, y))


def test_detail_mixes_regression_and_refinement() -> None:
    net, (y, noisy, s) = denoiser(), noised()
    ends = [denoise(net, noisy, s, y, detail=detail, dtype="fp32") for detail in (0.0, 1.0)]
    middle = denoise(net, noisy, s, y, detail=0.3, dtype="fp32")
    inside = ((ends[1] > 0) & (ends[1] < 1)).all(1, keepdim=True).expand_as(middle)
    torch.testing.assert_close(middle[inside], (0.7 * ends[0] + 0.3 * ends[1])[inside])


@pytest.mark.parametrize("known", [True, False])
def test_more_detail_is_further_from_the_regression(known: bool) -> None:
    net, (y, noisy, s) = denoiser(), noised()
    conditioning = y if known else None
    base = denoise(net, noisy, s, conditioning, dtype="fp32")
    distances = [
        (denoise(net, noisy, s, conditioning, detail=detail, steps=2, dtype="fp32") - base).abs().mean().item()
        for detail in (0.0, 0.2, 0.5, 0.8, 1.0)
    ]
    assert distances[0] == 0
    assert distances == sorted(set(distances))


def test_where_a_painted_map_is_0_detail_changes_nothing() -> None:
    net, (y, _, s) = denoiser(), noised()
    s[..., 20:] = 0
    noisy = inject_noise(y, s, seed=1)
    plain, detailed = (denoise(net, noisy, s, y, detail=detail, dtype="fp32") for detail in (0.0, 0.9))
    assert torch.equal(detailed[..., 20:], plain[..., 20:])
    assert (detailed - plain)[..., :20].abs().min(dim=1).values.max() > 1e-3


def test_under_one_grey_level_detail_fades_out() -> None:
    net, y = denoiser(), picture()
    base = regression(net, y)
    changes = []
    for part in (0.25, 0.5, 1.0):
        s = flat(part / 255)
        changes.append((denoise(net, inject_noise(y, s), s, y, detail=1.0, dtype="fp32") - base).abs().mean().item())
    assert changes == sorted(changes) and changes[0] < 0.4 * changes[2]


# Without conditioning, without training.


def test_blind_detail_0_is_the_blind_estimate() -> None:
    net, (_, noisy, s) = denoiser(), noised()
    with torch.no_grad():
        expected = net.blind(noisy, s).clamp(0, 1)
    assert torch.equal(denoise(net, noisy, s, dtype="fp32", tile=WHOLE), expected)


def test_blind_refinement_starts_from_the_blind_estimate() -> None:
    _, noisy, s = noised()
    stub = Stub(lambda z, y, eta: y, lambda noisy: 0.9 * noisy)
    denoise(stub, noisy, s, detail=0.5, steps=2, tile=WHOLE)
    assert [eta for eta, _ in stub.states] == [0.0, 1.0, 0.5]
    torch.testing.assert_close(stub.states[1][1], 0.1 * noisy)


def test_another_denoiser_can_make_the_blind_estimate() -> None:
    _, noisy, s = noised()
    stub, other = Stub(lambda z, y, eta: y, lambda noisy: 0.9 * noisy), denoiser()
    with torch.no_grad():
        expected = other.blind(noisy, s).clamp(0, 1)
    assert torch.equal(denoise(stub, noisy, s, blind=other, dtype="fp32", tile=WHOLE), expected)
    denoise(stub, noisy, s, blind=other, detail=0.5, steps=1, dtype="fp32", tile=WHOLE)
    assert [eta for eta, _ in stub.states] == [1.0]  # the stub refines, and is not asked for the blind estimate
    torch.testing.assert_close(stub.states[0][1], noisy - other.blind(noisy, s))


def test_another_denoiser_computes_in_the_same_format() -> None:
    (_, noisy, s), net, other = noised(), denoiser(), denoiser(seed=1)
    assert not torch.equal(*(denoise(net, noisy, s, blind=other, dtype=dtype) for dtype in ("fp32", "bf16")))


def test_a_denoiser_for_blind_use_alone_is_not_asked_for_more() -> None:
    net, (y, noisy, s) = Denoiser(DenoiserConfig(unet_config(), conditioned=False)).eval(), noised()
    assert torch.equal(denoise(net, noisy, s), noisy.clamp(0, 1))
    with pytest.raises(ValueError, match="model: expected one that conditioning"):
        denoise(net, noisy, s, y)
    with pytest.raises(ValueError, match="model: expected one that conditioning"):
        denoise(net, noisy, s, detail=0.1)


def test_an_untrained_denoiser_returns_its_input() -> None:
    net = Denoiser(DenoiserConfig(unet_config())).eval()
    y, noisy, s = noised()
    assert torch.equal(denoise(net, noisy, s, y), y)
    assert torch.equal(denoise(net, noisy, s), noisy.clamp(0, 1))


@pytest.mark.parametrize("steps", STEPS)
def test_an_untrained_denoiser_never_adds_noise(steps: int) -> None:
    net = Denoiser(DenoiserConfig(unet_config())).eval()
    y, noisy, s = noised()
    out = denoise(net, noisy, s, y, steps=steps, detail=1.0)
    assert ((out - y).abs() <= (noisy - y).abs() + 1e-6).all()


def test_without_the_network_the_estimate_is_the_best_linear_one() -> None:
    # Against Gaussian d and n it beats both ends, y and y + z.
    net = Denoiser(DenoiserConfig(unet_config())).eval()
    random = torch.Generator().manual_seed(0)
    d = 0.04 * torch.randn(1, 3, 64, 64, generator=random)
    y, eta = torch.full((1, 3, 64, 64), 0.5), 0.5
    z = (1 - eta) * d + math.sqrt(eta) * 0.04 * torch.randn(1, 3, 64, 64, generator=random)
    with torch.no_grad():
        estimate = net(z, y, flat(0.04, 64, 64), torch.tensor(eta).reshape(1, 1, 1, 1)) - y
    assert (estimate - d).square().mean() < 0.95 * min(d.square().mean(), (z - d).square().mean())
