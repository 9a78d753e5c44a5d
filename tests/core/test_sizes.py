from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from progressive_upsampling.core.checks import MAX_SIDE
from progressive_upsampling.core.sizes import MAX_SCALE, stage_sizes, target_size

SIDES = st.integers(1, 5000)


@given(SIDES, SIDES, SIDES, SIDES)
def test_stages_at_most_double_and_end_at_the_target(height: int, width: int, rows: int, columns: int) -> None:
    sizes = stage_sizes(height, width, rows, columns)
    ratio = max(rows / height, columns / width)
    assert len(sizes) == (math.ceil(math.log2(ratio)) if ratio > 1 else 0)  # no more stages than it takes
    if not sizes:
        assert rows <= height and columns <= width
        return
    assert sizes[-1] == (rows, columns)
    for before, after in itertools.pairwise([(height, width), *sizes]):
        for axis in (0, 1):
            assert after[axis] <= 2 * before[axis]
    for before, after in itertools.pairwise(sizes):
        assert after[0] >= before[0] and after[1] >= before[1]
        assert after != before


def test_128_reaches_1024_in_three_doublings() -> None:
    assert stage_sizes(128, 128, 1024, 1024) == [(256, 256), (512, 512), (1024, 1024)]


def test_the_last_stage_is_fractional() -> None:
    assert stage_sizes(10, 20, 33, 66) == [(20, 40), (33, 66)]
    assert stage_sizes(10, 20, 11, 21) == [(11, 21)]


def test_an_axis_that_shrinks_has_its_target_at_once() -> None:
    assert stage_sizes(100, 10, 50, 40) == [(50, 20), (50, 40)]


@pytest.mark.parametrize("target", [(33, 47), (1, 1), (33, 1), (32, 47)])
def test_nothing_to_enlarge_has_no_stage(target: tuple[int, int]) -> None:
    assert stage_sizes(33, 47, *target) == []


@given(SIDES, SIDES, st.floats(0.001, 20))
def test_a_scale_is_rounded_to_whole_pixels(height: int, width: int, scale: float) -> None:
    rows, columns = target_size(height, width, scale, None)
    assert abs(rows - height * scale) <= 0.5 or rows == 1
    assert abs(columns - width * scale) <= 0.5 or columns == 1
    assert rows >= 1 and columns >= 1


def test_a_size_is_taken_as_it_is() -> None:
    assert target_size(33, 47, None, (700, 3)) == (700, 3)


def test_the_largest_scale_is_reached() -> None:
    assert target_size(2, 3, MAX_SCALE, None) == (2 * MAX_SCALE, 3 * MAX_SCALE)


@pytest.mark.parametrize("scale", [0, -1, 1e9, math.nan, math.inf, MAX_SCALE + 0.1])
def test_a_scale_out_of_range_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match=r"scale: expected a number <= 64 and > 0, got"):
        target_size(33, 47, scale, None)


@pytest.mark.parametrize("scale", ["2", True, (2, 2)])
def test_a_scale_that_is_no_number_is_refused(scale: object) -> None:
    with pytest.raises(TypeError, match="scale: expected a number"):
        target_size(33, 47, scale, None)


def test_a_scale_whose_result_is_too_large_is_refused() -> None:
    with pytest.raises(ValueError, match=f"scale: expected a result of at most {MAX_SIDE} pixels a side, got"):
        target_size(8000, 10, 20, None)


@pytest.mark.parametrize("size", [(0, 5), (5, -1), (5, 10**9), (5,), (5, 5, 5)])
def test_a_size_out_of_range_is_refused(size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="size: expected"):
        target_size(33, 47, None, size)


@pytest.mark.parametrize("size", [(math.nan, 5), (5.0, 5), 64, "64"])
def test_a_size_that_is_no_pair_of_integers_is_refused(size: object) -> None:
    with pytest.raises(TypeError, match="size: expected"):
        target_size(33, 47, None, size)


@pytest.mark.parametrize(("scale", "size"), [(None, None), (2, (66, 94))])
def test_exactly_one_of_scale_and_size_is_needed(scale: float | None, size: tuple[int, int] | None) -> None:
    with pytest.raises(ValueError, match="scale, size: expected exactly one of the two"):
        target_size(33, 47, scale, size)


@pytest.mark.parametrize("name", ["height", "width", "target_height", "target_width"])
def test_stage_sizes_refuses_sides_that_are_none(name: str) -> None:
    sides = {"height": 3, "width": 3, "target_height": 6, "target_width": 6}
    with pytest.raises(ValueError, match=f"^{name}: expected an integer >= 1, got 0"):
        stage_sizes(**(sides | {name: 0}))
    with pytest.raises(TypeError, match=f"^{name}: expected an integer"):
        stage_sizes(**(sides | {name: 2.5}))
