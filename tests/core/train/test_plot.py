from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import ImageFont

from progressive_upsampling.core.train import plot
from progressive_upsampling.core.train.canvas import BLUE, ORANGE, VERMILLION, Canvas
from progressive_upsampling.core.train.plot import Panel, Series, draw

RULE = (150, 150, 150)
STEPS = np.arange(1001.0)
SPAN = (0.0, 1000.0)


def series(values, steps=STEPS, label="term", colour=VERMILLION, **style) -> Series:
    return Series(label, np.asarray(steps, float), np.asarray(values, float), colour, **style)


def drawn(*curves: Series, width: int = 600, marks=(), steps=SPAN, **style) -> np.ndarray:
    """Levels `[H, width, 3]` of one panel."""
    return levels(draw([Panel("Title", curves, **style)], steps, width, marks))


def levels(sheet: torch.Tensor) -> np.ndarray:
    return (sheet[0].permute(1, 2, 0).numpy() * 255).round().astype(int)


def mask(picture: np.ndarray, colour) -> np.ndarray:
    return (picture == np.array(colour)).all(-1)


def heights(picture: np.ndarray, colour=VERMILLION) -> dict[int, float]:
    """Mean row of a colour in each pixel column that has it."""
    found = mask(picture, colour)
    return {int(x): float(np.flatnonzero(found[:, x]).mean()) for x in np.flatnonzero(found.any(0))}


def at(found: dict[int, float], share: float) -> float:
    """Row at a part of the way from the first to the last column."""
    first, last = min(found), max(found)
    return found[min(found, key=lambda x: abs(x - first - share * (last - first)))]


def test_a_falling_series_goes_down_on_the_picture():
    found = heights(drawn(series(100 - STEPS * 0.1)))
    rows = np.array([found[x] for x in sorted(found)])
    assert len(rows) > 400 and rows[-1] - rows[0] > 80
    assert (np.diff(rows) >= -0.5).all()


def test_the_series_lies_where_its_axis_says():
    values = 1 + 99 * STEPS / 1000
    linear, log = heights(drawn(series(values))), heights(drawn(series(values), log=True))
    middle = (at(linear, 0.0) + at(linear, 1.0)) / 2
    assert at(linear, 0.5) == pytest.approx(middle, abs=1.5)
    # 50.5 lies at log(50.5) / log(100) = 0.852 of the way up a logarithmic axis.
    assert at(log, 0.5) == pytest.approx(at(log, 0.0) + 0.852 * (at(log, 1.0) - at(log, 0.0)), abs=1.5)


@pytest.mark.parametrize("least", [0.0, -0.5])
def test_values_that_have_no_logarithm_make_the_axis_linear(least):
    values = least + 100 * STEPS / 1000
    assert np.array_equal(drawn(series(values), log=True), drawn(series(values)))


def test_lines_are_smooth():
    shades = drawn(series(STEPS))[40:-30, 80:-20]
    assert len(np.unique(shades.reshape(-1, 3), axis=0)) > 4


def test_marks_are_where_they_belong_in_every_panel():
    after = STEPS[1:]  # a step that is done belongs to the part that has begun before it
    panels = [Panel("A", [series(after, after)]), Panel("B", [series(after, after, colour=BLUE)])]
    picture = levels(draw(panels, SPAN, 700, [(0.0, "one"), (300.0, "two"), (850.0, "three")]))
    for rows, colour in ((slice(None, picture.shape[0] // 2), VERMILLION), (slice(picture.shape[0] // 2, None), BLUE)):
        found = heights(picture[rows], colour)
        first, last = min(found), max(found)
        lines = np.flatnonzero(mask(picture[rows], RULE).sum(0) > 90)
        lines = lines[lines > first + 5]
        expected = [first + share * (last - first) for share in (0.3, 0.85)]
        assert len(lines) == 2 and np.abs(lines - expected).max() <= 1.5


def test_a_name_that_has_no_room_is_left_out(letters):
    drawn(series(STEPS), marks=[(0.0, "first"), (500.0, "second"), (505.0, "third")])
    assert {"first", "third"} <= set(letters.texts) and "second" not in letters.texts


@pytest.mark.parametrize("smooth", ["none", "mean", "median"])
def test_a_line_breaks_off_at_a_mark(smooth):
    jump = np.where(STEPS > 500, 1.0, 0.0)
    values = jump + 0.01 * np.sin(STEPS)
    start, middle = (0.0, ""), (500.0, "")
    level = {
        value: at(heights(drawn(series(np.full(1001, value)), marks=[start], limits=(-0.5, 1.5))), 0.5)
        for value in (0.25, 0.75)
    }
    between = slice(int(level[0.75]), int(level[0.25]))
    joined, broken = (
        mask(drawn(series(values, smooth=smooth), marks=marks, limits=(-0.5, 1.5)), VERMILLION)[between].any()
        for marks in ([start], [start, middle])
    )
    assert joined and not broken


def test_points_are_joined_across_marks():
    steps = np.array([100.0, 400.0, 600.0, 900.0])
    picture = drawn(series([1, 2, 3, 4], steps, smooth="points"), marks=[(500.0, "")])
    assert set(range(min(heights(picture)), max(heights(picture)))) == set(list(heights(picture))[:-1])


def test_missing_values_leave_a_gap():
    values = np.where((STEPS > 400) & (STEPS < 600), np.nan, 5.0)
    found = np.array(sorted(heights(drawn(series(values)))))
    first, last = found[0], found[-1]
    gap = found[1:][np.diff(found) > 1], found[:-1][np.diff(found) > 1]
    assert len(gap[0]) == 1
    assert (gap[1][0] - first) / (last - first) == pytest.approx(0.4, abs=0.01)
    assert (gap[0][0] - first) / (last - first) == pytest.approx(0.6, abs=0.01)


def test_a_few_missing_values_are_bridged():
    values = np.full(1001, 5.0)
    values[[10, 11, 500, 700, 701]] = np.nan
    found = sorted(heights(drawn(series(values))))
    assert found == list(range(found[0], found[-1] + 1))


def test_values_that_are_rarely_there_are_joined():
    values = np.where(STEPS % 50 == 0, 5.0, np.nan)
    found = sorted(heights(drawn(series(values, smooth="median"))))
    assert found == list(range(found[0], found[-1] + 1)) and len(found) > 500


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_missing(value):
    values, gone = np.sin(STEPS / 100), np.sin(STEPS / 100)
    values[300], gone[300] = value, np.nan
    assert np.array_equal(
        drawn(series(values, faint=True, smooth="median")), drawn(series(gone, faint=True, smooth="median"))
    )


def test_a_spike_moves_no_median():
    calm = 1 + 0.01 * np.sin(STEPS)
    spiked = calm.copy()
    spiked[400] = 1.9
    style = {"limits": (0.0, 2.0)}
    before, after = (heights(drawn(series(values, smooth="median"), **style)) for values in (calm, spiked))
    assert all(abs(before[x] - after[x]) <= 1 for x in before)
    moved = heights(drawn(series(spiked, smooth="none"), **style))
    assert max(abs(before[x] - moved.get(x, before[x])) for x in before) > 10


def test_the_faint_values_reach_from_the_lowest_to_the_highest_of_a_column():
    steps = np.arange(100_001.0)
    values = np.where(steps % 2, 1.0, 3.0)
    picture = drawn(series(values, steps, smooth="mean", faint=True), limits=(0.0, 4.0), steps=(0.0, 100_000.0))
    level = {v: at(heights(drawn(series(np.full(1001, v)), limits=(0.0, 4.0))), 0.5) for v in (1.0, 2.0, 3.0)}
    column = picture[:, 300]
    inside = [int(level[3.0]) + 4, int(level[1.0]) - 4]
    assert not (column[inside] > 250).all(-1).any()  # on grey lines of the grid as well
    outside = [int(level[3.0]) - 6, int(level[1.0]) + 6]
    assert (column[outside] == 255).all()
    assert mask(column[None], VERMILLION).any()


def test_a_spike_does_not_flatten_the_panel():
    calm = 10 + np.sin(STEPS / 50)
    spiked = calm.copy()
    spiked[700] = 1e6
    spread = [
        np.ptp(list(heights(drawn(series(values, smooth="median", faint=True), width=1200)).values()))
        for values in (calm, spiked)
    ]
    assert spread[1] > 0.9 * spread[0]


@pytest.mark.parametrize(("best", "place"), [("highest", 3), ("lowest", 1)])
def test_the_best_value_has_a_ring_and_is_named(best, place, letters):
    steps, values = np.array([100.0, 300.0, 500.0, 700.0, 900.0]), np.array([2.0, 1.0, np.nan, 4.0, 3.0])
    curve = series(values, steps, smooth="points", best=best)
    assert curve.best_point == (steps[place], values[place])
    plain = drawn(series(values, steps, smooth="points"), limits=(0.0, 5.0))
    found = mask(drawn(curve, limits=(0.0, 5.0)), VERMILLION) & ~mask(plain, VERMILLION)
    x = heights(plain)
    column = min(x) + 3.5 + (max(x) - min(x) - 7) * (steps[place] - 100) / 800
    ring = np.flatnonzero(found[30:].any(0))
    assert len(ring) and np.abs(ring - column).max() <= 8 and np.ptp(ring) >= 11
    assert f"term: best {values[place]:.3f} at {steps[place]:.0f}" in letters.texts


def test_one_value_is_a_dot():
    picture = drawn(series([5.0], [400.0]))
    assert 20 < mask(picture, VERMILLION).sum() < 60


def test_each_curve_has_its_colour_in_the_legend_and_the_panel():
    picture = drawn(series(STEPS, label="up"), series(1000 - STEPS, label="down", colour=BLUE))
    for colour in (VERMILLION, BLUE):
        found = mask(picture, colour)
        assert found[:26].any() and found[30:].any()


def test_a_header_that_is_too_long_has_more_lines(letters):
    curves = [series(STEPS, label=f"a long name of term {i}", colour=ORANGE) for i in range(9)]
    wide = drawn(*curves, width=3000)
    letters.calls.clear()
    narrow = drawn(*curves, width=480)
    assert narrow.shape[0] > wide.shape[0] and (narrow.shape[0] - wide.shape[0]) % 26 == 0
    letters.check(480, narrow.shape[0])


@pytest.mark.parametrize("width", [480, 1200])
@pytest.mark.parametrize("last", [1, 2, 7, 1000, 99_999, 1_000_000])
def test_no_letters_overlap(width, last, letters):
    steps = np.linspace(0, last, min(last + 1, 500))
    picture = drawn(
        series(1e-7 * (1 + steps), steps), steps=(0.0, float(last)), width=width, log=last > 5, note="A note"
    )
    letters.check(width, picture.shape[0])
    assert "step" in letters.texts and sum(text[0].isdigit() for text in letters.texts) >= 5


def test_a_low_panel_leaves_numbers_out_rather_than_over_each_other(letters):
    picture = drawn(series(np.geomspace(0.15, 7.0, 1001)), log=True, height=50)
    letters.check(600, picture.shape[0])
    assert len({"0.2", "0.5", "1", "2", "5"} & set(letters.texts)) in (2, 3)


def test_steps_are_whole_numbers(letters):
    drawn(series([11, 12], [1, 2]), steps=(0.0, 2.0), limits=(10.0, 20.0))
    assert [text for text in letters.texts if text in "012"] == ["0", "1", "2"]


def test_a_long_series_is_drawn_with_few_points(monkeypatch):
    counted = []
    curve = Canvas.curve
    monkeypatch.setattr(Canvas, "curve", lambda self, x, *rest: counted.append(len(x)) or curve(self, x, *rest))
    steps = np.arange(200_000.0)
    drawn(series(np.sin(steps), steps, smooth="median", faint=True), steps=(0.0, 2e5), width=600)
    assert 1000 < sum(counted) <= 3 * 600


def test_a_drawing_is_an_image_and_always_the_same():
    panels = [Panel("A", [series(np.sin(STEPS), smooth="median", faint=True)])]
    first, second = (draw(panels, SPAN, 601, [(0.0, "a"), (10.0, "b")]) for _ in range(2))
    assert torch.equal(first, second)
    assert first.dtype == torch.float32 and first.shape[:2] == (1, 3) and first.shape[3] == 601
    assert first.min() >= 0 and first.max() == 1


class Letters:
    """All text that was drawn."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, float, str, int, str]] = []

    @property
    def texts(self) -> list[str]:
        return [call[2] for call in self.calls]

    def check(self, width: int, height: int) -> None:
        """That it lies on the paper, and nothing over another."""
        boxes = [
            tuple(np.array(ImageFont.load_default(size).getbbox(text, anchor=anchor)) + np.array([x, y, x, y]))
            for x, y, text, size, anchor in self.calls
        ]
        for i, (left, top, right, bottom) in enumerate(boxes):
            assert left >= 0 and top >= 0 and right <= width and bottom <= height, self.calls[i]
            for j in range(i):
                l2, t2, r2, b2 = boxes[j]
                assert right <= l2 or r2 <= left or bottom <= t2 or b2 <= top, (self.calls[i], self.calls[j])


@pytest.fixture
def letters(monkeypatch) -> Letters:
    found = Letters()
    text = Canvas.text

    def noted(self, x, y, words, size, colour=(0, 0, 0), anchor="lm"):
        found.calls.append((x, y, words, size, anchor))
        text(self, x, y, words, size, colour, anchor)

    monkeypatch.setattr(plot.Canvas, "text", noted)
    return found
