from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from progressive_upsampling.core.progress import Progress


class Listener:
    def __init__(self) -> None:
        self.calls: list[tuple[float, float, Tensor | None]] = []

    def __call__(self, done: float, total: float, preview: Tensor | None) -> None:
        self.calls.append((done, total, preview))

    @property
    def done(self) -> list[float]:
        return [done for done, _, _ in self.calls]


def test_work_adds_up_to_the_total() -> None:
    heard = Listener()
    progress = Progress(heard, 8)
    for work in (1, 3, 4):
        progress.advance(work)
    assert heard.calls == [(1, 8, None), (4, 8, None), (8, 8, None)]


def test_the_preview_is_passed_on() -> None:
    heard, preview = Listener(), torch.rand(1, 3, 2, 2)
    progress = Progress(heard, 2)
    progress.advance(1, preview)
    progress.part(1)(1, 2, preview)
    assert [call[2] is preview for call in heard.calls] == [True, True]


def test_previews_are_wanted_where_somebody_listens_at_the_end() -> None:
    for on_step in (None, Listener()):
        progress = Progress(on_step, 2)
        nested = Progress(Progress(progress.part(1), 1).part(1), 1)
        assert progress.watched is nested.watched is (on_step is not None)


def test_a_part_counts_in_its_own_unit() -> None:
    heard = Listener()
    progress = Progress(heard, 10)
    first, second = progress.part(4), progress.part(6)
    for done in (25, 50, 100):
        first(done, 100, None)
    for done in (1, 2, 3):
        second(done, 3, None)
    assert heard.done == pytest.approx([1, 2, 4, 6, 8, 10])


def test_parts_nest_and_interleave() -> None:
    heard = Listener()
    progress = Progress(heard, 4)
    inner = Progress(progress.part(2), 10)
    half, other = inner.part(5), progress.part(2)
    half(1, 2, None)
    other(1, 4, None)
    half(2, 2, None)
    assert heard.done == pytest.approx([0.5, 1.0, 1.5])


def test_more_than_all_is_all() -> None:
    heard = Listener()
    progress = Progress(heard, 3)
    progress.part(1)(7, 5, None)
    assert heard.done == [1]
    progress.advance(10)
    assert heard.done == [1, 3]


def test_a_part_that_falls_back_is_not_counted_twice() -> None:
    heard = Listener()
    part = Progress(heard, 10).part(10)
    for done in (5, 2, 6, 10):
        part(done, 10, None)
    assert heard.done == pytest.approx([5, 5, 6, 10])


def test_a_part_without_work_is_done_at_once() -> None:
    heard = Listener()
    Progress(heard, 2).part(1)(0, 0, None)
    assert heard.done == [1]


@given(st.lists(st.lists(st.floats(0, 2), max_size=5), min_size=1, max_size=7), st.floats(0.1, 1e6))
def test_reports_never_fall_nor_exceed_the_total_and_end_on_it(parts: list[list[float]], work: float) -> None:
    heard = Listener()
    progress = Progress(heard, work * len(parts))
    for reports in parts:
        part = progress.part(work)
        for share in [*reports, 1.0]:
            part(share, 1.0, None)
    assert heard.done == sorted(heard.done)
    assert heard.done[-1] == heard.calls[-1][1] == work * len(parts)


def test_finish_reports_what_is_left_once() -> None:
    heard, preview = Listener(), torch.rand(1, 3, 2, 2)
    progress = Progress(heard, 3)
    progress.advance(1)
    progress.finish()
    progress.finish()
    assert heard.done == [1, 3]
    progress.finish(preview)
    assert heard.calls[-1] == (3, 3, preview)


def test_what_the_listener_raises_passes_through_the_parts() -> None:
    def cancel(done: float, total: float, preview: Tensor | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Progress(Progress(cancel, 1).part(1), 1).advance(0.5)


def test_nobody_need_listen() -> None:
    progress = Progress(None, 2)
    progress.part(1)(1, 1, None)
    progress.finish()
