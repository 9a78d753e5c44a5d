"""All stages of the chain at once, over a picture too large for every stage to leave a whole one to the next.

The picture is run in columns, each from the top down, and of a column a strip of rows at a time. What the first stage
gives goes straight into the second, and so on: beside the picture and the result a few strips are in memory, whatever
the size. A column begins so far to the left and ends so far to the right of what is kept of it that its values are
those of the whole picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from .heap import give_back_free_memory
from .merge import merged, rows_to_merge, skipped
from .precision import autocast, resolve_dtype
from .preview import GrowingPreview
from .progress import OnStep, Progress
from .pyramid import rows_to_weigh
from .row_stream import MINIMUM_ROWS, Stream
from .rows import Rows, bands, resample_rows, rows_for
from .stage import Stage
from .tiling import aligned
from .upsample import CPU_SIDE, enlarged_rows
from .upsamplers import EDSR

COLUMN = 1024  # pixels before the last upsampler that are kept of a column: a wider one takes as long and more memory
GRID = 16  # pixels: convolutions take up to a tenth longer at a width that is no multiple
BLOCK = 1024  # columns that are merged at a time: what lies between the steps stays in the caches
SHARE = 256  # rows of a stage's result that are merged at a time: even, and so many, as each time 30 more are read

Parts = Iterator[tuple[Tensor, bool]]  # rows, part by part, and whether they are the last ones of their picture


class Flow(Protocol):
    """A stage over rows that come from the top down.

    It gives its result part by part, as the next one takes it: with the last rows comes all that it held back.
    """

    def push(self, rows: Tensor, last: bool) -> Parts:
        """Takes the next rows, [1, 3, rows, W]; all that is given must be taken before the next ones come."""
        ...


@dataclass(frozen=True)
class StageStream:
    """A stage over the rows of a picture: its upsampler, the residual skip and the fusion.

    Attributes:
        stage: whose skip and fusion.
        network: doubles the size.
        skip: a weight for each band of the residual skip, see `Stage.skips`; all 0 change nothing.
        fusion: whether the scales are fused.
    """

    stage: Stage
    network: EDSR
    skip: tuple[float, ...]
    fusion: bool

    @property
    def align(self) -> int:
        """Columns begin and end at multiples of this many pixels, before the stage."""
        return math.lcm(2, self.stage.weights.align) // 2

    @property
    def margin(self) -> int:
        """Pixels before the stage that its result depends on, to either side of a column on the grid."""
        return self.network.halo + math.ceil(self.reach / 2)

    @property
    def reach(self) -> int:
        """Pixels of the enlarged picture that the skip and the fusion depend on, as `margin`."""
        reach = self.stage.weights.halo if self.fusion else 0
        if any(self.skip):
            middle = 1 << 16  # far from every border
            period = 2 ** (len(self.skip) - 1)  # of the pyramid's grid
            read = rows_to_weigh(2 * middle, len(self.skip), slice(middle, middle + period))
            reach += max(middle - read.start, read.stop - middle)
        return reach

    def rows(self, height: int, width: int, left: int, most: int) -> Flow:
        """The stage over rows of a picture.

        Args:
            height, width: of the picture.
            left: its first column that is given.
            most: rows that the network runs at a time.
        """
        stream = enlarged_rows(self.network, height)
        if not self.fusion and not any(self.skip):
            return Enlarged(stream, most)
        net = self.stage.weights

        def merge(now: Rows, before: Tensor, rows: slice) -> Tensor:
            now = replace(now, left=2 * left + now.left, whole_width=2 * width)
            return merged(now, before, self.skip, net, rows) if self.fusion else skipped(now, before, self.skip, rows)

        def needs(rows: slice) -> slice:
            if self.fusion:
                return rows_to_merge(2 * height, self.skip, net, rows)
            return rows_to_weigh(2 * height, len(self.skip), rows)

        reach = math.ceil(self.reach / 2) * 2  # as columns, blocks begin at even pixels
        return Merged(stream, most, height, merge, needs, reach, net.align if self.fusion else 1)


class Enlarged:
    """An enlargement by 2.

    Args:
        stream: gives it.
        most: rows that it takes at a time: a wide strip has few.
    """

    def __init__(self, stream: Stream, most: int) -> None:
        self._stream, self._most = stream, most

    def push(self, rows: Tensor, last: bool) -> Parts:
        """See `Flow`."""
        for part, end in _pieces(rows, self._most, last):
            found = self._stream.push(part, end)
            if found is not None:
                yield found, end
            del found


class Merged:
    """An enlargement by 2 merged with the rows that it is made of.

    Args:
        enlarged: the enlargement.
        most: rows that it takes at a time.
        height: of the picture before it.
        merge: takes rows of the enlargement, the same rows of the picture brought to its size, and which are wanted;
            called with blocks of columns, of which it may give the outermost wrong.
        needs: which rows that takes.
        reach: how many of the outermost columns those are.
        align: rows are wanted in multiples of this many.
    """

    def __init__(
        self,
        enlarged: Stream,
        most: int,
        height: int,
        merge: Callable[[Rows, Tensor, slice], Tensor],
        needs: Callable[[slice], slice],
        reach: int,
        align: int,
    ) -> None:
        self._enlarged, self._most = enlarged, most
        self._merge, self._needs, self._reach, self._align = merge, needs, reach, align
        self._before, self._now = _Window(height), _Window(2 * height)
        self._done = 0

    def push(self, rows: Tensor, last: bool) -> Parts:
        """See `Flow`."""
        for part, end in _pieces(rows, self._most, last):
            self._before.add(part)
            found = self._enlarged.push(part, end)
            if found is not None:
                self._now.add(found)
            del found
            ready = self._ready()
            while ready - self._done >= (1 if end else SHARE):
                wanted = slice(self._done, min(self._done + SHARE, ready))
                yield self._merged(wanted), wanted.stop == self._now.height

    def _merged(self, wanted: slice) -> Tensor:
        if wanted.stop == self._now.height:
            give_back_free_memory()  # the end takes larger blocks than the gaps that strips have left
        needed, width = self._needs(wanted), 2 * self._before.rows.width
        now = self._now.rows.part(needed)
        result = now.new_empty(*now.shape[:2], wanted.stop - wanted.start, width)
        for kept in _columns(width, BLOCK, 2):
            seen = aligned(kept, width, self._reach, 1)
            block = Rows(now[..., seen], needed.start, self._now.height, seen.start)
            source = self._columns_before(seen, width)
            before = resample_rows(source, (self._now.height, width), needed, "bicubic", seen).clamp_(0, 1)
            found = self._merge(block, before, wanted)
            result[..., kept] = found[..., kept.start - seen.start : kept.stop - seen.start]
        self._done = wanted.stop
        if wanted.stop < self._now.height:
            needed = self._needs(slice(wanted.stop, wanted.stop + self._align))
            self._now.drop(needed.start)
            self._before.drop(self._source(needed).start)
        return result

    def _columns_before(self, columns: slice, width: int) -> Rows:
        """What some columns of the enlargement, `width` wide, are made of."""
        before = self._before.rows
        read = rows_for(before.width, width, columns, "bicubic")
        return replace(before, pixels=before.pixels[..., read], left=read.start, whole_width=before.width)

    def _source(self, rows: slice) -> slice:
        return rows_for(self._before.height, self._now.height, rows, "bicubic")

    def _ready(self) -> int:
        """The end of the rows for which all that they need is there."""
        end = self._now.stop if self._now.stop == self._now.height else self._now.stop // self._align * self._align
        while end > self._done:
            needed = self._needs(slice(self._done, end))
            if needed.stop <= self._now.stop and self._source(needed).stop <= self._before.stop:
                break
            end = (end - 1) // self._align * self._align
        return end


class _Window:
    """The rows of a picture that are still needed, in memory that stays the same, or the heap gets gaps.

    Args:
        height: of the picture.
    """

    def __init__(self, height: int) -> None:
        self.height = height
        self._memory = torch.empty(0)
        self._start = self.stop = 0  # of the rows that are known

    @property
    def rows(self) -> Rows:
        """Those that are known."""
        return Rows(self._memory[:, :, : self.stop - self._start], self._start, self.height)

    def add(self, found: Tensor) -> None:
        """Takes the rows that follow."""
        kept, count = self.stop - self._start, found.shape[2]
        if self._memory.ndim == 1 or self._memory.shape[2] < kept + count:
            known = self._memory
            self._memory = found.new_empty(*found.shape[:2], kept + count, found.shape[3])
            if kept:
                self._memory[:, :, :kept] = known[:, :, :kept]
        self._memory[:, :, kept : kept + count] = found
        self.stop += count

    def drop(self, start: int) -> None:
        """Forgets those above a row."""
        if start > self._start:
            kept = self.rows.part(slice(start, self.stop)).clone()
            self._memory[:, :, : kept.shape[2]] = kept
            self._start = start


def stage_streams(
    stages: Sequence[Stage],
    image: Tensor,
    sizes: Sequence[tuple[int, int]],
    upsampler: object = None,
    *,
    skip: float = 1.0,
    fusion: bool = True,
) -> list[StageStream]:
    """What `run_in_columns` takes.

    Args:
        stages: in order.
        image: [B, 3, H, W].
        sizes: (height, width) after each stage.
        upsampler: takes the place of the stages' own; None for them.
        skip: 0..1, multiplier on the learned weights of the residual skips.
        fusion: whether the scales are fused.

    Returns:
        One for each stage. None at all if a stage does anything else than doubling the size by an EDSR, skip and
        fusion: another size, another upsampler, a denoiser's regression.
    """
    found, before = [], (image.shape[2], image.shape[3])
    for stage, size in zip(stages, sizes, strict=True):
        network = stage.upsampler if upsampler is None else upsampler
        doubles = size == (2 * before[0], 2 * before[1]) and not stage.config.denoiser.regression
        if not doubles or not isinstance(network, EDSR) or network.scale != 2:
            return []
        found.append(StageStream(stage, network, stage.skips(skip), fusion))
        before = size
    return found


def run_in_columns(
    image: Tensor,
    stages: Sequence[StageStream],
    *,
    tile: int | None = None,
    column: int | None = None,
    dtype: str = "auto",
    on_step: OnStep | None = None,
) -> Tensor:
    """Runs stages one after the other.

    Args:
        image: [B, 3, H, W] float32 in 0..1.
        stages: in order.
        tile: a strip that a stage runs has at most the area of a square of this side, None for CPU_SIDE.
        column: pixels before the last stage that are kept of a column, None for COLUMN. Neither this nor `tile`
            changes the result.
        dtype: format the upsamplers and the fusion compute in, see `precision.resolve_dtype`.
        on_step: progress, with a preview after each column; may raise to cancel.

    Returns:
        [B, 3, H · 2^n, W · 2^n] float32 in 0..1 of n stages.
    """
    B, _, H, W = image.shape
    scale, side = 2 ** len(stages), CPU_SIDE if tile is None else min(tile, CPU_SIDE)
    most = max(2 * (COLUMN if column is None else column) // scale, 1)
    margin = math.ceil(stages[-1].margin * 2 / scale)
    columns = _columns(W, most, math.lcm(*(stage.align for stage in stages)), margin)
    result = image.new_empty(B, 3, H * scale, W * scale)
    progress = Progress(on_step, B * len(columns) * H * scale)
    preview = GrowingPreview(image, (H * scale, W * scale)) if progress.watched else None
    with torch.no_grad(), autocast(image.device, resolve_dtype(dtype, image.device)):
        for number in range(B):
            one = slice(number, number + 1)
            for kept, reads in zip(columns, _reads(stages, columns, W), strict=True):
                streams = _column(stages, kept, reads, H, W, side)
                to = slice(kept.start * scale, kept.stop * scale)
                done = 0
                for found, _ in _flow(streams, image[one, :, :, reads[0]], True):
                    result[one, :, done : done + found.shape[2], to] = found
                    done += found.shape[2]
                    progress.advance(found.shape[2])
                    del found
                if preview is not None:
                    if number == 0:
                        preview.add(result, to)
                    progress.advance(0, preview.now())
    return result


def _columns(width: int, most: int, align: int, margin: int = 0) -> list[slice]:
    """The columns of a picture, about as wide with what is read to their sides: the outer ones keep a margin more."""
    count = math.ceil(width / most)
    inner = max(math.ceil((width - 2 * margin) / count / align), 1) * align
    ends = [min(math.ceil(margin / align) * align + inner * number, width) for number in range(1, count)]
    return [slice(start, stop) for start, stop in pairwise([0, *ends, width]) if start < stop]


def _flow(streams: Sequence[tuple[Flow, slice]], rows: Tensor, last: bool) -> Parts:
    """Rows through stages one after the other, of which columns are cut off, as the last one gives them."""
    if not streams:
        yield rows, last
        return
    stage, kept = streams[0]
    for found, end in stage.push(rows, last):
        yield from _flow(streams[1:], found[..., kept], end)
        del found  # or it would be in memory beside the next ones


def _pieces(rows: Tensor, most: int, last: bool) -> Parts:
    """Rows in equal pieces of so many at most; the last row by itself, as with it comes what the networks held back."""
    count = rows.shape[2]
    if last and count > 1:
        yield from _pieces(rows[:, :, :-1], most, False)
        yield rows[:, :, -1:], True
        return
    for part in bands(count, math.ceil(count / math.ceil(count / most))):
        yield rows[:, :, part], last


def _reads(stages: Sequence[StageStream], columns: Sequence[slice], width: int) -> list[list[slice]]:
    """What each stage reads for each column of what the last one gives, in pixels before it.

    For all columns as many pixels, at the border more than it takes: oneDNN keeps what it compiled for each width.
    """
    scale = 2 ** len(stages)
    wanted = [slice(kept.start * scale, kept.stop * scale) for kept in columns]
    found: list[list[slice]] = []
    for stage in reversed(stages):
        scale //= 2
        size, align = width * scale, stage.align
        before = [slice(one.start // 2, -(-one.stop // 2)) for one in wanted]
        read = [aligned(one, size, stage.margin, align) for one in before]
        count = min(math.ceil(max(one.stop - one.start for one in read) / GRID) * GRID, size)
        last = math.ceil((size - count) / align) * align
        wanted = [slice(start, min(start + count, size)) for start in (min(one.start, last) for one in read)]
        found.insert(0, wanted)
    return [list(reads) for reads in zip(*found, strict=True)]


def _column(
    stages: Sequence[StageStream], kept: slice, reads: Sequence[slice], height: int, width: int, side: int
) -> list[tuple[Flow, slice]]:
    """What `_flow` takes for a column of the picture."""
    streams: list[tuple[Flow, slice]] = []
    scale = 2 ** len(stages)
    wanted = slice(kept.start * scale, kept.stop * scale)
    for stage, read in zip(reversed(stages), reversed(reads), strict=True):
        scale //= 2
        rows = max(side**2 // (read.stop - read.start), MINIMUM_ROWS)
        cut = slice(wanted.start - 2 * read.start, wanted.stop - 2 * read.start)
        streams.insert(0, (stage.rows(height * scale, width * scale, read.start, rows), cut))
        wanted = read
    return streams
