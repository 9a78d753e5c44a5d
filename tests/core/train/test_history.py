from __future__ import annotations

import json
import math

import pytest

from progressive_upsampling.core.train.history import History, read_history


def test_every_step_is_on_disk_at_once(tmp_path):
    path = tmp_path / "history.jsonl"
    history = History(path, 0)
    for step in range(3):
        history.add(step, loss=0.1 * step)
        assert [entry["step"] for entry in read_history(path)] == list(range(step + 1))
    history.close()


def test_work_that_is_done_again_is_forgotten(tmp_path):
    path = tmp_path / "history.jsonl"
    history = History(path, 0)
    for step in range(5):
        history.add(step, loss=float(step))
    history.close()
    history = History(path, 2)
    assert history.last == {"step": 1, "loss": 1.0}
    history.add(2, loss=9.0)
    history.close()
    assert [entry["loss"] for entry in read_history(path)] == [0.0, 1.0, 9.0]


def test_a_line_cut_off_by_a_kill_is_left_out(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text('{"step": 0, "loss": 1}\n{"step": 1, "lo')
    history = History(path, 5)
    history.add(1, loss=2.0)
    history.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [0, 1]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_written_as_json_knows_it(tmp_path, value):
    history = History(tmp_path / "h.jsonl", 0)
    history.add(0, loss=value)
    history.close()
    assert (tmp_path / "h.jsonl").read_text() == '{"step": 0, "loss": null}\n'


def test_the_last_entry_can_be_amended(tmp_path):
    path = tmp_path / "h.jsonl"
    history = History(path, 0)
    with pytest.raises(ValueError, match="amend"):
        history.amend(x2=1.0)
    history.add(0, loss=1.0)
    history.add(1, loss=2.0)
    history.amend(x2=30.123456789)
    history.add(2, loss=3.0)
    history.close()
    assert read_history(path)[1] == {"step": 1, "loss": 2.0, "x2": 30.1235} and len(read_history(path)) == 3


def test_no_file_is_no_history(tmp_path):
    assert read_history(tmp_path / "none.jsonl") == []
