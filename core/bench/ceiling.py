"""What the machine can do at best, measured in the same run as what is compared with it."""

from __future__ import annotations

import torch
from torch import nn

from .timing import timed

SIDES = (64, 128, 256, 512)  # of the feature maps that are tried: which one suits the caches differs
GPU_SIDES = (*SIDES, 1024, 2048)  # which only large maps fill
CHANNELS = 64
PRODUCT = 2048  # side of the matrices


def convolution_ceiling(device: torch.device, dtype: torch.dtype, rounds: int = 8) -> float:
    """Operations a second of the fastest 3×3 convolution of 64 channels, channels last."""
    layer = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False).to(device, dtype)
    layer = layer.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    best = 0.0
    with torch.inference_mode():
        for side in GPU_SIDES if device.type == "cuda" else SIDES:
            x = torch.randn(1, CHANNELS, side, side, device=device, dtype=dtype).to(memory_format=torch.channels_last)
            layer(x)
            seconds = min(timed(lambda x=x: layer(x), device) for _ in range(rounds))
            best = max(best, 2 * 9 * CHANNELS**2 * side**2 / seconds)
    return best


def product_ceiling(device: torch.device, dtype: torch.dtype, rounds: int = 8) -> float:
    """Operations a second of a product of two square matrices."""
    a, b = (torch.randn(PRODUCT, PRODUCT, device=device, dtype=dtype) for _ in range(2))
    with torch.inference_mode():
        torch.mm(a, b)
        seconds = min(timed(lambda: torch.mm(a, b), device) for _ in range(rounds))
    return 2 * PRODUCT**3 / seconds
