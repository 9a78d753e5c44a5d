"""Work on some rows of an image at a time, for images too large to be in memory several times over.

Whatever looks at neighbours asks for the rows it needs, on the grid of the whole image, so that the bands of rows
together are exactly what the whole image would have given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .separable import Axis, resize_axis, source_of

BAND_PIXELS = 1 << 18  # that a CPU works on at a time, see `tiling.band_pixels`


@dataclass(frozen=True)
class Rows:
    """Some rows of an image, or of some columns of it.

    Attributes:
        pixels: `[B, C, rows, W]`.
        start: number of the first one.
        height: rows of the whole image.
        left: number of the first column.
        whole_width: columns of the whole image, None for those of `pixels`.
    """

    pixels: Tensor
    start: int
    height: int
    left: int = 0
    whole_width: int | None = None

    @property
    def width(self) -> int:
        """Columns of the whole image."""
        return self.pixels.shape[3] if self.whole_width is None else self.whole_width

    @property
    def columns(self) -> slice:
        """Which columns of the whole image these are."""
        return slice(self.left, self.left + self.pixels.shape[3])

    def part(self, rows: slice) -> Tensor:
        """Those of them that are numbered so in the whole image."""
        return self.pixels[:, :, rows.start - self.start : rows.stop - self.start]


def bands(height: int, rows: int) -> Iterator[slice]:
    """The rows of an image in bands, from the top down."""
    for start in range(0, height, rows):
        yield slice(start, min(start + rows, height))


def images_at_a_time(count: int, pixels: int, band: int) -> Iterator[slice]:
    """The images of a batch, of so many pixels each, in groups that fit into a band; an image at least."""
    return bands(count, max(band // pixels, 1))


def rows_for(height: int, target: int, rows: slice, method: str) -> slice:
    """The rows of an image `height` high that some rows of it at `target` are made of."""
    return source_of(_axis(height, target, method), rows)


def resample_rows(
    image: Rows, size: tuple[int, int], rows: slice, method: str, columns: slice | None = None
) -> Tensor:
    """Some rows of a resampled image, as `resample` gives them up to rounding.

    Args:
        image: float32 or float64 rows, at least those of `rows_for`; what lies in columns that are not there is left
            out, so that the result's outermost columns are wrong then.
        size: (height, width) of the whole result.
        rows: which are wanted.
        method: "bilinear", "bicubic" or "lanczos".
        columns: which are wanted; None for all.

    Returns:
        `[B, C, rows, columns]`, not clamped.
    """
    height, width = size
    pixels = image.pixels.contiguous()
    if image.height == height:
        pixels = image.part(rows).contiguous()
    else:
        pixels = resize_axis(pixels, 2, _axis(image.height, height, method), rows, image.start)
    if image.width != width:
        return resize_axis(pixels, 3, _axis(image.width, width, method), columns, image.left)
    return pixels if columns is None else pixels[..., columns.start - image.left : columns.stop - image.left]


def rows_at(image: Tensor, size: tuple[int, int], rows: slice) -> Tensor:
    """Some rows of an image brought to a size by bicubic, made of no more of it than they need.

    Args:
        image: `[B, C, H, W]`, float32 or float64.
        size: (height, width) of the whole result.
        rows: which are wanted.

    Returns:
        `[B, C, rows, width]`, not clamped.
    """
    height = image.shape[2]
    needed = rows_for(height, size[0], rows, "bicubic")
    return resample_rows(Rows(image[:, :, needed], needed.start, height), size, rows, "bicubic")


class Original:
    """An image as it was, while results overwrite it from the top down: it keeps the rows still asked for.

    Args:
        image: `[B, C, H, W]`. Rows may be overwritten once they have been read, up to the end of what was read.
    """

    def __init__(self, image: Tensor) -> None:
        self._image, self._kept, self._start = image, image[:, :, :0], 0

    def read(self, rows: slice) -> Tensor:
        """Some rows, `[B, C, rows, W]`; none above the start of those that were read before."""
        below = self._start + self._kept.shape[2]
        kept = self._kept[:, :, rows.start - self._start :]
        self._kept = torch.cat([kept, self._image[:, :, max(below, rows.start) : rows.stop]], 2)
        self._start = rows.start
        return self._kept


def _axis(length: int, target: int, method: str) -> Axis:
    return Axis(length, target, target / length, method)
