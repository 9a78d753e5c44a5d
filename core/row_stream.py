"""Convolutional networks over an image that comes row by row.

A tile is computed with a margin that is then cut off, and a deep network's margin is wide. A stream keeps, for each
convolution, the few rows that the next ones will be convolved with: hardly anything is computed twice, and of the
feature maps only a strip is ever in memory. The values are those of the whole image.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .interrupt import check_interrupted
from .rows import Rows, bands, resample_rows, rows_for

MINIMUM_ROWS = 8  # below this a strip is more kept rows than new ones


class Stream(Protocol):
    """What takes the rows of an image from the top down, and gives rows of its result as soon as they are known."""

    def push(self, rows: Tensor, last: bool) -> Tensor | None:
        """Takes the next rows.

        Args:
            rows: [B, C, rows, W], at least one row; to a convolution in channels_last.
            last: whether they are the image's last.

        Returns:
            the next rows of the result, None where none is known yet; with the last ones, all that are left.
        """
        ...


class Local:
    """A function of each row by itself: an activation, a PixelShuffle, another number format."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self._function = function

    def push(self, rows: Tensor, last: bool) -> Tensor | None:
        """See `Stream`."""
        return self._function(rows)


class Border:
    """The rows that a convolution looks beyond those of its result: kept ones, and zeros around the image.

    Args:
        reach: how many above and below.
    """

    def __init__(self, reach: int) -> None:
        self.reach = reach
        self._kept: Tensor | None = None

    @property
    def above(self) -> int:
        """Rows that are put above the next ones."""
        return self.reach if self._kept is None else self._kept.shape[2]

    def around(self, memory: Tensor, at: int, count: int, last: bool) -> tuple[Tensor, int, int]:
        """Puts them around the next rows.

        Args:
            memory: [B, C, rows, W] in channels_last with `above` free rows before and, for the last, `reach` after.
            at, count: where in it the next rows are.
            last: whether they are the image's last.

        Returns:
            what the convolution reads, and where its result's rows are in `memory`; none yet if it reads too few.
        """
        start = at - self.above
        known = memory[:, :, start : at + count + (self.reach if last else 0)]
        if self._kept is None:
            known[:, :, : self.reach].zero_()
        else:
            known[:, :, : self.above].copy_(self._kept)
        known[:, :, self.above + count :].zero_()
        done = max(known.shape[2] - 2 * self.reach, 0)
        self._kept = _kept_in(self._kept, known[:, :, done:])
        return known, start + self.reach, done


class Convolved:
    """A convolution of stride 1 and odd size that pads with zeros, so that an image keeps its size.

    Args:
        layer: the layer.
        call: calls a function of the rows; `in_float32` for pixels.
    """

    def __init__(
        self,
        layer: nn.Conv2d,
        call: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor] = lambda function, rows: function(rows),
    ) -> None:
        self._layer, self._call = layer, call
        self._border = Border(layer.kernel_size[0] // 2)

    def push(self, rows: Tensor, last: bool) -> Tensor | None:
        """See `Stream`."""
        B, C, count, W = rows.shape
        above = self._border.above
        memory = room_for(rows, (B, C, above + count + self._border.reach, W))
        memory[:, :, above : above + count].copy_(rows)
        check_interrupted()  # no hook of the layer is called
        known, _, done = self._border.around(memory, above, count, last)
        return self._call(self._convolve, known) if done else None

    def _convolve(self, rows: Tensor) -> Tensor:
        return F.conv2d(rows, self._layer.weight, self._layer.bias, padding=(0, self._layer.kernel_size[1] // 2))


class Chained:
    """Streams one after the other."""

    def __init__(self, *streams: Stream) -> None:
        self._streams = streams

    def push(self, rows: Tensor, last: bool) -> Tensor | None:
        """See `Stream`."""
        found: Tensor | None = rows
        for stream in self._streams:
            if found is None:
                return None
            found = stream.push(found, last)
        return found


class Joined:
    """Two streams of the same rows brought together; the one that is ahead waits.

    Args:
        combine: makes rows of the result of as many rows of both.
        branch: does not change the rows that it is given.
        other: None for the rows themselves.
    """

    def __init__(
        self, combine: Callable[[Tensor, Tensor], Tensor], branch: Stream, other: Stream | None = None
    ) -> None:
        self._combine = combine
        self._branch, self._other = _Waiting(branch), _Waiting(other or Local(lambda rows: rows))

    def push(self, rows: Tensor, last: bool) -> Tensor | None:
        """See `Stream`."""
        count = min(self._branch.push(rows, last), self._other.push(rows, last))
        return self._combine(self._branch.take(count), self._other.take(count)) if count else None


def added(branch: Stream, other: Stream | None = None) -> Joined:
    """The sum of two streams, or of a stream and its own rows; see `Joined`."""
    return Joined(torch.add, branch, other)


def added_over(branch: Stream, other: Stream | None = None) -> Joined:
    """`added`, written over the branch's rows, which nobody else holds: no new feature map."""
    return Joined(Tensor.add_, branch, other)


class Grouped:
    """A function of a whole number of rows at a time: of the windows of a grid, say.

    Args:
        size: rows that belong together; the image's are a multiple.
        function: [B, C, n · size, W] -> rows.
    """

    def __init__(self, size: int, function: Callable[[Tensor], Tensor]) -> None:
        self._size, self._function = size, function
        self._kept: Tensor | None = None

    def push(self, rows: Tensor, last: bool) -> Tensor | None:
        """See `Stream`."""
        known = _following(self._kept, rows)
        whole = known.shape[2] // self._size * self._size
        self._kept = known[:, :, whole:].clone() if known.shape[2] > whole else None
        return self._function(known[:, :, :whole]) if whole else None


class Interpolated:
    """Bilinear interpolation to a whole multiple of the size, as `torch.nn.functional.interpolate` does it.

    Args:
        scale: the multiple.
    """

    def __init__(self, scale: int) -> None:
        self._scale = scale
        self._kept: Tensor | None = None
        self._start = self._done = 0  # number of the first row that is kept, and of the next one of the result

    def push(self, rows: Tensor, last: bool) -> Tensor | None:
        """See `Stream`."""
        known = _following(self._kept, rows)
        end = self._start + known.shape[2]
        # the last row of the result that lies at or above the centre of the last one known
        ready = end * self._scale if last else (self._scale * (2 * end - 1) + 1) // 2
        first, done = max((2 * ready + 1 - self._scale) // (2 * self._scale), 0), self._done
        self._kept, start = known[:, :, first - self._start :].clone(), self._start
        self._start, self._done = first, ready
        if ready == done:
            return None
        large = F.interpolate(known, scale_factor=self._scale, mode="bilinear")
        return large[:, :, done - start * self._scale : ready - start * self._scale]


class Bicubic:
    """Bicubic interpolation, as `resample` does it.

    Args:
        height: of the image.
        scale: whole factor.
    """

    def __init__(self, height: int, scale: int) -> None:
        self._height, self._scale = height, scale
        self._kept: Tensor | None = None
        self._start = self._done = 0  # number of the first row that is kept, and of the next one of the result

    def push(self, rows: Tensor, last: bool) -> Tensor | None:
        """See `Stream`."""
        self._kept = pixels = _following(self._kept, rows)
        known, target = self._start + pixels.shape[2], self._height * self._scale
        end = known * self._scale
        while end > self._done and self._source(end).stop > known:
            end -= 1
        if end <= self._done:
            return None
        source = Rows(pixels, self._start, self._height)
        size = (target, rows.shape[3] * self._scale)
        result = resample_rows(source, size, slice(self._done, end), "bicubic")
        self._done = end
        first = known if end == target else self._source(end + 1).start
        self._kept, self._start = pixels[:, :, first - self._start :].clone(), first
        return result

    def _source(self, end: int) -> slice:
        """The rows that the one before `end` is made of."""
        return rows_for(self._height, self._height * self._scale, slice(end - 1, end), "bicubic")


class Framed:
    """Rows and columns added below and to the right that repeat the edge.

    Args:
        below, right: how many.
    """

    def __init__(self, below: int, right: int) -> None:
        self._below, self._right = below, right

    def push(self, rows: Tensor, last: bool) -> Tensor | None:
        """See `Stream`."""
        below = self._below if last else 0
        return F.pad(rows, (0, self._right, 0, below), mode="replicate") if below or self._right else rows


class Cut:
    """The first rows and columns.

    Args:
        height, width: how many.
    """

    def __init__(self, height: int, width: int) -> None:
        self._left, self._width = height, width

    def push(self, rows: Tensor, last: bool) -> Tensor | None:
        """See `Stream`."""
        kept = rows[:, :, : self._left, : self._width]
        self._left -= kept.shape[2]
        return kept if kept.shape[2] else None


class _Waiting:
    """A stream whose rows are taken later."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._rows = Queue()

    def push(self, rows: Tensor, last: bool) -> int:
        """Takes rows, and tells how many of the result wait."""
        found = self._stream.push(rows, last)
        if found is not None:
            self._rows.add(found)
        return self._rows.count

    def take(self, count: int) -> Tensor:
        """The first so many of those that wait, at least one."""
        taken = self._rows.take(count)
        return taken[0] if len(taken) == 1 else torch.cat(taken, 2)


class Queue:
    """Rows that are taken later, in their order and as many at a time as are asked for."""

    def __init__(self) -> None:
        self._parts: deque[Tensor] = deque()
        self.count = 0

    def add(self, rows: Tensor) -> None:
        """Takes the next rows, which nobody changes until they are taken."""
        self._parts.append(rows)
        self.count += rows.shape[2]

    def take(self, count: int) -> list[Tensor]:
        """The first so many, at least one, in the parts that they came in."""
        if not 0 < count <= self.count:
            raise ValueError(f"count: expected 1..{self.count}, the rows that wait, got {count}")
        self.count -= count
        taken = []
        while count:
            part = self._parts.popleft()
            if part.shape[2] > count:
                self._parts.appendleft(part[:, :, count:])
                part = part[:, :, :count]
            taken.append(part)
            count -= part.shape[2]
        return taken


def _kept_in(before: Tensor | None, rows: Tensor) -> Tensor:
    """A copy of rows, which does not keep the rest; in the memory of those kept before, or the heap gets gaps."""
    if before is None or before.shape != rows.shape:
        return rows.clone()
    return before.copy_(rows)


def room_for(like: Tensor, shape: Sequence[int]) -> Tensor:
    """Memory in channels_last for rows of a shape, of the format and on the device of others."""
    return torch.empty(*shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _following(kept: Tensor | None, rows: Tensor) -> Tensor:
    """Rows after those that were kept."""
    return rows if kept is None else torch.cat([kept, rows], 2)


def layer_by_layer(layers: Iterable[nn.Module]) -> list[Stream]:
    """Convolutions, and layers that see each row by itself, as streams."""
    return [Convolved(layer) if isinstance(layer, nn.Conv2d) else Local(layer) for layer in layers]


def rows_at_a_time(height: int, width: int, side: int) -> int | None:
    """How many rows of an image should be run at a time, None for all of them, which need no stream.

    Args:
        height, width: of the image.
        side: of the square whose area may be run at a time.
    """
    return None if height * width <= side**2 else max(side**2 // width, MINIMUM_ROWS)


def run_in_rows(
    stream: Callable[[], Stream],
    images: Sequence[Tensor],
    *,
    scale: int = 1,
    rows: int,
    on_rows: Callable[[int, int], None] = lambda done, total: None,
    out: Tensor | None = None,
) -> Tensor:
    """Runs a stream over the images of a batch, one after the other.

    Args:
        stream: makes one, for each image; it takes the channels of all of `images`, in their order.
        images: [B, C_i, H, W], all of the same B, H and W.
        scale: how much larger the result is.
        rows: of the images at a time.
        on_rows: called with (rows done, rows in all) after each strip; may raise to cancel.
        out: takes the result; may be one of the images, where scale is 1.

    Returns:
        [B, C, H · scale, W · scale]; `out`, if it is given.
    """
    B, _, H, W = images[0].shape
    result = torch.empty(0) if out is None else out  # its channels and format are known after the first rows
    for number in range(B):
        running, done = stream(), 0
        for part in bands(H, rows):
            strip = torch.cat([image[number : number + 1, :, part] for image in images], 1)  # a copy: see `out`
            found = running.push(strip, part.stop == H)
            if found is not None:
                if result.ndim == 1:
                    result = found.new_empty(B, found.shape[1], H * scale, W * scale)
                result[number : number + 1, :, done : done + found.shape[2]] = found
                done += found.shape[2]
            on_rows(number * H + part.stop, B * H)
    return result
