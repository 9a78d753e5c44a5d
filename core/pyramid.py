"""Laplacian pyramid for images of any size, exact to rounding (Burt and Adelson 1983)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

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
        image: rows of an image, at least those of `rows_to_weigh`.
        weights: one for each band, finest first.
        rows: which are wanted.

    Returns:
        `[B, C, rows, W]`.
    """
    heights, expanded, reduced = _plan(image.height, len(weights), rows)
    widths = [image.pixels.shape[3]]
    levels = [image]
    for level in range(1, len(weights)):
        widths.append((widths[-1] + 1) // 2)
        pixels = resample_rows(levels[-1], (heights[level], widths[level]), reduced[level], "bilinear")
        levels.append(Rows(pixels, reduced[level].start, heights[level]))
    result = Rows(weights[-1] * levels[-1].part(expanded[-1]), expanded[-1].start, heights[-1])
    for level in reversed(range(len(weights) - 1)):
        size, wanted = (heights[level], widths[level]), expanded[level]
        # w·(fine - up(coarse)) + up(result): one resampling of the difference does for both
        rest = result.pixels - weights[level] * levels[level + 1].part(expanded[level + 1])
        up = resample_rows(Rows(rest, result.start, result.height), size, wanted, "bilinear")
        result = Rows(weights[level] * levels[level].part(wanted) + up, wanted.start, heights[level])
    return result.pixels


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
