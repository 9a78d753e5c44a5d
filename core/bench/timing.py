"""Paired timing: what is compared runs by turns, so that whatever else the machine does meets all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from ..checks import check_integer


@dataclass(frozen=True)
class Timing:
    """How long something took.

    Attributes:
        name: of what was timed.
        each: seconds of each round.
        ratio: median over the rounds of (time of the first) / (time of this): above 1 is faster than the first.
    """

    name: str
    each: tuple[float, ...]
    ratio: float

    @property
    def seconds(self) -> float:
        """Median."""
        return statistics.median(self.each)


def paired(
    work: Mapping[str, Callable[[], object]], rounds: int, device: torch.device, on_round: Callable[[int], None]
) -> list[Timing]:
    """Times functions by turns.

    Args:
        work: functions by name; the first is what the others are compared with.
        rounds: how often each is timed, after one round that is not.
        device: that they run on; waited for.
        on_round: called with the rounds done.

    Raises:
        ValueError: fewer than one round.
    """
    check_integer(rounds, "rounds", 1)
    times: dict[str, list[float]] = {name: [] for name in work}
    for done in range(rounds + 1):
        for name, function in work.items():
            seconds = timed(function, device)
            if done > 0:
                times[name].append(seconds)
        on_round(done)
    first = next(iter(times.values()))
    return [
        Timing(name, tuple(each), statistics.median(a / b for a, b in zip(first, each, strict=True)))
        for name, each in times.items()
    ]


def timed(function: Callable[[], object], device: torch.device) -> float:
    """Seconds that a call takes, until the device has nothing more to do."""
    _wait(device)
    start = time.perf_counter()
    function()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
