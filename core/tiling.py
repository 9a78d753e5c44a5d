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
from typing import Any

import torch
from torch import Tensor

from .checks import check_integer
from .rows import BAND_PIXELS, Original

MINIMUM_TILE = 64  # below this the halo costs more than the tile
DEFAULT_BUDGET = 1 << 30  # bytes of working memory for one tile, at most
FREE_SHARE = 0.5  # of the memory that a device has free: whole images are to come, too
BAND_BYTES = 256  # of working memory for each pixel of a band: skip and fusion hold some 60 numbers at once


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
    down, across = (_step(side, tile, align) for side in (height, width))
    for top in range(0, height, down):
        for left in range(0, width, across):
            bottom, right = min(top + down, height), min(left + across, width)
            keep = slice(top, bottom), slice(left, right)
            yield Tile((aligned(keep[0], height, halo, align), aligned(keep[1], width, halo, align)), keep)


def aligned(keep: slice, size: int, halo: int, align: int) -> slice:
    """What must be read of an axis of `size` pixels for what is kept: the halo more, on the grid."""
    # The far end is aligned too, so that a network that pads its input pads only at the image's own border.
    first = max(keep.start - halo, 0) // align * align
    return slice(first, min(math.ceil((keep.stop + halo) / align) * align, size))


def _step(side: int, tile: int, align: int) -> int:
    # As few tiles as the largest one allows, of about the same size: a narrow last one is mostly halo.
    count = math.ceil(side / (math.ceil(tile / align) * align))
    return math.ceil(side / count / align) * align


def working_memory(device: torch.device) -> float:
    """Bytes that a tile may take on a device: DEFAULT_BUDGET, or less where less is free and the device tells."""
    module: Any = getattr(torch, device.type, None)
    if not hasattr(module, "mem_get_info"):  # a GPU's module has it
        return DEFAULT_BUDGET
    unused, _ = module.mem_get_info(device)
    kept = module.memory_reserved(device) - module.memory_allocated(device)  # by torch, from what was freed
    return min(FREE_SHARE * (unused + kept), DEFAULT_BUDGET)


def band_pixels(device: torch.device) -> int:
    """How many pixels the work after the networks takes at a time.

    On a CPU as many as its caches hold; elsewhere as many as fit into `working_memory`: few large pieces are faster.
    """
    if device.type == "cpu":
        return BAND_PIXELS
    return max(int(working_memory(device)) // BAND_BYTES, BAND_PIXELS)


def auto_tile(
    bytes_per_pixel: float,
    halo: int,
    align: int = 1,
    budget: float = DEFAULT_BUDGET,
    whole: tuple[int, int] | None = None,
) -> int:
    """Side of the largest tile whose working memory, halo included, fits into a budget.

    Args:
        bytes_per_pixel: working memory a network needs for each input pixel.
        halo, align: as `tiles`.
        budget: bytes.
        whole: (height, width) of what is to be tiled: if all of it fits, no halo is needed.

    Returns:
        A multiple of `align`, at least MINIMUM_TILE; the longer side of an image that fits.
    """
    pixels = max(budget, 0.0) / max(bytes_per_pixel, 1e-9)
    if whole is not None and math.prod(whole) <= pixels:
        return max(*whole, int(math.sqrt(pixels)))  # no less, so that small images of a batch run together
    side = int(math.sqrt(pixels)) - 2 * (halo + align)
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
    out: Tensor | None = None,
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
        out: takes the result; may be one of the images, where scale is 1, and then the picture is not in memory twice.

    Returns:
        [B, C, H * scale, W * scale] on the device of the first image; `out`, if it is given.

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
        return result if out is None else out.copy_(result)
    runs, done = len(plan) * math.ceil(B / group), 0
    result = torch.empty(0) if out is None else out  # its channels and format are known after the first run
    for first in range(0, B, group):
        batch = slice(first, min(first + group, B))
        readers = [_reader(image[batch], shares_memory(image, out)) for image in images]
        strips: list[Tensor] = []
        for part in plan:
            if part.keep[1].start == 0:  # a new row of tiles
                strips = [read(part.read[0]) for read in readers]
            found = function(*(strip[..., part.read[1]] for strip in strips))
            if out is None and done == 0:
                shape = (B, found.shape[1], H * scale, W * scale)
                result = torch.empty(shape, dtype=found.dtype, device=images[0].device)
            to, of = zip(*(_scaled(*pair, scale) for pair in zip(part.keep, part.read, strict=True)), strict=True)
            result[batch, :, to[0], to[1]] = found[..., of[0], of[1]]
            done += 1
            if on_tile is not None:
                on_tile(done, runs)
    return result


def _reader(image: Tensor, overwritten: bool) -> Callable[[slice], Tensor]:
    """A function that gives some rows of an image, as it was even when results overwrite it."""
    return Original(image).read if overwritten else lambda rows: image[:, :, rows]


def shares_memory(image: Tensor, out: Tensor | None) -> bool:
    """Whether results that are written to `out` overwrite the image."""
    return out is not None and image.untyped_storage().data_ptr() == out.untyped_storage().data_ptr()


def _whole(height: int, width: int) -> Tile:
    everything = (slice(0, height), slice(0, width))
    return Tile(everything, everything)


def _group(plan: Sequence[Tile], side: int) -> int:
    """How many crops of the largest tile have the area of `side`², at least one."""
    area = max((rows.stop - rows.start) * (columns.stop - columns.start) for rows, columns in (t.read for t in plan))
    return max(side * side // area, 1)


def _scaled(keep: slice, read: slice, scale: int) -> tuple[slice, slice]:
    """Where what a tile keeps lies in the result, and where in the tile's own result."""
    to = slice(keep.start * scale, keep.stop * scale)
    return to, slice(to.start - read.start * scale, to.stop - read.start * scale)
