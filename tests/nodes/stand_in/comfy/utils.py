"""Stand-in for `comfy.utils`: the progress bar with its hook, and tiled upscaling."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Hook = Callable[..., None]
PROGRESS_BAR_HOOK: Hook | None = None


def set_progress_bar_global_hook(function: Hook | None) -> None:
    """Set the function that every progress bar made from now on reports to."""
    global PROGRESS_BAR_HOOK
    PROGRESS_BAR_HOOK = function


class ProgressBar:
    """Reports progress of one node to the hook."""

    def __init__(self, total: float, node_id: str | None = None) -> None:
        self.total = total
        self.current: float = 0
        self.hook = PROGRESS_BAR_HOOK
        self.node_id = node_id

    def update_absolute(self, value: float, total: float | None = None, preview: Any = None) -> None:
        """Set the position; the hook may raise to cancel."""
        if total is not None:
            self.total = total
        self.current = min(value, self.total)
        if self.hook is not None:
            self.hook(self.current, self.total, preview, node_id=self.node_id)

    def update(self, value: float) -> None:
        """Move the position on."""
        self.update_absolute(self.current + value)


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    return list(range(0, length - overlap, tile - overlap)) if length > tile else [0]


def get_tiled_scale_steps(width: int, height: int, tile_x: int, tile_y: int, overlap: int) -> int:
    """Number of tiles that `tiled_scale` runs for one image."""
    return len(_starts(height, tile_y, overlap)) * len(_starts(width, tile_x, overlap))


def tiled_scale(
    samples: Tensor,
    function: Callable[[Tensor], Tensor],
    tile_x: int = 64,
    tile_y: int = 64,
    overlap: int = 8,
    upscale_amount: float = 4,
    out_channels: int = 3,
    output_device: str | torch.device = "cpu",
    pbar: ProgressBar | None = None,
) -> Tensor:
    """Run a function over overlapping tiles, and average where they overlap."""
    B, _, H, W = samples.shape
    size = (round(H * upscale_amount), round(W * upscale_amount))
    total = torch.zeros(B, out_channels, *size, device=output_device)
    count = torch.zeros(B, 1, *size, device=output_device)
    for b in range(B):
        for top, left in itertools.product(_starts(H, tile_y, overlap), _starts(W, tile_x, overlap)):
            top, left = min(top, max(H - overlap, 0)), min(left, max(W - overlap, 0))
            part = function(samples[b : b + 1, :, top : top + tile_y, left : left + tile_x]).to(output_device)
            y, x = round(top * upscale_amount), round(left * upscale_amount)
            total[b : b + 1, :, y : y + part.shape[2], x : x + part.shape[3]] += part
            count[b : b + 1, :, y : y + part.shape[2], x : x + part.shape[3]] += 1
            if pbar is not None:
                pbar.update(1)
    return total / count
