"""PSNR, SSIM and radial spectra by the protocol of the super-resolution literature.

Every measure sees images quantised to 8 bits. Luma is the float Y of BT.601 (16..235, not rounded) of the
8-bit RGB; a grey image stays what it is, 0..255. Say Y or RGB with every number.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .checks import check_choice, check_image, check_integer

CHANNELS = ("y", "rgb")

SSIM_WINDOW = 11  # pixels a side, and standard deviation, Wang et al. 2004, section III.C
_WINDOW_SIGMA = 1.5
_C1, _C2 = (0.01 * 255.0) ** 2, (0.03 * 255.0) ** 2
_ROUNDING_POWER = 1.0 / 12.0  # variance of the rounding to whole 8-bit levels


def psnr(image: Tensor, reference: Tensor, *, channel: str = "y", crop: int = 0) -> Tensor:
    """Peak signal-to-noise ratio.

    Args:
        image: `[B, 1 or 3, H, W]`, float, 0..1 (clamped and quantised to 8 bits here).
        reference: the truth, of the same shape.
        channel: "y", or "rgb" for the error over all three channels. Grey images have one and the same value.
        crop: pixels left out at each border; the protocol leaves out as many as the scale.

    Returns:
        `[B]` float64 on the CPU, dB, infinite where nothing differs.

    Raises:
        TypeError, ValueError: as `check_image`; shapes that differ; a crop that leaves nothing.
    """
    a, b = _prepare(image, reference, channel, crop)
    mse = (a - b).square().mean(dim=(1, 2, 3))
    return (10.0 * torch.log10(255.0**2 / mse)).cpu()


def ssim(image: Tensor, reference: Tensor, *, channel: str = "y", crop: int = 0) -> Tensor:
    """Structural similarity, Wang et al. 2004: Gaussian window 11×11, sigma 1.5, valid area only.

    Args:
        image: `[B, 1 or 3, H, W]`, float, 0..1 (clamped and quantised to 8 bits here).
        reference: the truth, of the same shape.
        channel: "y", or "rgb" for the mean over the three channels.
        crop: pixels left out at each border; the protocol leaves out as many as the scale.

    Returns:
        `[B]` float64 on the CPU, at most 1.

    Raises:
        TypeError, ValueError: as `check_image`; shapes that differ; less than 11 × 11 pixels after the crop.
    """
    a, b = _prepare(image, reference, channel, crop)
    if min(a.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(
            f"image: expected at least {SSIM_WINDOW} x {SSIM_WINDOW} pixels after the crop for SSIM, "
            f"got {a.shape[-2]} x {a.shape[-1]}"
        )
    mean_a, mean_b = _blur(a), _blur(b)
    var_a = _blur(a * a) - mean_a * mean_a
    var_b = _blur(b * b) - mean_b * mean_b
    covariance = _blur(a * b) - mean_a * mean_b
    similarity = (2.0 * mean_a * mean_b + _C1) * (2.0 * covariance + _C2)
    similarity /= (mean_a * mean_a + mean_b * mean_b + _C1) * (var_a + var_b + _C2)
    return similarity.mean(dim=(1, 2, 3)).cpu()


def radial_log_ratio(image: Tensor, reference: Tensor, *, channel: str = "y", crop: int = 0, rings: int = 32) -> Tensor:
    """Power of an image over that of the reference, ring by ring of spatial frequency.

    Negative at high frequencies: smoothed over; positive: noise or detail that is not there. The power is
    that of the Hann-windowed image without its mean, averaged over each ring of equal width between 0 and
    0.5 cycles per pixel, with the power of 8-bit rounding added so that empty rings compare as equal.

    Args:
        image: `[B, 1 or 3, H, W]`, float, 0..1 (clamped and quantised to 8 bits here).
        reference: the truth, of the same shape.
        channel: "y", or "rgb" for the power of the three channels together.
        crop: pixels left out at each border.
        rings: number of rings, at most half the shorter side (fewer are used where it is short).

    Returns:
        `[B, rings]` float64 on the CPU, dB, from low to high frequency.

    Raises:
        TypeError, ValueError: as `check_image`; shapes that differ; less than 4 × 4 pixels after the crop.
    """
    check_integer(rings, "rings", 1)
    a, b = _prepare(image, reference, channel, crop)
    if min(a.shape[-2:]) < 4:
        raise ValueError(
            f"image: expected at least 4 x 4 pixels after the crop for a spectrum, got {a.shape[-2]} x {a.shape[-1]}"
        )
    rings = min(rings, min(a.shape[-2:]) // 2)  # so that no ring is empty
    return (10.0 * torch.log10(_radial_power(a, rings) / _radial_power(b, rings))).cpu()


def radial_spectrum_error(
    image: Tensor, reference: Tensor, *, channel: str = "y", crop: int = 0, rings: int = 32
) -> Tensor:
    """Mean absolute log-ratio of radial power spectra: lower is better, 0 for equal spectra.

    Over-smoothing and invented noise both raise it. It compares statistics, not pixels: quote it beside PSNR.

    Args:
        image, reference, channel, crop, rings: as `radial_log_ratio`.

    Returns:
        `[B]` float64 on the CPU, dB.

    Raises:
        TypeError, ValueError: as `radial_log_ratio`.
    """
    ratio = radial_log_ratio(image, reference, channel=channel, crop=crop, rings=rings)
    return ratio.abs().mean(dim=1)


@torch.no_grad()
def _prepare(image: Tensor, reference: Tensor, channel: str, crop: int) -> tuple[Tensor, Tensor]:
    """Check both, quantise, choose the channel and crop; float64 `[B, 1 or 3, H', W']`, 0..255."""
    check_image(image, "image", channels=(1, 3))
    check_image(reference, "reference", channels=(1, 3))
    if image.shape != reference.shape:
        raise ValueError(f"reference: expected {tuple(image.shape)} as image, got {tuple(reference.shape)}")
    check_choice(channel, "channel", CHANNELS)
    check_integer(crop, "crop", 0)
    H, W = image.shape[-2:]
    if 2 * crop >= min(H, W):
        raise ValueError(f"crop: expected less than half of {H} x {W} pixels, got {crop}")
    a, b = (_levels(x, channel)[..., crop : H - crop, crop : W - crop] for x in (image, reference))
    return a, b.to(a.device)


def _levels(image: Tensor, channel: str) -> Tensor:
    if image.device.type == "mps":  # which has no float64
        image = image.cpu()
    levels = (image.detach().to(torch.float64).clamp(0.0, 1.0) * 255.0 + 0.5).floor()
    if channel == "rgb" or levels.shape[1] == 1:
        return levels
    r, g, b = levels.split(1, dim=1)
    return (65.481 * r + 128.553 * g + 24.966 * b) / 255.0 + 16.0


def _blur(image: Tensor) -> Tensor:
    """Gaussian window over the valid area, `[B, C, H, W]` to `[B, C, H - 10, W - 10]`."""
    half = SSIM_WINDOW // 2
    taps = [math.exp(-((i - half) ** 2) / (2.0 * _WINDOW_SIGMA**2)) for i in range(SSIM_WINDOW)]
    for dim in (2, 3):
        length = image.shape[dim] - SSIM_WINDOW + 1
        # A sum of shifts: several times faster than a convolution, which has no fast float64 kernel.
        result = image.narrow(dim, 0, length) * (taps[0] / sum(taps))
        for i in range(1, SSIM_WINDOW):
            result.add_(image.narrow(dim, i, length), alpha=taps[i] / sum(taps))
        image = result
    return image


def _radial_power(image: Tensor, rings: int) -> Tensor:
    """Mean power of each ring, `[B, C, H, W]` to `[B, rings]`, with the power of rounding added."""
    B, _, H, W = image.shape
    options = {"dtype": torch.float64, "device": image.device}
    # Without the zeros at both ends, which would leave a short side with hardly any window at all.
    rows, columns = (torch.hann_window(n + 2, periodic=False, **options)[1:-1] for n in (H, W))
    window = rows[:, None] * columns
    spectrum = torch.fft.fft2((image - image.mean(dim=(2, 3), keepdim=True)) * window)
    power = spectrum.abs().square().sum(dim=1) / window.square().sum() + _ROUNDING_POWER
    radius = torch.hypot(torch.fft.fftfreq(H, **options)[:, None], torch.fft.fftfreq(W, **options))
    # Ring k holds radii in (k, k + 1] / (2·rings); the slack keeps rounding from moving a radius on the edge.
    ring = (radius * 2 * rings - 1e-9).ceil().long() - 1
    inside = (ring >= 0) & (ring < rings)
    total = torch.zeros(B, rings, **options).index_add_(1, ring[inside], power[:, inside])
    return total / torch.bincount(ring[inside], minlength=rings)
