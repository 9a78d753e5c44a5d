"""Exact tiling: the picture of tiles is the picture, not a blend of overlapping guesses.

A network with a finite receptive field gives the same output for a pixel whether it sees the whole image or a crop
that reaches `halo` pixels further on every side. So each tile is computed with its halo, the halo is cut off, and
nothing is left to hide. Two conditions: crops begin at multiples of the network's `align`, so that its windows lie
on the same grid; and at the image's border the crop ends where the image ends, so that padding is the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .checks import check_integer

MINIMUM_TILE = 64  # below this the halo costs more than the tile
DEFAULT_BUDGET = 1 << 30  # bytes of working memory for one tile where nobody knows better


@dataclass(frozen=True)
class Tile:
    """One tile of one axis pair, in input pixels: what to read and what of it to keep."""

    read: tuple[slice, slice]
    keep: tuple[slice, slice]


def tiles(height: int, width: int, tile: int, halo: int, align: int = 1) -> Iterator[Tile]:
    """The tiles of an image, row by row.

    Args:
        height, width: size of the image in pixels.
        tile: side of what a tile keeps, rounded up to a multiple of `align`.
        halo: pixels of context on every side.
        align: reads begin at multiples of this.
    """
    step = math.ceil(tile / align) * align
    for top in range(0, height, step):
        for left in range(0, width, step):
            bottom, right = min(top + step, height), min(left + step, width)
            rows = _read(top, bottom, height, halo, align)
            columns = _read(left, right, width, halo, align)
            yield Tile((rows, columns), (slice(top, bottom), slice(left, right)))


def _read(start: int, stop: int, size: int, halo: int, align: int) -> slice:
    # The far end is aligned too, so that a network that pads its input pads only at the image's own border.
    first = max(start - halo, 0) // align * align
    last = min(math.ceil((stop + halo) / align) * align, size)
    return slice(first, last)


def auto_tile(bytes_per_pixel: float, halo: int, align: int = 1, budget: float = DEFAULT_BUDGET) -> int:
    """Side of the largest tile whose working memory, halo included, fits into a budget.

    Args:
        bytes_per_pixel: working memory a network needs for each input pixel.
        halo, align: as `tiles`.
        budget: bytes.

    Returns:
        A multiple of `align`, at least MINIMUM_TILE.
    """
    side = int(math.sqrt(max(budget, 0.0) / max(bytes_per_pixel, 1e-9))) - 2 * (halo + align)
    return max(math.ceil(MINIMUM_TILE / align), side // align) * align


def run_tiled(
    function: Callable[..., Tensor],
    images: Sequence[Tensor],
    *,
    scale: int = 1,
    halo: int,
    align: int = 1,
    tile: int | None = None,
    on_tile: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Runs a function over images tile by tile; equal to running it on the whole.

    Args:
        function: takes as many crops [B, C_i, h, w] as there are images, returns [B, C, h * scale, w * scale].
        images: [B, C_i, H, W], all of the same B, H and W.
        scale: how much larger the output is than the input.
        halo: input pixels of context the function needs.
        align: its crops begin at multiples of this many input pixels.
        tile: side of a tile in input pixels; None, or a tile that the image fits in, runs the whole at once.
        on_tile: called with (tiles done, tiles in all) after each; may raise to cancel.

    Returns:
        [B, C, H * scale, W * scale] on the device of the first image.

    Raises:
        ValueError: the images differ in size, or `tile` is not positive.
    """
    B, _, H, W = images[0].shape
    for i, image in enumerate(images):
        if (image.shape[0], *image.shape[2:]) != (B, H, W):
            raise ValueError(f"images[{i}]: expected [{B}, C, {H}, {W}] as images[0], got {tuple(image.shape)}")
    if tile is not None:
        check_integer(tile, "tile", minimum=1)
    if tile is None or (tile >= H and tile >= W):
        result = function(*images)
        if on_tile is not None:
            on_tile(1, 1)
        return result
    plan = list(tiles(H, W, tile, halo, align))
    result: Tensor | None = None
    for done, part in enumerate(plan, 1):
        rows, columns = part.read
        out = function(*(image[..., rows, columns] for image in images))
        if result is None:
            result = torch.empty(B, out.shape[1], H * scale, W * scale, dtype=out.dtype, device=images[0].device)
        kept_rows, kept_columns = part.keep
        result[..., _scaled(kept_rows, 0, scale), _scaled(kept_columns, 0, scale)] = out[
            ..., _scaled(kept_rows, rows.start, scale), _scaled(kept_columns, columns.start, scale)
        ]
        if on_tile is not None:
            on_tile(done, len(plan))
    if result is None:
        raise ValueError(f"images: expected at least one pixel, got {tuple(images[0].shape)}")
    return result


def _scaled(part: slice, origin: int, scale: int) -> slice:
    return slice((part.start - origin) * scale, (part.stop - origin) * scale)
