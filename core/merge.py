"""Learned skip and fusion, the end of a stage, in bands of rows: whole images are never in memory several times over.

The graph of separate nodes runs them one after the other, the chain both at once, which gives the same numbers: to the
bit in an image of one band, up to rounding in a larger one. The net of the fusion computes in the format of the
autocast around it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from .checks import check_size
from .dynamic_weights import DynamicWeights
from .fusion import blend
from .pyramid import rows_to_weigh, weighed_rows
from .residual import check_pair
from .rows import Original, Rows, bands, images_at_a_time, rows_at
from .tiling import aligned, band_pixels, shares_memory
from .transparency import spread_colour

OnBand = Callable[[int, int], None]


def skip_in_bands(
    current: Tensor,
    previous: Tensor,
    weights: Sequence[float],
    *,
    band: int | None = None,
    on_band: OnBand | None = None,
) -> Tensor:
    """`core.residual.skip` in mode "weighted", written over the current image.

    Args:
        current: `[B, C, H, W]` float32 in 0..1, C of 1, 3 or 4; overwritten.
        previous: `[B, C, H', W']` float32 in 0..1, any size; brought to H×W by bicubic.
        weights: one in 0..1 for each band of a Laplacian pyramid, finest first; all 0 change nothing.
        band: pixels that are worked on at a time, of whole images as long as they fit; no effect on the result. None
            for `tiling.band_pixels`.
        on_band: called with (rows done, rows in all) after each band; may raise to cancel.

    Returns:
        `current`.

    Raises:
        TypeError, ValueError: wrong images.
    """
    check_pair(current, previous)
    B, _, H, W = current.shape
    if not any(weights):
        return current.clamp_(0, 1)
    band = band_pixels(current.device) if band is None else band
    spread_colour(current, overwrite=True)
    previous = spread_colour(previous)
    for some in images_at_a_time(B, H * W, band):
        target, source = current[some], previous[some]
        original = Original(target)
        for rows in bands(H, max(band // (len(target) * W), 1)):
            read = rows_to_weigh(H, len(weights), rows)
            now = Rows(original.read(read), read.start, H)
            target[:, :, rows] = skipped(now, rows_at(source, (H, W), read).clamp(0, 1), weights, rows)
            if on_band is not None:
                on_band(some.start * H + len(target) * rows.stop, B * H)
    return current


def fuse_in_bands(
    images: Sequence[Tensor],
    model: DynamicWeights,
    out: Tensor,
    maps: Tensor | None = None,
    *,
    band: int | None = None,
    on_band: OnBand | None = None,
) -> Tensor:
    """`core.fusion.fuse` in mode "learned".

    Args:
        images: at least two `[B, 3, H_i, W_i]` float32 in 0..1, any sizes, coarse to fine.
        model: weighs them.
        out: takes the result, `[B, 3, H, W]`; may be one of the images, if it has this size.
        maps: takes the weights, `[B, N, H, W]`; None leaves them out.
        band: pixels of the result that are worked on at a time, of whole images as long as they fit; no effect on the
            result. None for `tiling.band_pixels`.
        on_band: called with (rows done, rows in all) after each band; may raise to cancel.

    Returns:
        `out`.

    Raises:
        TypeError, ValueError: wrong images.
    """
    B, _, H, W = out.shape
    band = band_pixels(out.device) if band is None else band
    check_size((H, W))
    for i, image in enumerate(images):
        if tuple(image.shape[:2]) != (B, 3):  # images beyond those of `out` would not be seen to be there
            raise ValueError(f"images[{i}]: expected [{B}, 3, H, W], got {tuple(image.shape)}")
    for some in images_at_a_time(B, H * W, band):
        target = out[some]
        original = Original(target)
        for rows in bands(H, max(band // (len(target) * W) // model.align, 1) * model.align):
            seen = aligned(rows, H, model.halo, model.align)
            scaled = [
                original.read(seen) if shares_memory(image, out) else rows_at(image[some], (H, W), seen).clamp(0, 1)
                for image in images
            ]
            target[:, :, rows], weights = fused(scaled, model, seen, rows)
            if maps is not None:
                maps[some, :, rows] = weights
            if on_band is not None:
                on_band(some.start * H + len(target) * rows.stop, B * H)
    return out


def merge_in_bands(
    current: Tensor,
    previous: Tensor,
    weights: Sequence[float],
    model: DynamicWeights,
    *,
    band: int | None = None,
    on_band: OnBand | None = None,
) -> Tensor:
    """`skip_in_bands`, then `fuse_in_bands` with the previous image, which is enlarged once for both.

    Args:
        current: `[B, 3, H, W]` float32 in 0..1; overwritten.
        previous: `[B, 3, H', W']` float32 in 0..1, any size.
        weights, model, band, on_band: as there.

    Returns:
        `current`.
    """
    B, _, H, W = current.shape
    band = band_pixels(current.device) if band is None else band
    for some in images_at_a_time(B, H * W, band):
        target, source = current[some], previous[some]
        original = Original(target)
        for rows in bands(H, max(band // (len(target) * W) // model.align, 1) * model.align):
            read = rows_to_merge(H, weights, model, rows)
            now = Rows(original.read(read), read.start, H)
            target[:, :, rows] = merged(now, rows_at(source, (H, W), read).clamp(0, 1), weights, model, rows)
            if on_band is not None:
                on_band(some.start * H + len(target) * rows.stop, B * H)
    return current


def rows_to_merge(height: int, weights: Sequence[float], model: DynamicWeights, rows: slice) -> slice:
    """The rows of an image `height` high that `merged` needs for some rows."""
    seen = aligned(rows, height, model.halo, model.align)
    return rows_to_weigh(height, len(weights), seen) if any(weights) else seen


def merged(now: Rows, before: Tensor, weights: Sequence[float], model: DynamicWeights, rows: slice) -> Tensor:
    """Some rows of `merge_in_bands`.

    Args:
        now: of the current image, those of `rows_to_merge`; of columns of it, the outermost of the result are wrong.
        before: the same rows of the previous image at this size, in 0..1 again.
        weights, model: as there.
        rows: which are wanted, on the model's grid.

    Returns:
        `[B, 3, rows, W]` in 0..1.
    """
    seen = aligned(rows, now.height, model.halo, model.align)
    kept = skipped(now, before, weights, seen) if any(weights) else now.part(seen)
    return fused([replace(now, pixels=before).part(seen), kept], model, seen, rows)[0]


def skipped(now: Rows, before: Tensor, weights: Sequence[float], rows: slice) -> Tensor:
    """Some rows of `core.residual.skip` in mode "weighted".

    Args:
        now: of the current image, those of `rows_to_weigh`; of columns of it, the outermost of the result are wrong.
        before: the same rows of the previous image at this size, in 0..1 again.
        weights: as `skip_in_bands`.
        rows: which are wanted.

    Returns:
        `[B, C, rows, W]` in 0..1.
    """
    change = replace(now, pixels=before - now.pixels)
    return weighed_rows(change, weights, rows).add_(now.part(rows)).clamp_(0, 1)


def fused(scaled: Sequence[Tensor], model: DynamicWeights, seen: slice, rows: slice) -> tuple[Tensor, Tensor]:
    """Some rows of `core.fusion.fuse` in mode "learned", and their weights.

    Args:
        scaled: rows of images of one size, `[B, 3, rows, W]` in 0..1: bicubic overshoots at edges.
        model: weighs them.
        seen: which rows these are: at least the model's halo more than are wanted, on its grid.
        rows: which are wanted.

    Returns:
        `[B, 3, rows, W]` in 0..1 and `[B, N, rows, W]`.
    """
    kept = slice(rows.start - seen.start, rows.stop - seen.start)
    weights = model(scaled)[:, :, kept]
    return blend([image[:, :, kept] for image in scaled], weights).clamp_(0, 1), weights
