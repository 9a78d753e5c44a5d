"""Laplacian pyramid for images of any size, exact to rounding (Burt and Adelson 1983)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from .resample import resample


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
