"""What tests of whole runs ask: which weights and steps a run has left, and whether two runs are one."""

from __future__ import annotations

from pathlib import Path

import torch

from progressive_upsampling.core.checkpoint import read_checkpoint
from progressive_upsampling.core.train.history import read_history
from progressive_upsampling.core.train.run_folder import BEST, HISTORY, LAST, STATE

TIMES = ("seconds", "wait")


def weights(path: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(path).tensors


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def steps_of(run: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in entry.items() if k not in TIMES} for entry in read_history(run / HISTORY)]


def files_of(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def assert_same_run(a: Path, b: Path) -> None:
    for name in (STATE, LAST, BEST):
        assert same(weights(a / name), weights(b / name)), name
    first, second = (read_checkpoint(run / STATE).config for run in (a, b))
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    assert steps_of(a) == steps_of(b)


class Stop(Exception):
    """Whoever watches a run has seen enough."""


def stop_at(step: int):
    def on_step(done: int, total: int, values: dict[str, float]) -> None:
        if done == step:
            raise Stop

    return on_step
