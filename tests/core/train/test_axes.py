from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from progressive_upsampling.core.train.axes import (
    Axis,
    Columns,
    columns,
    figure,
    log_ticks,
    smoothed,
    stretches,
    ticks,
)


def ranges(count: int = 300) -> list[tuple[float, float]]:
    generator = np.random.default_rng(0)
    lows = generator.normal(0, 1, count) * 10.0 ** generator.integers(-6, 7, count)
    spans = 10.0 ** generator.uniform(-3, 3, count) * np.abs(lows)
    return [(float(low), float(low + span)) for low, span in zip(lows, spans, strict=True)]


def leading(value: float) -> float:
    """First digits of a number, 1 ≤ digits < 10."""
    return round(abs(value) / 10.0 ** math.floor(math.log10(abs(value)) + 1e-9), 6)


def whole(steps: np.ndarray) -> Columns:
    return Columns(steps, steps, steps, steps)


@pytest.mark.parametrize("count", [1, 3, 7, 12])
def test_ticks_are_multiples_of_1_2_or_5_inside_the_range(count):
    for low, high in ranges():
        found = ticks(low, high, count)
        assert all(low - 1e-6 * (high - low) <= tick <= high + 1e-6 * (high - low) for tick in found)
        assert count / 2.5 - 1 <= len(found) <= count + 1
        for before, after in itertools.pairwise(found):
            step = after - before
            assert leading(float(f"{step:.6g}")) in (1, 2, 5)
            assert before / step == pytest.approx(round(before / step), abs=1e-3)


def test_ticks_have_no_rounding_error_to_show():
    assert ticks(0.0, 1.0, 10) == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert ticks(-0.3, 0.31, 7) == [-0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3]


def test_ticks_of_a_logarithm_are_1_2_and_5_inside_the_range():
    found = log_ticks(0.013, 3.0, 8)
    assert found == [0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0]


def test_many_decades_have_powers_of_ten_alone():
    found = log_ticks(3e-9, 4e9, 6)
    assert len(found) <= 7 and all(leading(tick) == 1 for tick in found)
    assert min(found) >= 3e-9 and max(found) <= 4e9


def test_a_narrow_logarithmic_range_has_ticks_all_the_same():
    found = log_ticks(0.21, 0.26, 4)
    assert len(found) >= 3 and all(0.21 <= tick <= 0.26 for tick in found)


def test_an_axis_is_linear_or_logarithmic():
    assert Axis(-1.0, 3.0).place(np.array([-1.0, 0.0, 3.0])).tolist() == [0.0, 0.25, 1.0]
    assert Axis(1.0, 100.0, True).place(np.array([1.0, 10.0, 100.0])).tolist() == [0.0, 0.5, 1.0]


def test_what_is_outside_an_axis_lies_on_its_end():
    assert Axis(0.0, 1.0).place(np.array([-5.0, 7.0])).tolist() == [0.0, 1.0]


ALL = [(0.0, 0.0), (-2.0, -2.0), (-1.0, 5.0)]
POSITIVE = [(3.0, 3.0), (0.1, 0.1 + 1e-17), (1e-30, 2e30), (0.2, 0.3)]


@pytest.mark.parametrize(
    ("ends", "log"), [*((ends, False) for ends in ALL + POSITIVE), *((ends, True) for ends in POSITIVE)]
)
def test_an_axis_around_values_has_room_on_both_sides(ends, log):
    axis = Axis.around(*ends, log=log)
    assert axis.low < ends[0] and axis.high > ends[1] and axis.log == log
    assert not log or axis.low > 0
    found = axis.ticks(4)
    assert found and all(axis.low <= tick <= axis.high for tick in found)


@pytest.mark.parametrize("count", [2, 7, 50, 1000])
def test_columns_hold_what_a_loop_finds(count):
    generator = np.random.default_rng(1)
    steps = np.sort(generator.uniform(5, 95, 400))
    values = generator.normal(0, 1, 400)
    values[generator.random(400) < 0.2] = np.nan
    values[17] = np.inf
    found = columns(steps, values, Axis(5.0, 95.0), count)
    place = [round((step - 5) / 90 * (count - 1)) for step in steps]
    groups = [
        [(s, v) for s, v, p in zip(steps, values, place, strict=True) if p == column and math.isfinite(v)]
        for column in range(count)
    ]
    groups = [np.array(group) for group in groups if group]
    assert np.allclose(found.steps, [group[:, 0].mean() for group in groups])
    assert np.allclose(found.lowest, [group[:, 1].min() for group in groups])
    assert np.allclose(found.highest, [group[:, 1].max() for group in groups])
    assert np.allclose(found.mean, [group[:, 1].mean() for group in groups])


def test_no_more_is_left_of_a_long_series_than_there_are_columns():
    steps = np.arange(300_000.0)
    found = columns(steps, np.sin(steps), Axis(0.0, steps[-1]), 1000)
    assert len(found.steps) == len(found.mean) == 1000


def test_a_series_without_values_has_no_columns():
    assert len(columns(np.arange(4.0), np.full(4, np.nan), Axis(0.0, 3.0), 10).steps) == 0


def test_a_series_that_is_rarely_there_is_one_stretch():
    every_hundredth = np.arange(0.0, 5000.0, 100.0)
    at_random = np.flatnonzero(np.random.default_rng(2).random(600) < 1 / 3).astype(float)
    for steps in (every_hundredth, at_random, np.array([3.0]), np.array([3.0, 90.0])):
        assert [len(part.steps) for part in stretches(whole(steps))] == [len(steps)]


def test_a_pause_parts_two_stretches():
    steps = np.concatenate([np.arange(0.0, 50.0), np.arange(60.0, 100.0)])
    assert [len(part.steps) for part in stretches(whole(steps))] == [50, 40]
    assert [len(part.steps) for part in stretches(whole(steps * 100))] == [50, 40]
    assert list(stretches(whole(np.array([])))) == []


@pytest.mark.parametrize("how", ["median", "mean"])
@pytest.mark.parametrize("half", [0, 1, 3, 100])
def test_smoothing_looks_at_the_values_around(how, half):
    values = np.random.default_rng(3).normal(0, 1, 23)
    reference = getattr(np, how)
    expected = [reference(values[max(i - half, 0) : i + half + 1]) for i in range(23)]
    assert np.allclose(smoothed(values, half, how), expected)


def test_numbers_are_short():
    shown = {0.0: "0", 0.05: "0.05", 1000.0: "1,000", -2.5: "-2.5", 2e-5: "2e-5", 5e7: "5e7", 1.5e-4: "1.5e-4"}
    assert {value: figure(value) for value in shown} == shown
