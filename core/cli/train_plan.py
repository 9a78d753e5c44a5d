"""`train --dry-run`: what a run would be and cost, measured on a real step of each phase."""

from __future__ import annotations

from torch import nn

from ..chain import Chain
from ..train.hardware import describe, peak_memory
from ..train.loop import Trainer
from ..train.pictures import Pictures
from ..train.trial import not_kept, trial
from ..unet import parameter_count
from .console import columns

_HEAD = ("phase", "stages", "crop", "batch", "peak rate", "steps", "s/step", "time")


def plan(trainer: Trainer) -> list[str]:
    """Lines that describe a run; the trainer must not be run afterwards.

    Args:
        trainer: new.
    """
    config, model = trainer.config, trainer.model
    rows, total = [], 0.0
    for number, phase in enumerate(config.phases, 1):
        seconds = trial(trainer, number - 1)
        total += seconds * phase.steps
        finest = phase.crop * trainer.task.factors(phase.stages)[-1]
        shape = (phase.stages, f"{phase.crop} to {finest}", phase.batch)
        costs = (phase.steps, f"{seconds:.2f}", duration(seconds * phase.steps))
        rows.append(tuple(str(text) for text in (number, *shape, f"{phase.learning_rate:g}", *costs)))
    lines = [
        f"model        {parameter_count(model):,} parameters{_stages(model)}",
        f"data         {_folder(trainer.sampler.pictures)}",
        f"validation   {'none' if trainer.validation is None else _folder(trainer.validation)}",
        f"machine      {describe(trainer.device)}, {str(trainer.dtype).removeprefix('torch.')}",
        *columns([_HEAD, *rows], words=0),
        f"time         {duration(total)} for {config.steps} steps, validation apart",
    ]
    return [*lines, f"memory       {_memory(trainer)}"]


def _stages(model: nn.Module) -> str:
    if not isinstance(model, Chain):
        return ""
    each = [f"stage {number} {parameter_count(model.stage(number)):,}" for number in range(1, len(model.stages) + 1)]
    return f" ({', '.join(each)})"


def _folder(pictures: Pictures) -> str:
    skipped = f", {len(pictures.skipped)} skipped" if pictures.skipped else ""
    return f"{len(pictures)} pictures in {pictures.name}{skipped}"


def _memory(trainer: Trainer) -> str:
    folders = (trainer.sampler.pictures, trainer.validation)
    pictures = min(sum(folder.bytes for folder in folders if folder is not None), trainer.config.data.memory)
    peak = peak_memory(trainer.device)
    beyond = f"; the other {not_kept(trainer):.0%} of them are decoded at each use" if not_kept(trainer) else ""
    decoded = f"{_gigabytes(pictures)} of decoded pictures{beyond}"
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
