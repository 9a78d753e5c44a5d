"""Batches, a few images at a time: beside what comes in and goes out, only those take memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor, nn

from ..core.chain import GROUP_PIXELS
from ..core.progress import OnStep, Progress
from . import _runtime as runtime


def run_batch(
    work: Callable[[runtime.Job, slice], Sequence[Tensor]],
    batch: int,
    pixels: int,
    networks: Sequence[nn.Module] = (),
    tile: int = 0,
    show: bool = False,
) -> list[Tensor]:
    """`_runtime.run` on a batch, a few images at a time: beside what comes in and goes out, only those take memory.

    Args:
        work: makes the results of some images, as ComfyUI keeps them: `to_comfy`, `on_intermediate`.
        batch: number of images.
        pixels: size of one image's result.
        networks, tile: as for `_runtime.run`.
        show: leave the last of the results, an IMAGE, as a preview on the node.

    Returns:
        What `work` returns, for all images.
    """

    def each(job: runtime.Job) -> list[Tensor]:
        return in_groups(
            lambda images, on_step: work(replace(job, on_step=on_step), images), batch, pixels, job.on_step
        )

    return runtime.run(each, networks, tile, pixels * group_of(batch, pixels), show)


def in_groups(
    work: Callable[[slice, OnStep], Sequence[Tensor]], batch: int, pixels: int, on_step: OnStep | None = None
) -> list[Tensor]:
    """What `work` makes of some images at a time, put together; see `run_batch`."""
    group, progress = group_of(batch, pixels), Progress(on_step, batch)
    results: list[Tensor] = []
    for first in range(0, batch, group):
        images = slice(first, min(first + group, batch))
        found = work(images, progress.part(images.stop - first))
        if group == batch:
            return list(found)
        if first == 0:
            results = [value.new_empty(batch, *value.shape[1:]) for value in found]
        for result, value in zip(results, found, strict=True):
            result[images] = value
    return results


def group_of(batch: int, pixels: int) -> int:
    """How many images of a batch are worked on at a time, if each result has so many pixels."""
    return min(max(GROUP_PIXELS // pixels, 1), batch)
