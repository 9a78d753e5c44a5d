"""Degradation of training and benchmark pictures: MATLAB's imresize."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..checks import check_number, check_size
from ..separable import Axis, resize_axis

_TIE = 1e-9  # decides exact halves upward, as MATLAB rounds, whatever the order of summation made of them


def matlab_imresize(image: Tensor, size: tuple[int, int] | None = None, scale: float | None = None) -> Tensor:
    """Resize as MATLAB's `imresize(image, …, "bicubic")` does, bit for bit on 8-bit pictures.

    Cubic kernel with a = -0.5, antialiased when reducing, symmetric edges, the axis with the smaller scale
    first (rows when they are equal). This is the reduction of the published super-resolution benchmarks.

    Args:
        image: `[B, C, H, W]`, uint8 (rounded and clipped after each of the two passes, as MATLAB does) or
            float of any range (never rounded nor clipped; half precision is computed in float32).
        size: (height, width) of the result; exactly one of size and scale is given.
        scale: factor for both axes, > 0; the result has ceil(scale · side) pixels.

    Returns:
        `[B, C, H', W']` of the input's dtype.

    Raises:
        TypeError: not a tensor of uint8 or float.
        ValueError: not four axes or an axis of length 0; both or none of size and scale; a bad size or scale.
    """
    if not isinstance(image, Tensor) or not (image.dtype == torch.uint8 or image.is_floating_point()):
        got = image.dtype if isinstance(image, Tensor) else type(image).__name__
        raise TypeError(f"image: expected a uint8 or float tensor [B, C, H, W], got {got}")
    if image.ndim != 4 or 0 in image.shape:
        raise ValueError(f"image: expected [B, C, H, W] with no axis of length 0, got {tuple(image.shape)}")
    H, W = image.shape[-2:]
    if size is not None and scale is None:
        check_size(size)
        height, width = int(size[0]), int(size[1])
        scales = (height / H, width / W)
    elif scale is not None and size is None:
        check_number(scale, "scale", above=0)
        height, width = math.ceil(scale * H), math.ceil(scale * W)
        check_size((height, width), "scale · image size")
        scales = (float(scale), float(scale))
    else:
        raise ValueError(f"size, scale: expected exactly one of them, got size={size}, scale={scale}")
    steps = [
        (2, Axis(H, height, scales[0], "bicubic", mirror=True)),
        (3, Axis(W, width, scales[1], "bicubic", mirror=True)),
    ]
    is_8bit = image.dtype == torch.uint8
    pixels = image.to(_working_dtype(image.dtype)).contiguous()
    for dim, axis in sorted(steps, key=lambda step: step[1].scale):
        pixels = resize_axis(pixels, dim, axis)
        if is_8bit:
            pixels = pixels.add_(0.5 + _TIE).floor_().clamp_(0.0, 255.0)
    return pixels.to(image.dtype)


def _working_dtype(dtype: torch.dtype) -> torch.dtype:
    if dtype == torch.uint8:
        return torch.float64
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
