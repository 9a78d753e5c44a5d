"""What the terminal shows of a training run while it goes on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..progress import OnStep
from ..train.config import TrainConfig
from ..train.task import task_of
from .console import Console

_MEMORY = 0.9  # of the shown loss and step time, which jump from step to step
_QUIET_SECONDS = 60.0  # between two lines where there is no bar


class Report:
    """A bar with loss, step time and time left on a terminal; a line now and then in a log file.

    Args:
        config: of the run.
        console: where to show it.
    """

    def __init__(self, config: TrainConfig, console: Console) -> None:
        self._config, self._console, self._task = config, console, task_of(config)
        self._loss = self._seconds = float("nan")
        self._done, self._first = 0, -1
        self._next_line = time.monotonic() + _QUIET_SECONDS

    @contextmanager
    def shown(self) -> Iterator[Callable[[int, int, dict[str, float]], None]]:
        """Shows the bar, and yields the function to call after every step."""
        with self._console.progress(self._label) as bar:

            def report(done: int, total: int, values: dict[str, float]) -> None:
                self._take(done, values)
                self._lines(done, total, values, bar is not None)
                if bar is not None:
                    self._advance(bar, done)

            yield report

    def _take(self, done: int, values: dict[str, float]) -> None:
        self._done = done
        if self._first < 0:
            self._first = done - 1
        for name, key in (("_loss", "loss"), ("_seconds", "seconds")):
            old, new = getattr(self, name), values[key]
            if math.isfinite(new):
                setattr(self, name, new if old != old else _MEMORY * old + (1 - _MEMORY) * new)

    def _lines(self, done: int, total: int, values: dict[str, float], has_bar: bool) -> None:
        scores = [_score(key, value) for key, value in values.items() if key[0] == "x"]
        now = time.monotonic()
        if scores or (not has_bar and (now >= self._next_line or done == total)):
            self._next_line = now + _QUIET_SECONDS
            self._console.note("  ".join([f"step {done}/{total}", f"loss {self._loss:.4f}", *scores]))

    def _advance(self, bar: OnStep, done: int) -> None:
        # Counted in pixels, because a step of a later phase takes longer; from where this session began.
        start = self._work(self._first)
        bar(self._work(done) - start, self._work(self._config.steps) - start, None)

    def _work(self, steps: int) -> float:
        work = 0.0
        for phase in self._config.phases:
            pixels = sum((phase.crop * factor) ** 2 for factor in self._task.factors(phase.stages))
            work += min(steps, phase.steps) * phase.batch * pixels
            steps -= min(steps, phase.steps)
        return work

    def _label(self) -> str:
        if self._done == 0:
            return "train"
        return f"{self._done}/{self._config.steps} loss {self._loss:.4f} {self._seconds:.2f}s"


def _score(key: str, value: float) -> str:
    factor, _, kind = key.partition("_")
    return f"{factor} {value:.2f} dB" if not kind else f"{kind} {value:.4f}"
