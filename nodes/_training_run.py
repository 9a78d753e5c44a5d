"""A training run on a node: shown live, stopped at will, its memory given back."""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..core.chain import Chain
from ..core.checkpoint import CheckpointError
from ..core.perceptual_distance import PerceptualDistance
from ..core.pictures import read_picture
from ..core.train.about import About
from ..core.train.config import TrainConfig
from ..core.train.glimpse import Glimpse
from ..core.train.history import read_history
from ..core.train.loop import Trainer
from ..core.train.picture_sets import whole_side
from ..core.train.run_folder import BEST, HISTORY, STATE, sheet_path
from ..core.train.setup import learning
from ..core.train.state import read_state
from ..core.train.validate import validate
from . import _runtime as runtime
from ._inputs import inside
from ._training import TrainingPictures

PREVIEW_SECONDS = 3.0  # between two previews
PREVIEW_SHARE = 0.05  # of the time, at most, that is spent on them
TEXT_SECONDS = 0.5  # between two lines of text

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Order:
    """What a run works with beside its config.

    Attributes:
        data: the pictures.
        folder: of the run.
        resume: whether to go on with the run that is there, if there is one.
        best: whether the model that measured best is wanted in place of the last.
        vgg: file of VGG19's weights.
        distance: PD-squeeze.
        about: for the model's provenance.
    """

    data: TrainingPictures
    folder: Path
    resume: bool = False
    best: bool = False
    vgg: str | None = None
    distance: PerceptualDistance | None = None
    about: About | None = None

    @property
    def name(self) -> str:
        """Of the run, as the user gives it."""
        return self.folder.relative_to(runtime.runs_folder().resolve()).as_posix()


@dataclass(frozen=True, eq=False)
class Result:
    """What a run gives.

    Attributes:
        model: the trained one, at rest.
        curves, samples: `[1, 3, H, W]` in 0..1.
        text: what was done and measured.
    """

    model: Chain
    curves: Tensor
    samples: Tensor
    text: str


def run_folder(name: str, resume: bool) -> Path:
    """The folder of a run: that of the name, or, for a new run where there is one, of the name with a number.

    Raises:
        ValueError: no name for a folder.
    """
    target = inside(runtime.runs_folder(), name, "run_name")
    path, number = target, 2
    while not resume and path.exists():
        path, number = target.with_name(f"{target.name}_{number}"), number + 1
    return path


def train(config: TrainConfig, model: Chain, order: Order) -> Result:
    """Trains a copy of a model on ComfyUI's device. However it ends, the state is saved in the run's folder.

    Raises:
        Cancelled: the user has cancelled.
        OutOfMemory: with what to change.
        CheckpointError, RuntimeError, ValueError: as `Trainer`.
    """
    try:
        with learning(), torch.no_grad():  # nothing of it in inference mode, whose tensors cannot be trained
            return _train(config, model, order)
    except runtime.Cancelled:
        stopped: Exception = runtime.Cancelled()
    except runtime.OutOfMemory as error:
        phase, told = config.phases[0], str(error).partition("\n")[0]
        stopped = runtime.OutOfMemory(
            f"batch {phase.batch}, crop {phase.crop}, accumulate {phase.accumulate}: too much for the device's memory; "
            f"raise accumulate, or lower batch, crop or stages ({told})"
        )
    finally:
        runtime.give_back()
    raise stopped  # only here, where the error's frames, which hold the trainer, are gone


def _train(config: TrainConfig, model: Chain, order: Order) -> Result:
    runtime.say("getting ready")  # first of all: the front end puts pictures below what is on the node already
    device = runtime.whole_device()
    pictures, validation = order.data.open(whole_side(config, pd=order.distance is not None))
    if order.best and validation is None:
        raise ValueError("keep: expected last where there are no pictures to validate with, got best")
    begun = (order.folder / STATE).exists()
    trainer = Trainer(
        config,
        pictures,
        order.folder,
        val=validation,
        init=model,
        device=device,
        vgg=order.vgg,
        distance=order.distance,
        about=order.about,
        poll=runtime.check_cancelled,
    )
    before = {} if begun else _measured(trainer)
    trainer.on_step = live = Live(trainer, before)
    foreign = False
    try:
        if begun and order.resume:
            started_on = read_state(order.folder / STATE, config)[0].data
            foreign = started_on not in ("", pictures.fingerprint)
        trained = trainer.run(order.resume)
    except CheckpointError as error:
        if not begun:
            raise
        hint = "go on with the settings that it was started with, or switch resume off"
        raise CheckpointError(f"resume: {error}; {hint}") from None
    except runtime.Cancelled:
        told = f"stopped after {trainer.saved or 0} of {config.steps} steps; to go on: resume on, run_name {order.name}"
        _log.warning("Progressive Upsampling: training %s", told)
        runtime.say(told)
        raise
    if not isinstance(trained, Chain):
        raise TypeError(f"model: expected a Chain, got {type(trained).__name__}")
    trained.provenance = trainer.provenance()
    best = order.folder / BEST
    chosen = Chain.from_pretrained(best) if order.best and best.exists() else trained
    sheet = sheet_path(order.folder, config.steps)
    samples = read_picture(sheet).image if sheet.exists() else trainer.samples()
    text = _summary(trainer, order, before)
    if foreign:
        text += "\nthe pictures are not those that the run was started with"
    live.end(samples, text)
    return Result(runtime.at_rest(chosen), trainer.curves(), samples, text)


class Live:
    """Shows a run on its node, before it begins and after each step, and stops it when the user cancels.

    Args:
        trainer: of the run, before its first step.
        before: what was measured of the model as it is.
    """

    def __init__(self, trainer: Trainer, before: dict[str, float]) -> None:
        self._trainer, self._before = trainer, before
        self._report = runtime.Reporter(trainer.config.steps)
        config, model = trainer.config, trainer.ema.model
        stages = {phase.stages for phase in config.phases}
        shown = trainer.sampler.pictures if trainer.validation is None else trainer.validation
        self._glimpse = Glimpse(trainer.task, shown, model, stages, config.dtype, config.realistic)
        self._first: int | None = None
        self._measured: dict[str, float] = {}
        self._start = self._shown = self._said = time.monotonic()
        self._report(0, trainer.config.steps, self._sheet(), force=True)

    def __call__(self, done: int, total: int, values: dict[str, float]) -> None:
        runtime.check_cancelled()
        if self._first is None:  # the first step of a run is slow, and one that is resumed starts anywhere
            self._first, self._start = done, time.monotonic()
        self._measured = _figures(values) or self._measured
        if time.monotonic() - self._said >= TEXT_SECONDS:
            runtime.say(self._text(done, total, values))
            self._said = time.monotonic()
        self._report(done, total, self._preview(), force=True)

    def end(self, samples: Tensor, text: str) -> None:
        """Leaves the samples and the result on the node."""
        total = self._trainer.config.steps
        self._report(total, total, samples, force=True)
        runtime.say(text)

    def _preview(self) -> Tensor | None:
        if time.monotonic() - self._shown < max(PREVIEW_SECONDS, self._cost / PREVIEW_SHARE):
            return None
        return self._sheet()

    def _sheet(self) -> Tensor:
        start = time.monotonic()
        sheet = self._glimpse.sheet(self._trainer.ema.model, self._trainer.stages)
        self._shown = time.monotonic()
        self._cost = self._shown - start
        return sheet

    def _text(self, done: int, total: int, values: dict[str, float]) -> str:
        line, run = f"step {done} of {total}", done - (self._first or 0)
        if run > 0:
            each = (time.monotonic() - self._start) / run
            line += f", {each:.2f} s each, {clock(each * (total - done))} left"
        name = "output" if "output" in values else "loss"
        return "\n".join([line, ", ".join([f"{name} {values[name]:.4f}", *compared(self._before, self._measured)])])


def clock(seconds: float) -> str:
    """Time as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def compared(before: dict[str, float], now: dict[str, float]) -> list[str]:
    """For each scale the PSNR that was measured before the run, and what it is now.

    Only where both have the same scales: with another number of stages each of them starts from another input.
    """
    old = before if before.keys() == now.keys() else {}
    return [
        f"{name.replace('x', '×')} " + (f"{old[name]:.2f} → " if old else "") + f"{value:.2f} dB"
        for name, value in now.items()
    ]


def _measured(trainer: Trainer) -> dict[str, float]:
    """What a validation says of the model before the run."""
    if trainer.validation is None:
        return {}
    runtime.say(f"measuring the model as it is on {len(trainer.validation)} pictures")
    task, stages, dtype = trainer.task, trainer.config.phases[-1].stages, trainer.config.dtype
    values = validate(
        lambda image: task.outputs(trainer.ema.model, image, stages, dtype),
        trainer.validation,
        task.factors(stages),
        realistic=trainer.config.realistic,
        poll=runtime.check_cancelled,
    )
    return _figures(values)


def _summary(trainer: Trainer, order: Order, before: dict[str, float]) -> str:
    counters = trainer.counters
    step = counters.best_step if order.best else counters.step
    entries = [entry for entry in read_history(order.folder / HISTORY) if entry["step"] == step - 1]
    figures = _figures(entries[-1]) if entries else {}
    kept = f", kept that of step {step}" if order.best else ""
    measured = ", ".join(compared(before, figures)) or "no pictures to validate with"
    return f"{order.name}: {counters.step} steps in {clock(counters.seconds)}{kept}\n{measured}"


def _figures(values: dict[str, float]) -> dict[str, float]:
    """The PSNR that was measured in a validation, by scale; SSIM and PD-squeeze are in the curves."""
    return {name: value for name, value in values.items() if re.fullmatch(r"x\d+", name)}
