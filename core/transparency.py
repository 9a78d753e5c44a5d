"""Colour under transparent pixels: what a file holds there, mostly black, must not reach the edge of what is seen.

Networks, interpolation and pyramids work on colour and alpha apart, and mix the colours of neighbours. Before they do,
every pixel that is not seen takes the colour of those seen nearest to it, by a pyramid of alpha-weighted means: a level
lies over the next coarser one where it knows a colour (pull-push: Gortler et al. 1996, doi 10.1145/237170.237200).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .resample import resample
from .rows import BAND_PIXELS, Rows, bands, resample_rows, rows_for

SEEN = 1 / 256  # alpha from which a pixel keeps its colour; of 8 bits, 0 alone is below


def spread_colour(image: Tensor, *, overwrite: bool = False) -> Tensor:
    """Gives pixels that cannot be seen the colour of those around them that can.

    Between alpha 0 and SEEN the colour goes over from theirs to its own, so that rounding does not decide.

    Args:
        image: `[B, C, H, W]`, any float dtype, 0..1; alpha is the last channel where C is 2 or 4. Not changed unless
            `overwrite` says so.
        overwrite: whether the image takes the result.

    Returns:
        `[B, C, H, W]` with the same alpha, in the dtype of the image. The image itself where it is overwritten, has no
        alpha, or no image of the batch has both pixels that are seen and pixels that are not.
    """
    if image.shape[1] not in (2, 4):
        return image
    alpha = image[:, -1]
    mixed = (alpha.amin((1, 2)) < SEEN) & (alpha.amax((1, 2)) >= SEEN)
    chosen = [i for i, both in enumerate(mixed.tolist()) if both]
    if not chosen:
        return image
    result = image if overwrite else image.clone()
    for i in chosen:
        _spread(image[i : i + 1].to(torch.promote_types(image.dtype, torch.float32)), result[i : i + 1])
    return result


def _spread(image: Tensor, out: Tensor) -> None:
    """Writes the colours of one image, float32 or float64; `out` may be that image."""
    H, W = image.shape[2:]
    below = _over_coarser(_halved(image))
    for rows in bands(H, max(BAND_PIXELS // W, 1)):
        colour, alpha = image[:, :-1, rows], image[:, -1:, rows]
        around = resample_rows(Rows(below, 0, below.shape[2]), (H, W), rows, "bilinear")
        out[:, :-1, rows] = around.lerp(colour, (alpha / SEEN).clamp(0, 1))


def _halved(image: Tensor) -> Tensor:
    """Colour times alpha, and alpha, at half the size; in bands, for a whole image is not to be in memory again."""
    H, W = image.shape[2:]
    h, w = (H + 1) // 2, (W + 1) // 2
    pieces = []
    for rows in bands(h, max(BAND_PIXELS // W, 1)):
        needed = rows_for(H, h, rows, "bilinear")
        alpha = image[:, -1:, needed].clamp(0, 1)
        weighted = torch.cat([image[:, :-1, needed] * alpha, alpha], 1)
        pieces.append(resample_rows(Rows(weighted, needed.start, H), (h, w), rows, "bilinear"))
    return torch.cat(pieces, 2)


def _over_coarser(weighted: Tensor) -> Tensor:
    """The colour at every pixel of a level: its own as far as it has any, over that of the next coarser level."""
    colour, weight = weighted[:, :-1], weighted[:, -1:]
    H, W = weighted.shape[2:]
    if H == W == 1:
        return colour / weight
    coarser = _over_coarser(resample(weighted, ((H + 1) // 2, (W + 1) // 2), "bilinear"))
    return colour + (1 - weight) * resample(coarser, (H, W), "bilinear")
