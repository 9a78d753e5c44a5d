"""The arithmetic of plots: axes with round numbers, and series reduced to what a plot's pixels can show."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_ROOM = 0.06  # of the range, left free at either end
_CONSTANT = 1e-6  # of the value: a smaller range is none


@dataclass(frozen=True)
class Axis:
    """A range of values, `low` < `high`, linear or logarithmic."""

    low: float
    high: float
    log: bool = False

    @staticmethod
    def around(low: float, high: float, log: bool = False) -> Axis:
        """An axis that holds low..high, which may be one value, with a little room; for `log` both are above 0."""
        if log:
            axis = Axis.around(math.log10(low), math.log10(high))
            return Axis(10.0**axis.low, 10.0**axis.high, True)
        size = max(abs(low), abs(high))
        room = (high - low) * _ROOM if high - low > _CONSTANT * size else size / 10 or 1.0
        return Axis(low - room, high + room)

    def place(self, values: Floats) -> Floats:
        """Where values lie: 0 at the low end, 1 at the high end; what lies outside is moved to the end."""
        low, high = self.low, self.high
        if self.log:
            low, high, values = math.log10(low), math.log10(high), np.log10(values)
        return np.clip((values - low) / (high - low), 0.0, 1.0)

    def ticks(self, count: int) -> list[float]:
        """About `count` round numbers in the range."""
        return (log_ticks if self.log else ticks)(self.low, self.high, count)


@dataclass(frozen=True, eq=False)
class Columns:
    """A stretch of a series: mean step, and lowest, highest and mean value, of each pixel column, `[n]` each."""

    steps: Floats
    lowest: Floats
    highest: Floats
    mean: Floats


def ticks(low: float, high: float, count: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten in low..high, at most `count` + 1 of them."""
    rough = (high - low) / max(count, 1)
    power = math.floor(math.log10(rough))
    step = next(s for s in (float(f"{digit}e{power}") for digit in (1, 2, 5, 10, 20)) if s >= rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def log_ticks(low: float, high: float, count: int) -> list[float]:
    """1, 2 and 5 times the powers of ten in low..high; where those are too many, the powers alone, or some of them.

    A range too narrow to hold two of them has the ticks of a linear axis.
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine, coarse = (
        [tick for tick in (float(f"{digit}e{power}") for power in powers for digit in digits) if low <= tick <= high]
        for digits in ((1, 2, 5), (1,))
    )
    if len(fine) < 2:
        return ticks(low, high, count)
    return fine if len(fine) <= count or len(coarse) < 2 else coarse[:: math.ceil(len(coarse) / max(count, 1))]


def figure(value: float) -> str:
    """A number as it stands beside an axis: "0.05", "1,000", "2e-5"."""
    if value and not 1e-3 <= abs(value) < 1e6:
        mantissa, power = f"{value:.6e}".split("e")
        return f"{float(mantissa):g}e{int(power)}"
    return f"{value:,.10g}"


def columns(steps: Floats, values: Floats, axis: Axis, count: int) -> Columns:
    """Takes together what falls into one of `count` columns of an axis.

    Args:
        steps: `[n]`, rising.
        values: `[n]`; those that are not finite are left out.
        axis: of the steps.
        count: at least 2.
    """
    known = np.isfinite(values)
    steps, values = steps[known], values[known]
    starts = np.flatnonzero(np.diff(np.floor(axis.place(steps) * (count - 1) + 0.5), prepend=-1.0))
    sizes = np.diff(np.append(starts, len(steps)))
    lowest, highest = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
    return Columns(np.add.reduceat(steps, starts) / sizes, lowest, highest, np.add.reduceat(values, starts) / sizes)


def stretches(whole: Columns) -> Iterator[Columns]:
    """The parts between gaps, which are distances beyond three times what nine in ten keep within.

    So a term that is there at every hundredth step, or at random ones, is one line, and a pause in it is none.
    """
    distances = np.diff(whole.steps)
    usual = np.quantile(distances, 0.9) if len(distances) else 0.0
    ends = [0, *(np.flatnonzero(distances > 3 * usual) + 1).tolist(), len(whole.steps)]
    for start, stop in itertools.pairwise(ends):
        if stop > start:
            yield Columns(*(part[start:stop] for part in (whole.steps, whole.lowest, whole.highest, whole.mean)))


def smoothed(values: Floats, half: int, how: str) -> Floats:
    """Running "median" or "mean" of 2 · `half` + 1 values; near the ends, of those that there are."""
    windows = sliding_window_view(np.pad(values, half, constant_values=np.nan), 2 * half + 1)
    return (np.nanmedian if how == "median" else np.nanmean)(windows, axis=1)
