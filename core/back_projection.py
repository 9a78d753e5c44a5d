"""Back-projection (Irani and Peleg 1991, doi 10.1016/1049-9652(91)90045-L): an enlarged image that, reduced, is the
small one again.

Whatever an upsampler invents, the small image is known. What the enlarged one, reduced, lacks of it is enlarged by
bicubic and added. That is a residual skip from where the chain began, and the last word of a chain that asks for it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import check_number
from .progress import OnStep
from .residual import check_pair
from .rows import bands, images_at_a_time, rows_at
from .tiling import band_pixels
from .transparency import spread_colour

COLOURS = 3  # channels that are corrected; a fourth is alpha, which is no result of an upsampler


@torch.no_grad()
def back_project(
    current: Tensor,
    previous: Tensor,
    strength: float = 1.0,
    *,
    overwrite: bool = False,
    band: int | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Correct an image so that it agrees with the smaller one that it was made from.

    The result is current + strength · enlarge(previous − reduce(current)), both by bicubic, reduced with antialiasing:
    one step, after which a quarter or so is lacking of what was.

    Args:
        current: `[B, C, H, W]`, C of 1, 3 or 4, 0..1. Alpha stays as it is; colours that it hides count for nothing.
        previous: `[B, C, H', W']`, 0..1, of any size; meant to be smaller. Not changed.
        strength: 0..1; 0 returns the current image exactly.
        overwrite: whether `current`, float32, takes the result.
        band: pixels that are worked on at a time; no effect on the result. None for `tiling.band_pixels`.
        on_step: progress, after each band; may raise to cancel, which leaves a `current` that is overwritten half
            corrected.

    Returns:
        `[B, C, H, W]` in the dtype of `current`, 0..1, without gradient; `current` itself where it is overwritten.

    Raises:
        TypeError, ValueError: a wrong image or number; images of different batch or channels.

    Example:
        >>> small = torch.rand(1, 3, 33, 47)
        >>> back_project(resample(small, (66, 94)).clamp(0, 1), small).shape
        torch.Size([1, 3, 66, 94])
    """
    check_pair(current, previous)
    check_number(strength, "strength", 0.0, 1.0)
    target = current if overwrite else current.float().clone()
    B, _, H, W = target.shape
    if strength > 0:
        band = band_pixels(target.device) if band is None else band
        spread_colour(target, overwrite=True)
        previous = spread_colour(previous)
        for some in images_at_a_time(B, H * W, band):
            colour = target[some, :COLOURS]
            lacking = _lacking(colour, previous[some, :COLOURS].float(), band)
            for rows in bands(H, max(band // (len(colour) * W), 1)):
                colour[:, :, rows] += strength * rows_at(lacking, (H, W), rows)
                if on_step is not None:
                    on_step(some.start * H + len(colour) * rows.stop, B * H, None)
    return target.clamp_(0, 1).to(current.dtype)


def _lacking(current: Tensor, previous: Tensor, band: int) -> Tensor:
    """What an image, reduced to the size of the previous one, lacks of that."""
    H, W = current.shape[2:]
    h, w = previous.shape[2:]
    lacking = previous.clone()
    for rows in bands(h, max(band * h // (H * W), 1)):
        lacking[:, :, rows] -= rows_at(current, (h, w), rows)
    return lacking
