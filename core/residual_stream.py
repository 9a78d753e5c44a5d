"""EDSR's body over an image that comes row by row, see `core.row_stream`."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from .fused_convolution import FusedConvolution
from .row_stream import Border, Queue, room_for


class ResidualBody:
    """Residual blocks x + scale · conv2(relu(conv1(x))), one after the other, a convolution, and the long skip.

    What follows a convolution is done where the next one reads it. All blocks work in one piece of memory: each adds to
    the rows where they are, and finds the rows above, which it kept, put before them. The row that two strips see of
    what is between its convolutions is computed twice, which takes less time than to join it.

    Args:
        blocks: conv1 and conv2 of each, of 3×3 and as many channels as the image.
        end: the convolution after them, to whose result the image is added; as those.
        after: the convolution of that sum, of 3×3.
        scale: of the blocks' branches.
    """

    def __init__(
        self, blocks: Iterable[tuple[nn.Conv2d, nn.Conv2d]], end: nn.Conv2d, after: nn.Conv2d, scale: float = 1.0
    ) -> None:
        self._blocks = [_Block(conv1, conv2, scale) for conv1, conv2 in blocks]
        self._end, self._after = FusedConvolution(end), FusedConvolution(after)
        self._to_end, self._to_after = Border(1), Border(1)
        self._image = Queue()

    def push(self, rows: Tensor, last: bool) -> Tensor | None:
        """See `Stream`."""
        B, C, count, W = rows.shape
        self._image.add(rows)
        borders = [*(block.border for block in self._blocks), self._to_end]
        most = max(border.reach for border in borders)
        at = most + sum(border.above - border.reach for border in borders)  # each finds its rows higher by so many
        memory = room_for(rows, (B, C, at + count + most, W))
        memory[:, :, at : at + count].copy_(rows)
        for block in self._blocks:
            known, at, count = block.border.around(memory, at, count, last)
            if count == 0:
                return None
            block.run(known, last)
        known, _, count = self._to_end.around(memory, at, count, last)
        if count == 0:
            return None
        above = self._to_after.above
        memory = room_for(rows, (B, C, above + count + self._to_after.reach, W))
        total = memory[:, :, above : above + count]
        done = 0
        for part in self._image.take(count):
            total[:, :, done : done + part.shape[2]].copy_(part)
            done += part.shape[2]
        self._end.add_to(total, known)
        known, _, count = self._to_after.around(memory, above, count, last)
        return self._after(known) if count else None


class _Block:
    """A residual block."""

    def __init__(self, conv1: nn.Conv2d, conv2: nn.Conv2d, scale: float) -> None:
        self._conv1, self._conv2, self._scale = FusedConvolution(conv1), FusedConvolution(conv2), scale
        self.border = Border(2)  # a row for each convolution
        self._at_top = True

    def run(self, known: Tensor, last: bool) -> None:
        """Adds to the rows that are not the outermost two above and below."""
        inner = self._conv1.rectified(known)
        if self._at_top:
            inner[:, :, :1].zero_()  # above the image is nothing for conv2, too
        if last:
            inner[:, :, -1:].zero_()
        self._at_top = False
        self._conv2.add_to(known[:, :, 2:-2], inner, self._scale)
