"""Laplacian pyramid for images of any size, exact to rounding (Burt and Adelson 1983)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from .resample import resample
from .rows import Rows, resample_rows, rows_for


def gaussian_pyramid(image: Tensor, levels: int) -> list[Tensor]:
    """An image and its reductions, each half as large as the one before, rounded up.

    Args:
        image: `[B, C, H, W]`.
        levels: number of images, >= 1; where 1×1 is reached the rest are equal.

    Returns:
        `levels` tensors `[B, C, ceil(H / 2^l), ceil(W / 2^l)]`, finest first.
    """
    reduced = [image]
    for _ in range(levels - 1):
        H, W = reduced[-1].shape[-2:]
        # The triangle filter has no negative weights: a reduction stays in the range of its image.
        reduced.append(resample(reduced[-1], ((H + 1) // 2, (W + 1) // 2), "bilinear"))
    return reduced


def decompose(image: Tensor, levels: int) -> list[Tensor]:
    """Split an image into frequency bands, one octave each.

    Args:
        image: `[B, C, H, W]`, any range.
        levels: number of bands, >= 1; 1 gives the image itself.

    Returns:
        `levels` tensors of the sizes of `gaussian_pyramid`, finest first; the last is the low-pass rest.
    """
    reduced = gaussian_pyramid(image, levels)
    bands = [fine - _expand(coarse, fine) for fine, coarse in pairwise(reduced)]
    return [*bands, reduced[-1]]


def collapse(bands: Sequence[Tensor]) -> Tensor:
    """Join bands to an image: the inverse of `decompose`.

    Args:
        bands: at least one, finest first, of the sizes that `decompose` gives.

    Returns:
        `[B, C, H, W]` of the size of the first band.
    """
    image = bands[-1]
    for band in reversed(bands[:-1]):
        image = band + _expand(image, band)
    return image


def _expand(coarse: Tensor, fine: Tensor) -> Tensor:
    return resample(coarse, (fine.shape[-2], fine.shape[-1]), "bilinear")


def weighed_rows(image: Rows, weights: Sequence[float | Tensor], rows: slice) -> Tensor:
    """Some rows of Σ w_l·band_l, the bands of `decompose` each times a number and joined again.

    Args:
        image: rows of an image, at least those of `rows_to_weigh`; of columns of it, the outermost of the result are
            wrong, as many as `rows_to_weigh` asks for rows beyond those wanted.
        weights: one for each band, finest first.
        rows: which are wanted.

    Returns:
        `[B, C, rows, W]`.
    """
    heights, expanded, reduced = _plan(image.height, len(weights), rows)
    levels = [image]
    for level in range(1, len(weights)):
        fine = levels[-1]
        size, columns = (heights[level], (fine.width + 1) // 2), _halved(fine)
        pixels = resample_rows(fine, size, reduced[level], "bilinear", columns)
        levels.append(Rows(pixels, reduced[level].start, heights[level], columns.start, size[1]))
    result = weights[-1] * levels[-1].part(expanded[-1])
    for fine, coarse, weight, wanted, below in reversed(
        list(zip(levels, levels[1:], weights, expanded, expanded[1:], strict=False))
    ):
        # w·(fine - up(coarse)) + up(result): one resampling of the difference does for both
        rest = replace(coarse, pixels=_plus(result, -weight, coarse.part(below)), start=below.start)
        up = resample_rows(rest, (fine.height, fine.width), wanted, "bilinear", fine.columns)
        result = _plus(up, weight, fine.part(wanted))
    return result


def _plus(image: Tensor, weight: float | Tensor, other: Tensor) -> Tensor:
    """image + weight · other, in one pass where the weight is a number."""
    if isinstance(weight, Tensor):
        return image + weight * other
    return torch.add(image, other, alpha=weight)


def _halved(image: Rows) -> slice:
    """The columns of an image's reduction that are made of those that are there."""
    columns = image.columns
    return slice(columns.start // 2, (columns.stop + 1) // 2)


def rows_to_weigh(height: int, levels: int, rows: slice) -> slice:
    """The rows of an image `height` high that `weighed_rows` needs for some rows."""
    return _plan(height, levels, rows)[2][0]


def _plan(height: int, levels: int, rows: slice) -> tuple[list[int], list[slice], list[slice]]:
    """Heights of the levels, the rows of each that the result takes, and those that must be made for that."""
    heights, taken = [height], [rows]
    for _ in range(levels - 1):
        heights.append((heights[-1] + 1) // 2)
        taken.append(rows_for(heights[-1], heights[-2], taken[-1], "bilinear"))
    made = [taken[-1]]
    for level in reversed(range(levels - 1)):
        source = rows_for(heights[level], heights[level + 1], made[0], "bilinear")
        made.insert(0, slice(min(taken[level].start, source.start), max(taken[level].stop, source.stop)))
    return heights, taken, made
