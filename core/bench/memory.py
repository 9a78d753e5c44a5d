"""Suite memory: time for each megapixel and peak memory as pictures grow. Each size runs in a process of its own."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..chain import Chain
from ..progress import OnStep
from ..train.hardware import peak_memory
from .pictures import sample
from .report import Figure, Report

SIDES = (1024, 2048, 4096, 8192)  # of the results: 1, 4, 16 and 64 megapixels
SCALE = 8
FLOAT = 4  # bytes
SECONDS = 15.0  # that each size is run for at least
EVERY = 2.0  # seconds after which the smallest size is run again: on a shared machine both meet the same


@dataclass(frozen=True)
class Size:
    """What one size took.

    Attributes:
        side: of the result, pixels.
        seconds: of a run, the mean of several where they are short; the first one is left out.
        yardstick: seconds of the smallest size, the mean of runs that were made meanwhile.
        peak: bytes of the process at most.
        before: bytes of the process at most before the run, weights and libraries.
    """

    side: int
    seconds: float
    yardstick: float
    peak: int
    before: int

    @property
    def beyond(self) -> int:
        """Bytes beyond what the process had before, and beyond input and result."""
        picture = 3 * FLOAT * self.side**2
        return self.peak - self.before - picture - picture // SCALE**2


def bench_memory(
    device: torch.device,
    model: str | Path,
    *,
    sides: tuple[int, ...] = SIDES,
    seconds: float = SECONDS,
    on_round: Callable[[int], None] = lambda done: None,
) -> list[Report]:
    """Runs the suite.

    Args:
        device: where.
        model: name or file of a chain.
        sides: of the results in pixels, multiples of 8.
        seconds: that each size is run for at least.
        on_round: progress, called with the sizes done.

    Raises:
        ValueError: the system does not tell how much memory a process has used.
    """
    check_told(device)
    found = []
    context = multiprocessing.get_context("spawn")
    for number, side in enumerate(sides, 1):
        with context.Pool(1) as pool:
            found.append(pool.apply(_run, (str(device), str(model), side, sides[0], torch.get_num_threads(), seconds)))
        on_round(number)
    beside = f"× of {sides[0]}² beside it"
    rows = [["result", "seconds", "s / megapixel", beside, "peak, MB", "beyond input and result, MB"]]
    figures: list[Figure] = []
    for size in found:
        each = size.seconds / (size.side**2 / 1e6)
        growth = each / (size.yardstick / (sides[0] ** 2 / 1e6))
        memory = [f"{size.peak / 1e6:.0f}", f"{size.beyond / 1e6:.0f}"]
        rows.append([f"{size.side}²", f"{size.seconds:.3g}", f"{each:.3g}", f"{growth:.2f}", *memory])
        figures.append(Figure(f"{size.side}²", each, "s/MP", "lower"))
        figures.append(Figure(f"{size.side}², {beside}", growth, "x", "lower"))
        figures.append(Figure(f"{size.side}², peak", size.peak / 1e6, "MB", "lower"))
        figures.append(Figure(f"{size.side}², beyond input and result", size.beyond / 1e6, "MB", "lower"))
    notes = [f"{beside}: time for each pixel; {sides[0]}² was run every {EVERY:g} s while the other was"]
    return [Report("the chain ×8 as pictures grow, each in a process of its own", rows, notes, figures)]


def check_told(device: torch.device) -> None:
    """Check that the suite can run.

    Raises:
        ValueError: the system does not tell how much memory a process has used.
    """
    if peak_memory(device) is None:
        raise ValueError("memory: this system does not tell how much memory a process has used")


def _run(device_name: str, model: str, side: int, smallest: int, threads: int, least: float) -> Size:
    torch.set_num_threads(threads)
    device = torch.device(device_name)
    chain = Chain.from_pretrained(model).to(device)
    chain(sample(32, 32).to(device), 2)  # libraries are loaded, kernels chosen
    before = peak_memory(device) or 0  # without the pictures, and without what it takes to make them
    image = sample(side // SCALE, side // SCALE).to(device)
    small = sample(smallest // SCALE, smallest // SCALE).to(device)
    _seconds(chain, image)
    peak = peak_memory(device) or 0  # before others run inside
    return Size(side, *_by_turns(chain, image, small, least), peak, before)


def _by_turns(chain: Chain, image: torch.Tensor, small: torch.Tensor, least: float) -> tuple[float, float]:
    """Seconds of a run of each: those of the small one are made while the other is.

    Args:
        chain: what runs.
        image: is run until `least` seconds are over, once at least.
        small: is run every EVERY seconds.
        least: seconds.
    """
    times: list[float] = []
    runs, started = 0, time.perf_counter()
    mark = started

    def turn(*_: object) -> None:
        nonlocal mark
        if time.perf_counter() - mark >= EVERY:
            times.append(_seconds(chain, small))
            mark = time.perf_counter()

    while runs == 0 or time.perf_counter() - started < least:
        _seconds(chain, image, turn)
        runs += 1
    seconds = (time.perf_counter() - started - sum(times)) / runs
    return seconds, sum(times) / len(times) if times else _seconds(chain, small)


def _seconds(chain: Chain, image: torch.Tensor, on_step: OnStep | None = None) -> float:
    started = time.perf_counter()
    float(chain(image, SCALE, on_step=on_step)[0, 0, 0, 0])  # waits for a device that works ahead, keeps no result
    return time.perf_counter() - started
