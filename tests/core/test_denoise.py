from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from progressive_upsampling.core.config import from_dict, to_dict
from progressive_upsampling.core.denoise import (
    SIGMA_FLOOR,
    STEPS,
    Denoiser,
    DenoiserConfig,
    bytes_per_pixel,
    denoise,
    regress,
    sample,
    times,
)
from progressive_upsampling.core.noise import inject_noise
from progressive_upsampling.core.unet import UNetConfig

from .tiny import denoiser, largest_difference, picture, unet_config

Estimate = Callable[[Tensor, Tensor, float], Tensor]

WHOLE = 10**6
ETAS = [1.0, 0.75, 0.5, 0.1]


class Stub(Denoiser):
    """A denoiser whose estimates are given by functions, and that keeps what it was asked."""

    def __init__(self, estimate: Estimate, blind: Callable[[Tensor], Tensor] = lambda noisy: noisy) -> None:
        super().__init__(DenoiserConfig(unet_config()))
        self._estimate, self._blind = estimate, blind
        self.states: list[tuple[float, Tensor]] = []

    def forward(self, z: Tensor, y: Tensor, sigma: Tensor, eta: Tensor) -> Tensor:
        self.states.append((eta.item(), z))
        return self._estimate(z, y, eta.item())

    def regression(self, y: Tensor) -> Tensor:
        return self(torch.zeros_like(y), y, torch.zeros_like(y[:, :1]), torch.ones(1, 1, 1, 1))

    def blind(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        self.states.append((0.0, noisy))
        return self._blind(noisy)


def flat(value: float, height: int = 33, width: int = 47, batch: int = 1) -> Tensor:
    return torch.full((batch, 1, height, width), value)


def noised(sigma: float = 0.1, height: int = 33, width: int = 47, batch: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """An image, its noisy copy and the map."""
    y, s = picture(height, width, batch), flat(sigma, height, width, batch)
    return y, inject_noise(y, s, seed=3), s


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


# Tiles, batches, formats.


@pytest.mark.parametrize("tile", [64, WHOLE])
def test_the_regression_is_the_denoised_image_without_noise(tile: int) -> None:
    net, (y, _, _) = denoiser(0.2), noised(height=129, width=100, batch=2)
    expected = denoise(net, y, torch.zeros_like(y[:, :1]), y, detail=0.7, tile=tile, dtype="fp32")
    before = y.clone()
    assert torch.equal(regress(net, y, tile=tile, dtype="fp32"), expected)
    assert torch.equal(y, before)
    assert regress(net, y, tile=tile, dtype="fp32", out=y) is y
    assert largest_difference(y, expected) < 1e-6


def test_the_regression_is_the_estimate_at_the_start_without_noise() -> None:
    net, (y, _, _) = denoiser(0.2), noised()
    with torch.no_grad():
        estimate = net(torch.zeros_like(y), y, torch.zeros_like(y[:, :1]), torch.ones(1, 1, 1, 1))
        assert largest_difference(net.regression(y), estimate) < 1e-6


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("detail", [0.0, 0.7])
def test_the_result_does_not_depend_on_the_tile(detail: float, known: bool) -> None:
    # Weights so large that half of the halo would show.
    net, (y, noisy, s) = denoiser(0.2), noised(height=129, width=100)
    run: dict[str, Any] = {"detail": detail, "steps": 2, "dtype": "fp32"}
    whole = denoise(net, noisy, s, y if known else None, tile=WHOLE, **run)
    for tile in (64, 96):
        assert largest_difference(denoise(net, noisy, s, y if known else None, tile=tile, **run), whole) < 1e-5


@pytest.mark.parametrize("size", [(1, 1), (3, 200)])
def test_any_size_works(size: tuple[int, int]) -> None:
    y, noisy, s = noised(0.1, *size)
    out = denoise(denoiser(), noisy, s, y, detail=0.5)
    assert out.shape == y.shape and out.isfinite().all()


def test_each_image_of_a_batch_is_as_if_alone() -> None:
    net, (y, noisy, s) = denoiser(), noised(batch=3)
    s = s * torch.tensor([0.0, 0.5, 1.0]).reshape(3, 1, 1, 1)
    noisy = inject_noise(y, s, seed=2)
    together = denoise(net, noisy, s, y, detail=0.8, dtype="fp32")
    for i in range(3):
        part = slice(i, i + 1)
        alone = denoise(net, noisy[part], s[part], y[part], detail=0.8, dtype="fp32")
        assert largest_difference(together[part], alone) < 1e-5


def test_one_map_serves_a_whole_batch() -> None:
    net, (y, noisy, s) = denoiser(), noised(batch=2)
    for conditioning in (y, None):
        out = denoise(net, noisy, s[:1], conditioning, detail=0.5)
        assert torch.equal(out, denoise(net, noisy, s, conditioning, detail=0.5))


def test_bfloat16_is_close_to_float32() -> None:
    net, (y, noisy, s) = denoiser(), noised()
    for run in ({"detail": 0.0}, {"detail": 1.0}):
        exact, rounded = (denoise(net, noisy, s, y, dtype=dtype, **run) for dtype in ("fp32", "bf16"))
        assert rounded.dtype is torch.float32
        assert 0 < largest_difference(rounded, exact) < 4 / 255


def test_the_result_is_float32_in_range_whatever_comes_in() -> None:
    net, (y, noisy, s) = denoiser(0.2), noised(0.5)
    for dtype in (torch.float16, torch.float64):
        for conditioning in (y.to(dtype), None):
            out = denoise(net, noisy.to(dtype), s.to(dtype), conditioning, detail=0.5)
            assert out.dtype is torch.float32
            assert out.min() >= 0 and out.max() <= 1


# Progress, cancelling, errors.


@pytest.mark.parametrize(
    ("detail", "known", "sigma", "evaluations"),
    [
        (0.0, True, 0.1, 1),
        (0.5, True, 0.1, 5),
        (1.0, True, 0.1, 4),
        (1.0, True, 0.001, 5),
        (1.0, True, 0.0, 1),
        (0.0, False, 0.1, 1),
        (1.0, False, 0.1, 5),
    ],
)
def test_nothing_is_evaluated_that_is_not_needed(detail: float, known: bool, sigma: float, evaluations: int) -> None:
    y, noisy, s = noised(sigma, 70, 90)
    calls: list[tuple[float, float]] = []
    for tile, tiles in ((WHOLE, 1), (64, 4)):
        stub = Stub(lambda z, y, eta: y)
        calls.clear()
        denoise(
            stub,
            noisy,
            s,
            y if known else None,
            detail=detail,
            tile=tile,
            on_step=lambda done, total, preview: calls.append((done, total)),
        )
        assert len(stub.states) == len(calls) == evaluations * tiles
        assert calls == [
            (pytest.approx((i + 1) / tiles), pytest.approx(evaluations)) for i in range(evaluations * tiles)
        ]
        assert calls[-1][0] == calls[-1][1]


def test_cancelling_stops_between_tiles_and_leaves_the_inputs() -> None:
    net, (y, noisy, s) = denoiser(), noised(0.1, 70, 90)
    kept = [image.clone() for image in (y, noisy, s)]
    calls: list[float] = []

    def cancel(done: float, total: float, preview: Tensor | None) -> None:
        calls.append(done)
        if len(calls) == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        denoise(net, noisy, s, y, detail=0.5, tile=64, on_step=cancel)
    assert len(calls) == 6
    assert all(torch.equal(a, b) for a, b in zip((y, noisy, s), kept, strict=True))


def test_inputs_are_not_changed() -> None:
    net, (y, noisy, s) = denoiser(), noised()
    kept = [image.clone() for image in (y, noisy, s)]
    for conditioning in (y, None):
        denoise(net, noisy, s, conditioning, detail=0.5).zero_()
        denoise(net, noisy, s, conditioning).zero_()
    assert all(torch.equal(a, b) for a, b in zip((y, noisy, s), kept, strict=True))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"noisy": picture(channels=4)}, ValueError, r"noisy: expected \[B, 3, H, W\], got \(1, 4, 33, 47\)"),
        ({"noisy": picture() * math.inf}, ValueError, "noisy: expected finite values"),
        ({"sigma": 0.1}, TypeError, r"sigma: expected a float tensor \[1, 1, 33, 47\], got float 0.1"),
        ({"sigma": flat(-0.1)}, ValueError, "sigma: expected values >= 0, got a minimum of -0.1"),
        ({"sigma": flat(0.1, 33, 46)}, ValueError, r"sigma: expected \[1, 1, 33, 47\] to match the image"),
        ({"conditioning": picture(33, 46)}, ValueError, r"conditioning: expected \(1, 3, 33, 47\) as noisy, got"),
        ({"conditioning": picture(batch=2)}, ValueError, r"conditioning: expected \(1, 3, 33, 47\) as noisy, got"),
        ({"conditioning": picture(channels=1)}, ValueError, r"conditioning: expected \[B, 3, H, W\], got"),
        ({"steps": 3}, ValueError, "steps: expected one of 1, 2, 4, 8, got int 3"),
        ({"steps": 4.0}, ValueError, "steps: expected one of 1, 2, 4, 8, got float 4.0"),
        ({"detail": 1.1}, ValueError, "detail: expected a number in 0..1, got 1.1"),
        ({"detail": math.nan}, ValueError, "detail: expected a number in 0..1, got nan"),
        ({"tile": 0}, ValueError, "tile: expected an integer >= 1, got 0"),
        ({"dtype": "half"}, ValueError, "dtype: expected one of 'auto', 'fp32', 'bf16', 'fp16', got str 'half'"),
        ({"dtype": "fp16"}, ValueError, "dtype: expected auto, fp32 or bf16 on a CPU, got 'fp16'"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(changes: dict[str, Any], error: type[Exception], words: str) -> None:
    y, noisy, s = noised()
    arguments: dict[str, Any] = {"noisy": noisy, "sigma": s, "conditioning": y}
    with pytest.raises(error, match=f"^{words}"):
        denoise(denoiser(), **(arguments | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sigma_r": 0.0}, "sigma_r: expected a number > 0, got 0.0"),
        ({"unet": UNetConfig(in_channels=7)}, r"unet: expected 8 channels in and 3 out, got \(7, 3\)"),
        ({"unet": UNetConfig(out_channels=1)}, r"unet: expected 8 channels in and 3 out, got \(8, 1\)"),
    ],
)
def test_a_config_names_what_is_wrong(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DenoiserConfig(**changes)


def test_a_config_survives_json() -> None:
    config = DenoiserConfig(unet_config(), 0.031)
    assert from_dict(DenoiserConfig, to_dict(config)) == config


def test_half_the_bytes_take_less_memory() -> None:
    assert bytes_per_pixel(UNetConfig(), torch.bfloat16) < bytes_per_pixel(UNetConfig(), torch.float32)


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_every_weight_learns(eta: float) -> None:
    net, (y, noisy, s) = denoiser().train(), noised()
    net(noisy - y, y, s, torch.tensor(eta).reshape(1, 1, 1, 1)).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name
