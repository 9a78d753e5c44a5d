"""What the machine can do at best: its fastest convolution and product, run by turns with what is compared with them.

One short call tells what a machine does in its best moment. A processor that slows down as it gets warm, or that others
use at the same time, does not keep that up for as long as a picture takes, so as many operations are timed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from .timing import Timing, timed

SIDES = (64, 128, 256, 512)  # of the feature maps that are tried: which one suits the caches differs
GPU_SIDES = (*SIDES, 1024, 2048)  # which only large maps fill
CHANNELS = 64
PRODUCT = 2048  # side of the matrices


@dataclass(frozen=True)
class Work:
    """Something to be timed.

    Attributes:
        run: does it.
        operations: that it takes; a multiplication and an addition are two.
    """

    run: Callable[[], object]
    operations: int

    def repeated(self, operations: float) -> Work:
        """The same as often as makes at least so many operations."""
        count = math.ceil(operations / self.operations)

        def run() -> None:
            with torch.inference_mode():
                for _ in range(count):
                    self.run()

        return Work(run, count * self.operations)


def convolution(device: torch.device, dtype: torch.dtype, rounds: int = 8) -> Work:
    """A 3×3 convolution of 64 channels, channels last, of the size that is fastest."""
    layer = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False).to(device, dtype)
    layer = layer.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    tried: dict[float, Work] = {}
    with torch.inference_mode():
        for side in GPU_SIDES if device.type == "cuda" else SIDES:
            x = torch.randn(1, CHANNELS, side, side, device=device, dtype=dtype).to(memory_format=torch.channels_last)
            work = Work(lambda x=x: layer(x), 2 * 9 * CHANNELS**2 * side**2)
            work.run()
            tried[work.operations / min(timed(work.run, device) for _ in range(rounds))] = work
    return tried[max(tried)]


def product(device: torch.device, dtype: torch.dtype) -> Work:
    """A product of two square matrices."""
    a, b = (torch.randn(PRODUCT, PRODUCT, device=device, dtype=dtype) for _ in range(2))
    return Work(lambda: torch.mm(a, b), 2 * PRODUCT**3)


def share(timing: Timing, operations: float, ceiling: Timing, at_best: Work) -> float:
    """What part of the operations a second that a ceiling did something reached, median over the rounds.

    Args:
        timing: of what is compared.
        operations: that it takes.
        ceiling: timed by turns with it.
        at_best: of the ceiling.
    """
    ratios = [best / seconds for best, seconds in zip(ceiling.each, timing.each, strict=True)]
    return operations / at_best.operations * statistics.median(ratios)
