"""EDSR's residual blocks over an image that comes row by row, see `core.row_stream`."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .row_stream import Convolved, room_for


class ResidualBlocks:
    """Residual blocks one after the other: x + scale · conv2(relu(conv1(x))).

    What an activation or a sum gives is written to where the next convolution reads it, and two pieces of memory serve
    all blocks: of a feature map nothing is copied but the rows that are kept.

    Args:
        blocks: conv1 and conv2 of each, of 3×3 and as many channels as the image; at least one.
        scale: of the branches.
    """

    def __init__(self, blocks: Iterable[tuple[nn.Conv2d, nn.Conv2d]], scale: float = 1.0) -> None:
        self._blocks = [(Convolved(conv1), Convolved(conv2)) for conv1, conv2 in blocks]
        self._seen = [0] * len(self._blocks)  # rows that each has been given
        self._scale = scale

    def push(self, rows: Tensor, last: bool) -> Tensor | None:
        """See `Stream`."""
        B, C, count, W = rows.shape
        most = count + 3 + (2 * len(self._blocks) if last else 0)  # each gives two rows late, and all with the last
        memory, spare = (room_for(rows, (B, C, most, W)) for _ in range(2))
        found: Tensor | None = rows
        skipped = None  # rows of the block before, to be added to what was found
        for number, (conv1, conv2) in enumerate(self._blocks):
            if found is None:
                return None
            known, new = conv1.room(memory, found.shape[2], last)
            self._sum(found, skipped, new)
            start = 1 if self._seen[number] < 2 else 0  # the border is above the first row
            self._seen[number] += new.shape[2]
            found = conv1.convolve(known)
            if found is None:
                return None
            inner, new = conv2.room(spare, found.shape[2], last)
            torch.clamp_min(found, 0, out=new)
            found = conv2.convolve(inner)
            if found is not None:
                skipped = known[:, :, start : start + found.shape[2]]
            memory, spare = spare, memory
        return None if found is None else self._sum(found, skipped, found)

    def _sum(self, branch: Tensor, skipped: Tensor | None, out: Tensor) -> Tensor:
        return out.copy_(branch) if skipped is None else torch.add(skipped, branch, alpha=self._scale, out=out)
