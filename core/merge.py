"""The end of a stage, residual skip and fusion, in bands of rows and in place.

The arithmetic is that of `core.residual.skip` in mode "weighted" followed by `core.fusion.fuse` in mode "learned" of
the image before and the current one; the picture is in memory once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .dynamic_weights import DynamicWeights
from .pyramid import rows_to_weigh, weighed_rows
from .rows import Original, Rows, bands, resample_rows, rows_for
from .tiling import aligned

BAND_PIXELS = 1 << 20  # some 60 numbers for each are alive at once


def merge(
    current: Tensor,
    previous: Tensor,
    weights: Sequence[float],
    model: DynamicWeights | None,
    *,
    band: int = BAND_PIXELS,
    on_band: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Brings bands of the previous image back into the current one, and fuses the two.

    Args:
        current: `[B, C, H, W]` float32 in 0..1, C of 1, 3 or 4; overwritten. Alpha stays as it is.
        previous: `[B, C, H', W']` float32 in 0..1, any size; brought to H×W by bicubic.
        weights: of the skip, one in 0..1 for each band of a Laplacian pyramid, finest first.
        model: of the fusion; None for none.
        band: pixels that are worked on at a time, of all images together; no effect on the result.
        on_band: called with (rows done, rows in all) after each band; may raise to cancel.

    Returns:
        `current`.
    """
    skips = any(weights)
    if not skips and model is None:
        return current
    colours = min(current.shape[1], 3)
    image, source = current[:, :colours], previous[:, :colours]
    B, _, H, W = image.shape
    original = Original(image)
    halo, align = (0, 1) if model is None else (model.halo, model.align)
    for rows in bands(H, max(band // (B * W) // align, 1) * align):
        seen = aligned(rows, H, halo, align)
        read = rows_to_weigh(H, len(weights), seen) if skips else seen
        now = Rows(original.read(read), read.start, H)
        before = _enlarged(source, (H, W), read)
        result, old = now.part(seen), before.part(seen)
        if skips:
            change = Rows(before.pixels - now.pixels, read.start, H)
            result = (result + weighed_rows(change, weights, seen)).clamp_(0, 1)
        if model is not None:
            pair = torch.stack([old, result], 1).expand(-1, -1, 3, -1, -1)
            result = (result + model(pair)[:, :1] * (old - result)).clamp_(0, 1)
        image[:, :, rows] = Rows(result, seen.start, H).part(rows)
        if on_band is not None:
            on_band(rows.stop, H)
    return current


def _enlarged(image: Tensor, size: tuple[int, int], rows: slice) -> Rows:
    height = image.shape[2]
    needed = rows_for(height, size[0], rows, "bicubic")
    part = Rows(image[:, :, needed], needed.start, height)
    return Rows(resample_rows(part, size, rows, "bicubic").clamp_(0, 1), rows.start, size[0])
