"""`train --dry-run`: what a run would be and cost, measured on a real step of each phase."""

from __future__ import annotations

from ..train.data import PictureFolder
from ..train.hardware import describe, peak_memory
from ..train.loop import Trainer
from ..unet import parameter_count
from .console import columns

_HEAD = ("phase", "stages", "crop", "batch", "peak rate", "steps", "s/step", "time")


def plan(trainer: Trainer) -> list[str]:
    """Lines that describe a run; the trainer must not be run afterwards.

    Args:
        trainer: new.
    """
    config, chain = trainer.config, trainer.chain
    rows, total = [], 0.0
    for number, phase in enumerate(config.phases, 1):
        seconds = trainer.trial(number - 1)
        total += seconds * phase.steps
        shape = (phase.stages, f"{phase.crop} to {phase.crop * 2**phase.stages}", phase.batch)
        costs = (phase.steps, f"{seconds:.2f}", duration(seconds * phase.steps))
        rows.append(tuple(str(text) for text in (number, *shape, f"{phase.learning_rate:g}", *costs)))
    parameters = [f"{parameter_count(chain.stage(k)):,}" for k in range(1, len(chain.stages) + 1)]
    each = ", ".join(f"stage {number} {count}" for number, count in enumerate(parameters, 1))
    lines = [
        f"model        {parameter_count(chain):,} parameters ({each})",
        f"data         {_folder(trainer.sampler.pictures)}",
        f"validation   {'none' if trainer.validation is None else _folder(trainer.validation)}",
        f"machine      {describe(trainer.device)}, {str(trainer.dtype).removeprefix('torch.')}",
        *columns([_HEAD, *rows], words=0),
        f"time         {duration(total)} for {config.steps} steps, validation apart",
    ]
    return [*lines, f"memory       {_memory(trainer)}"]


def _folder(pictures: PictureFolder) -> str:
    skipped = f", {len(pictures.skipped)} skipped" if pictures.skipped else ""
    return f"{len(pictures)} pictures in {pictures.root}{skipped}"


def _memory(trainer: Trainer) -> str:
    pictures = min(trainer.sampler.pictures.bytes, trainer.config.memory)
    peak = peak_memory(trainer.device)
    decoded = f"{_gigabytes(pictures)} of decoded pictures"
    if peak is None:
        return f"{decoded}, and what the networks take, which this system does not tell"
    where = "of the GPU at the peak" if trainer.device.type == "cuda" else "at the peak of these steps"
    return f"{_gigabytes(peak)} {where}, and up to {decoded}"


def _gigabytes(count: float) -> str:
    return f"{count / 2**30:.2f} GB"


def duration(seconds: float) -> str:
    """Time in the unit that suits it: "42 s", "17 min", "3 h 05 min"."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"
