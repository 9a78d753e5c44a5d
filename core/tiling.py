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

    Memory is set by the tile alone: of a batch, as many images run at once as fit into the area of one tile with
    its surroundings.

    Args:
        function: takes as many crops [B, C_i, h, w] as there are images, returns [B, C, h * scale, w * scale].
        images: [B, C_i, H, W], all of the same B, H and W.
        scale: how much larger the output is than the input.
        halo: input pixels of context the function needs.
        align: its crops begin at multiples of this many input pixels.
        tile: side of a tile in input pixels, rounded up to a multiple of `align`; None runs all at once.
        on_tile: called with (runs done, runs in all) after each run of the function; may raise to cancel.

    Returns:
        [B, C, H * scale, W * scale] on the device of the first image.

    Raises:
        TypeError, ValueError: the images differ in size, there are none, or `tile` is no positive integer.
    """
    if len(images) == 0 or 0 in images[0].shape:
        raise ValueError(f"images: expected at least one pixel, got {[tuple(image.shape) for image in images]}")
    B, _, H, W = images[0].shape
    for i, image in enumerate(images):
        if (image.shape[0], *image.shape[2:]) != (B, H, W):
            raise ValueError(f"images[{i}]: expected [{B}, C, {H}, {W}] as images[0], got {tuple(image.shape)}")
    if tile is None:
        plan, group = [_whole(H, W)], B
    else:
        check_integer(tile, "tile", minimum=1)
        fits = tile >= H and tile >= W
        plan = [_whole(H, W)] if fits else list(tiles(H, W, tile, halo, align))
        group = _group(plan, tile + 2 * (halo + align))
    if len(plan) == 1 and group >= B:
        result = function(*images)
        if on_tile is not None:
            on_tile(1, 1)
        return result
    runs = [(part, slice(first, min(first + group, B))) for first in range(0, B, group) for part in plan]
    result = torch.empty(0)  # its channels and format are known after the first run
    for done, (part, batch) in enumerate(runs, 1):
        rows, columns = part.read
        out = function(*(image[batch, :, rows, columns] for image in images))
        if done == 1:
            result = torch.empty(B, out.shape[1], H * scale, W * scale, dtype=out.dtype, device=images[0].device)
        kept_rows, kept_columns = part.keep
        result[batch, :, _scaled(kept_rows, 0, scale), _scaled(kept_columns, 0, scale)] = out[
            ..., _scaled(kept_rows, rows.start, scale), _scaled(kept_columns, columns.start, scale)
        ]
        if on_tile is not None:
            on_tile(done, len(runs))
    return result


def _whole(height: int, width: int) -> Tile:
    everything = (slice(0, height), slice(0, width))
    return Tile(everything, everything)


def _group(plan: Sequence[Tile], side: int) -> int:
    """How many crops of the largest tile have the area of `side`², at least one."""
    area = max((rows.stop - rows.start) * (columns.stop - columns.start) for rows, columns in (t.read for t in plan))
    return max(side * side // area, 1)


def _scaled(part: slice, origin: int, scale: int) -> slice:
    return slice((part.start - origin) * scale, (part.stop - origin) * scale)
