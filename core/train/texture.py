"""Loss terms on what texture is made of: its power spectrum, and the grid that networks leave in it, place by place.

Like those of `losses` they are functions of (image, target) in float32 at least, and clamp nothing. Neither asks for
the target's pixels: noise of the right power costs nothing in `spectrum`, and nothing more than other noise in
`checkerboard`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

from ..layout import rgb_to_ycbcr
from .losses import at_least_float32, check_pair, full_precision

SPECTRUM_WINDOW = 16  # pixels a side; the next one begins after half of it
NEIGHBOURS = 3  # windows a side whose powers are averaged
GRID_WINDOW = 16  # pixels a side
PERIOD = 4  # pixels; what the denoiser's pixel shuffles can leave, and the poolings of VGG19 let pass
_FLOOR = 0.3 / 255**2  # power of a third of an 8-bit level's noise, under which nothing is seen


def spectrum(image: Tensor, target: Tensor) -> Tensor:
    """Mean absolute log-ratio of the power spectra in small windows (after Durall 2020, arXiv 2003.01826).

    Of Y, Cb and Cr each, by Hann's windows without their means, frequency by frequency; the powers of NEIGHBOURS by
    NEIGHBOURS windows, which overlap, are averaged before, as those of one alone tell little. So both lost and invented
    texture cost, at their place, scale and direction, whatever their phase. Durall's rings of frequencies would not do:
    a checkerboard in their corners passes for all the texture that they lack.

    Args:
        image, target: `[B, 3, H, W]`, in 0..1 units, at least SPECTRUM_WINDOW pixels a side.

    Returns:
        A tensor without axes, float32 (float64 for float64); 1 is power that is off by a factor of e.

    Raises:
        TypeError, ValueError: no float tensors of one shape with four axes; smaller images.
    """
    check_pair(image, target, SPECTRUM_WINDOW)
    with full_precision(image):
        return (_log_powers(at_least_float32(image)) - _log_powers(at_least_float32(target))).abs().mean()


def checkerboard(image: Tensor, target: Tensor) -> Tensor:
    """What of the error repeats every PERIOD pixels for a while (Odena 2016, doi 10.23915/distill.00003).

    In windows of GRID_WINDOW pixels a side, side by side: the mean of the error over the pixels of each place in the
    period, less the mean over all, as an absolute value averaged over the places. Error that follows the picture
    mostly averages out; a grid does not.

    Args:
        image, target: `[B, C, H, W]`, in 0..1 units, at least GRID_WINDOW pixels a side; what is left of the last whole
            window is not looked at.

    Returns:
        A tensor without axes, float32 (float64 for float64).

    Raises:
        TypeError, ValueError: no float tensors of one shape with four axes; smaller images.
    """
    check_pair(image, target, GRID_WINDOW)
    error = at_least_float32(image) - at_least_float32(target)
    H, W = (side - side % GRID_WINDOW for side in error.shape[-2:])
    count = GRID_WINDOW // PERIOD
    split = "b c (i h y) (j w x) -> b c i j y x"
    grid = reduce(error[..., :H, :W], split, "mean", h=count, w=count, y=PERIOD, x=PERIOD)
    return (grid - grid.mean((-2, -1), keepdim=True)).abs().mean()


def _log_powers(image: Tensor) -> Tensor:
    """`[B · 3, side · (side / 2 + 1), rows, columns]`; white noise has about its variance's logarithm everywhere."""
    side = SPECTRUM_WINDOW
    hann = torch.hann_window(side, dtype=image.dtype, device=image.device)
    shape = hann[:, None] * hann
    rows, columns = ((length - side) // (side // 2) + 1 for length in image.shape[-2:])
    planes = rearrange(rgb_to_ycbcr(image), "b c h w -> (b c) 1 h w")
    windows = rearrange(F.unfold(planes, side, stride=side // 2), "b (y x) n -> b n y x", y=side)
    windows = (windows - windows.mean((2, 3), keepdim=True)) * (shape / shape.square().sum().sqrt())
    found = torch.fft.rfft2(windows)
    power = rearrange(found.real.square() + found.imag.square(), "b (r c) y x -> b (y x) r c", r=rows)
    return (F.avg_pool2d(power, (min(NEIGHBOURS, rows), min(NEIGHBOURS, columns)), stride=1) + _FLOOR).log()
