"""Panels of curves, one below the other on one step axis, drawn with Pillow alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from torch import Tensor

from .axes import Axis, Columns, Floats, columns, figure, smoothed, stretches, ticks
from .canvas import BLACK, INK, Canvas, Colour, text_length

_QUIET, _GRID, _RULE = (100, 100, 100), (232, 232, 232), (150, 150, 150)
_TITLE, _LABEL, _TICK = 17, 15, 13  # heights of letters in pixels
_LINE, _NAMES, _FOOT, _GAP = 26, 20, 22, 18  # of a header's line, the marks' names, step labels, between panels
_LEFT, _RIGHT = 70, 16  # margins: the same in all panels, so that equal steps lie below each other
_SAMPLE = 26  # pixels for a legend's piece of line
# A smoothed line looks at 1 / _SHARE of the series to either side; in a short one at _NEAREST values, or 1 / _MOST.
_SHARE, _NEAREST, _MOST = 50, 4, 10
_OUTLIERS = 0.001  # part of the faint values at either end that may leave the panel: a spike must not flatten it
_DOTS = 7  # pixels from dot to dot at least; closer ones are left out


@dataclass(frozen=True, eq=False)
class Series:
    """One curve.

    Attributes:
        label: in the legend.
        steps: `[n]`, n > 0, rising.
        values: `[n]`; those that are not finite are missing. A stretch without values that is long for the
            series leaves a gap, a shorter one is bridged.
        colour: of the line.
        smooth: "none" joins the values, "points" also gives each a dot. "median" and "mean" run over 1/25 of the
            series (at least 9 values where it has 40); they and "none" break off at marks.
        faint: show the values faintly beneath the smoothed line.
        best: ring the "highest" or "lowest" value and name it in the legend.
    """

    label: str
    steps: Floats
    values: Floats
    colour: Colour = BLACK
    smooth: Literal["none", "points", "median", "mean"] = "none"
    faint: bool = False
    best: Literal["", "highest", "lowest"] = ""

    @property
    def best_point(self) -> tuple[float, float]:
        """(step, value), the first of equal ones."""
        sign = -1.0 if self.best == "lowest" else 1.0
        place = int(np.argmax(np.where(np.isfinite(self.values), sign * self.values, -np.inf)))
        return float(self.steps[place]), float(self.values[place])


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        title: what is shown, with its unit.
        series: the curves, each with a finite value.
        log: a logarithmic axis, as long as every value is above 0.
        limits: of the axis; None fits it to the values.
        height: of the plot in pixels, without header and step labels.
        note: how to read it.
    """

    title: str
    series: Sequence[Series]
    log: bool = False
    limits: tuple[float, float] | None = None
    height: int = 120
    note: str = ""


def draw(
    panels: Sequence[Panel], steps: tuple[float, float], width: int, marks: Sequence[tuple[float, str]] = ()
) -> Tensor:
    """Draws panels one below the other.

    Args:
        panels: at least one.
        steps: the first and the last one on the axis, at least one apart.
        width: of the drawing in pixels.
        marks: (step, name) after which a part of the run begins, rising: a line through all panels.

    Returns:
        `[1, 3, H, width]` float32 in 0..1.
    """
    plots = [_Plot(panel, Axis(*steps), width, marks, named=bool(marks) and i == 0) for i, panel in enumerate(panels)]
    sheet = Canvas(width, sum(plot.height for plot in plots) + _GAP * (len(plots) - 1))
    top = 0
    for plot in plots:
        plot.draw(sheet, top)
        top += plot.height + _GAP
    return sheet.finished()


class _Word(NamedTuple):
    """Part of a header."""

    x: float
    line: int
    text: str
    size: int
    colour: Colour
    sample: Colour | None = None  # of a piece of line before it


class _Plot:
    """A panel with what it takes to draw it."""

    def __init__(self, panel: Panel, steps: Axis, width: int, marks: Sequence[tuple[float, str]], named: bool) -> None:
        self.panel, self.steps, self.marks, self.named = panel, steps, marks, named
        self.left, self.right = _LEFT, width - _RIGHT
        self.curves = [(series, list(self._lines(series))) for series in panel.series]
        self.axis = self._fitted()
        self.header = list(self._flow())
        self.above = (self.header[-1].line + 1) * _LINE + (_NAMES if named else 0)
        self.height = self.above + panel.height + _FOOT

    def draw(self, sheet: Canvas, top: int) -> None:
        for word in self.header:
            middle = top + word.line * _LINE + _LINE // 2 - 2
            sheet.text(word.x, middle, word.text, word.size, word.colour)
            if word.sample is not None:
                sheet.curve(np.array([word.x - _SAMPLE, word.x - 6.0]), np.full(2, float(middle)), word.sample, 3)
        self.top, self.bottom = top + self.above, top + self.above + self.panel.height
        self._draw_axes(sheet)
        self._draw_marks(sheet)
        for series, lines in self.curves:
            for part, _ in lines if series.faint else []:
                ends = np.stack([self._y(part.lowest), self._y(part.highest)], axis=1).ravel()
                sheet.curve(np.repeat(self._x(part.steps), 2), ends, _pale(series.colour), 1)
        for series, lines in self.curves:
            for part, line in lines:
                self._draw_line(sheet, series, self._x(part.steps), self._y(line))
            if series.best:
                x, y = (np.array([value]) for value in series.best_point)
                sheet.dot(float(self._x(x)[0]), float(self._y(y)[0]), 7, series.colour, ring=True)

    def _lines(self, series: Series) -> Iterator[tuple[Columns, Floats]]:
        """The stretches of a series, with the height of the line through each."""
        cuts = [] if series.smooth == "points" else [step for step, _ in self.marks]
        places = [0, *np.searchsorted(series.steps, cuts, side="right").tolist(), len(series.steps)]
        parts: list[Columns] = []
        for start, stop in itertools.pairwise(places):
            piece = series.steps[start:stop], series.values[start:stop]
            parts += stretches(columns(*piece, self.steps, self.right - self.left))
        length = sum(len(part.steps) for part in parts)
        half = max(length // _SHARE, min(length // _MOST, _NEAREST))
        for part in parts:
            plain = series.smooth in ("none", "points")
            yield part, part.mean if plain else smoothed(part.mean, half, series.smooth)

    def _fitted(self) -> Axis:
        if self.panel.limits is not None:
            return Axis(*self.panel.limits)
        ends: list[float] = []
        for series, lines in self.curves:
            ends += [float(end) for _, line in lines for end in (line.min(), line.max())]
            if series.faint:
                ends.append(float(np.quantile(np.concatenate([part.lowest for part, _ in lines]), _OUTLIERS)))
                ends.append(float(np.quantile(np.concatenate([part.highest for part, _ in lines]), 1 - _OUTLIERS)))
            if series.best:
                ends.append(series.best_point[1])
        positive = all(part.lowest.min() > 0 for _, lines in self.curves for part, _ in lines)
        return Axis.around(min(ends), max(ends), self.panel.log and positive)

    def _flow(self) -> Iterator[_Word]:
        """Title, legend and note, in as many lines as they need."""
        words: list[tuple[str, int, Colour, Colour | None]] = [(self.panel.title, _TITLE, INK, None)]
        for series in self.panel.series:
            if series.best:
                step, value = series.best_point
                words.append((f"{series.label}: best {value:#.4g} at {step:,.0f}", _LABEL, INK, series.colour))
            elif len(self.panel.series) > 1:
                words.append((series.label, _LABEL, INK, series.colour))
        words += [(self.panel.note, _TICK, _QUIET, None)] if self.panel.note else []
        x, line = float(self.left), 0
        for text, size, colour, sample in words:
            start = x + (_SAMPLE if sample is not None else 0)
            if start + text_length(text, size) > self.right and x > self.left:
                start, line = start - x + self.left, line + 1
            yield _Word(start, line, text, size, colour, sample)
            x = start + text_length(text, size) + 20

    def _draw_axes(self, sheet: Canvas) -> None:
        free = float(self.bottom) + _TICK
        for value in self.axis.ticks(max(self.panel.height // 30, 3)):
            y = float(self._y(np.array([value]))[0])
            sheet.rule(self.left, y, self.right - 1, y, _GRID)
            if y + _TICK < free:  # never one number over another
                sheet.text(self.left - 8, y, figure(value), _TICK, _QUIET, "rm")
                free = y
        middle = self.bottom + _FOOT // 2 + 2
        sheet.text(self.left - 30, middle, "step", _TICK, _QUIET, "rm")
        count = (self.right - self.left) // 90
        for value in ticks(self.steps.low, self.steps.high, min(count, int(self.steps.high - self.steps.low))):
            x = float(self._x(np.array([value]))[0])
            sheet.rule(x, self.top, x, self.bottom + 3, _GRID)
            text = f"{value:,.0f}"
            sheet.text(min(x, self.right + _RIGHT - text_length(text, _TICK) / 2), middle, text, _TICK, _QUIET, "mm")
        sheet.rule(self.left, self.bottom, self.right - 1, self.bottom, _RULE)
        sheet.rule(self.left, self.top, self.left, self.bottom, _RULE)

    def _draw_marks(self, sheet: Canvas) -> None:
        places = self._x(np.array([step for step, _ in self.marks])).tolist()
        for (step, name), x, following in zip(self.marks, places, [*places, self.right][1:], strict=True):
            if step > self.steps.low:
                sheet.rule(x, self.top - (_NAMES if self.named else 0), x, self.bottom, _RULE)
            if self.named and x + 5 + text_length(name, _TICK) < following:
                sheet.text(x + 5, self.top - _NAMES // 2 - 2, name, _TICK, _QUIET)

    def _draw_line(self, sheet: Canvas, series: Series, x: Floats, y: Floats) -> None:
        sheet.curve(x, y, series.colour, 2)
        sparse = (x[-1] - x[0]) / max(len(x) - 1, 1) >= _DOTS
        if len(x) == 1 or (series.smooth == "points" and sparse):
            for place in zip(x.tolist(), y.tolist(), strict=True):
                sheet.dot(*place, 3.5, series.colour)

    def _x(self, steps: Floats) -> Floats:
        return self.left + 0.5 + self.steps.place(steps) * (self.right - self.left - 1)

    def _y(self, values: Floats) -> Floats:
        return self.bottom - 0.5 - self.axis.place(values) * (self.panel.height - 1)


def _pale(colour: Colour) -> Colour:
    r, g, b = (255 - (255 - level) * 3 // 10 for level in colour)
    return r, g, b
