"""The denoiser on images of any size: tiles, batches, formats, progress, errors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from progressive_upsampling.core.config import from_dict, to_dict
from progressive_upsampling.core.denoise import bytes_per_pixel, denoise, regress
from progressive_upsampling.core.denoiser import DenoiserConfig
from progressive_upsampling.core.noise import inject_noise
from progressive_upsampling.core.unet import UNetConfig

from .noisy import WHOLE, Stub, flat, noised
from .tiny import denoiser, largest_difference, picture, unet_config

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
    net, (y, noisy, s) = denoiser(0.1), noised(height=129, width=100)
    run: dict[str, Any] = {"detail": detail, "steps": 2, "dtype": "fp32"}
    whole = denoise(net, noisy, s, y if known else None, tile=WHOLE, **run)
    for tile in (30, 64, 96):
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
    strips = [27 / 70, 54 / 70, 1]  # as many rows of 90 as have the area of 50²
    for net, tile, ends in ((Stub(lambda z, y, eta: y), WHOLE, [1]), (denoiser(), 50, strips)):
        calls.clear()
        denoise(
            net,
            noisy,
            s,
            y if known else None,
            steps=4,
            detail=detail,
            tile=tile,
            on_step=lambda done, total, preview: calls.append((done, total)),
        )
        assert not isinstance(net, Stub) or len(net.states) == evaluations
        assert calls == [
            (pytest.approx(i + end), pytest.approx(evaluations)) for i in range(evaluations) for end in ends
        ]
        assert calls[-1][0] == calls[-1][1]


@pytest.mark.parametrize(("levels", "share"), [(0, 0.0), (1, 0.25), (3, 0.75), (4, 1.0), (9, 1.0)])
def test_of_little_noise_there_is_little_texture(levels: float, share: float) -> None:
    y, noisy, s = noised(levels / 255)
    net = Stub(lambda z, y, eta: 0.5 * y if z.any() else y)
    out = denoise(net, noisy, s, y, detail=1.0, tile=WHOLE)
    torch.testing.assert_close(out, (1 - share) * y + share * 0.5 * y)


def test_cancelling_stops_between_tiles_and_leaves_the_inputs() -> None:
    net, (y, noisy, s) = denoiser(), noised(0.1, 70, 90)
    kept = [image.clone() for image in (y, noisy, s)]
    calls: list[float] = []

    def cancel(done: float, total: float, preview: Tensor | None) -> None:
        calls.append(done)
        if len(calls) == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        denoise(net, noisy, s, y, steps=4, detail=0.5, tile=64, on_step=cancel)
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
