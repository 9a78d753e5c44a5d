"""A small picture of a large one, to be looked at while the work goes on."""

from __future__ import annotations

from torch import Tensor

from .resample import resample

PREVIEW_SIDE = 512


def preview_size(height: int, width: int) -> tuple[int, int]:
    """(height, width) of an image's preview, at most PREVIEW_SIDE a side."""
    factor = min(PREVIEW_SIDE / max(height, width), 1.0)
    return max(round(height * factor), 1), max(round(width * factor), 1)


def preview_of(image: Tensor) -> Tensor:
    """The first image, RGB or grey, at most PREVIEW_SIDE pixels a side."""
    return resample(image[:1, :3], preview_size(*image.shape[-2:]), "bilinear")


class GrowingPreview:
    """The preview of a result that is made column by column: what it is made from, until it is there.

    Args:
        image: [B, C, H, W] what it is made from.
        size: (height, width) of the result.
    """

    def __init__(self, image: Tensor, size: tuple[int, int]) -> None:
        self._width = size[1]
        self._shown = resample(image[:1, :3], preview_size(*size), "bilinear")

    def now(self) -> Tensor:
        """The preview so far."""
        return self._shown.clone()

    def add(self, result: Tensor, columns: slice) -> None:
        """Takes over columns of the result, [B, C, *size], that are there now."""
        height, width = self._shown.shape[-2:]
        to = slice(*(round(at * width / self._width) for at in (columns.start, columns.stop)))
        if to.start < to.stop:
            part = resample(result[:1, :3, :, columns], (height, to.stop - to.start), "bilinear")
            self._shown[:, :, :, to] = part
