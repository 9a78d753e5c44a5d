"""Classical resampling: nearest, bilinear, bicubic and Lanczos, up and down."""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import check_choice, check_image, check_size
from .separable import Axis, resize_axis

METHODS = ("nearest", "bilinear", "bicubic", "lanczos")


def resample(image: Tensor, size: tuple[int, int], method: str = "bicubic", antialias: bool = True) -> Tensor:
    """Resample an image to an exact size.

    Pixel centres lie at half-integers (`align_corners=False`). Bicubic is Keys' kernel with a = -0.5, up and
    down, with or without antialiasing; Lanczos has three lobes. At the border, weights outside the image are
    dropped and the rest normalised. The results agree with PIL's `Image.resize` on float images.

    Args:
        image: `[B, C, H, W]`, any float dtype, any range, any number of channels. Half precision is computed
            in float32.
        size: (height, width) of the result in pixels.
        method: "nearest", "bilinear", "bicubic" or "lanczos".
        antialias: when reducing, widen the kernel so that every input pixel counts; no effect on enlarging
            and on "nearest".

    Returns:
        `[B, C, height, width]` of the input's dtype, not clamped (bicubic and Lanczos overshoot at edges).
        At the input's own size an exact copy. Differentiable.

    Raises:
        TypeError, ValueError: as `check_image`, `check_size` and `check_choice`.

    Example:
        >>> resample(torch.rand(1, 3, 33, 47), (66, 94)).shape
        torch.Size([1, 3, 66, 94])
    """
    check_image(image, channels=None)
    check_size(size)
    check_choice(method, "method", METHODS)
    height, width = int(size[0]), int(size[1])
    H, W = image.shape[-2:]
    if (height, width) == (H, W):
        return image.clone()
    if method == "nearest":
        rows, columns = _nearest(H, height, image.device), _nearest(W, width, image.device)
        # gather, because index_select along the last axis is twenty times slower.
        return image.gather(3, columns.expand(*image.shape[:3], width)).index_select(2, rows)
    pixels = image.float() if image.dtype in (torch.float16, torch.bfloat16) else image
    pixels = pixels.contiguous()
    steps = [
        (2, Axis(H, height, height / H, method, antialias)),
        (3, Axis(W, width, width / W, method, antialias)),
    ]
    # The axis that grows least goes first, so that the image in between is the smaller one.
    for dim, axis in sorted(steps, key=lambda step: step[1].scale):
        if axis.length != axis.target:
            pixels = resize_axis(pixels, dim, axis)
    return pixels.to(image.dtype)


def _nearest(length: int, target: int, device: torch.device) -> Tensor:
    # floor((i + 1/2)·length / target) in integers, so that no rounding error picks the neighbour.
    return (2 * torch.arange(target, device=device) + 1) * length // (2 * target)
