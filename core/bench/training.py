"""Training speed: a step of a recipe by this package's trainer, beside a plain loop over the same network.

The plain loop is what a first script would be: float32, the framework's own memory layout, Adam, no average of the
weights. The trainer's step has clipping, the average, the checks and the figures of the history on top.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..train.config import TrainConfig
from ..train.history import read_history
from ..train.loop import Trainer
from ..train.pictures import PictureBatch, Pictures
from ..train.recipe import read_recipe
from ..train.run_folder import HISTORY
from ..train.setup import learning
from .ceiling import Work, convolution, share
from .pictures import sample
from .report import Figure, Report
from .timing import Timing, paired

RECIPE = "edsr_x2"
PLAIN, OURS, CEILING = "plain float32 loop", "this trainer", "as many operations in convolutions"
BATCH = 16  # crops of a step, as Lim 2017 trains with
COUNT, SIDE = 16, 320  # of the pictures that are made where none are given


@dataclass(frozen=True)
class TrainingBench:
    """What the suite measured.

    Attributes:
        recipe: whose step it was.
        dtype: that the trainer computed in.
        timings: the plain loop, the trainer, the ceiling.
        flops: floating-point operations of a step, forward and backward, as torch counts them.
        ceiling: a convolution of 64 channels in that dtype, forward, as often as makes those.
        waiting: part of a run's time in which the trainer waited for crops.
        seconds: of a step in that run.
    """

    recipe: str
    dtype: str
    timings: tuple[Timing, ...]
    flops: float
    ceiling: Work
    waiting: float
    seconds: float


def bench_training(
    device: torch.device,
    *,
    recipe: str = RECIPE,
    pictures: Pictures | None = None,
    rounds: int = 8,
    steps: int = 20,
    on_round: Callable[[int], None] = lambda done: None,
) -> TrainingBench:
    """Runs the suite.

    Args:
        device: where.
        recipe: of a single upsampler.
        pictures: training pictures; None makes some, which take as long.
        rounds: paired steps.
        steps: of the run that shows how long crops are waited for.
        on_round: progress, called with the rounds done.

    Raises:
        ValueError: as `check_training`.
    """
    config = check_training(recipe)
    shown = PictureBatch(sample(SIDE, SIDE, COUNT)) if pictures is None else pictures
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(config, shown, Path(folder) / "trial", device=device)
        batches = trainer.batches_of(0)
        image, target = (scale.to(device) for scale in batches[0].scales)
        plain = PlainLoop(trainer, image, target)

        def ours() -> None:
            trainer.counters.step = 1  # not the first one, which begins a phase
            trainer.train_step(batches)

        with learning():
            trainer.train_step(batches)
            with FlopCounterMode(display=False) as counter:
                plain.step()
            ceiling = convolution(device, trainer.dtype).repeated(counter.get_total_flops())
            timings = paired({PLAIN: plain.step, OURS: ours, CEILING: ceiling.run}, rounds, device, on_round)
        waiting, seconds = _waiting(config, shown, Path(folder) / "run", device, steps)
    dtype = str(trainer.dtype).removeprefix("torch.")
    return TrainingBench(recipe, dtype, tuple(timings), counter.get_total_flops(), ceiling, waiting, seconds)


def check_training(recipe: str, pictures: Pictures | None = None) -> TrainConfig:
    """The recipe's first phase with BATCH crops a step, if the suite can run it.

    Args:
        recipe: its name.
        pictures: training pictures.

    Raises:
        ValueError: no such recipe, or not that of a single upsampler; no crops for it in the pictures.
    """
    config = read_recipe(recipe)
    if config.upsampler is None:
        raise ValueError(f"recipe: expected one of a single upsampler, got {recipe!r}")
    config = replace(config, phases=(replace(config.phases[0], batch=BATCH, accumulate=1),))
    if pictures is not None:
        Trainer(config, pictures, "unused")  # which writes nothing before it runs
    return config


class PlainLoop:
    """Forward, L1, backward and Adam in float32 with the framework's own layout."""

    def __init__(self, trainer: Trainer, image: Tensor, target: Tensor) -> None:
        with learning():
            self._network: nn.Module = trainer.task.build().to(image.device)
        self._image, self._target = image.contiguous(), target.contiguous()
        self._optimizer = torch.optim.Adam(self._network.parameters(), lr=1e-4)

    def step(self) -> None:
        """One step."""
        self._optimizer.zero_grad(set_to_none=True)
        F.l1_loss(self._network(self._image), self._target).backward()
        self._optimizer.step()


def training_report(result: TrainingBench) -> Report:
    """The suite's figures as a table."""
    rows = [["step", "seconds", "faster", "GFLOP/s", "of the ceiling"]]
    figures: list[Figure] = []
    *loops, best = result.timings
    for timing in loops:
        reached, of = result.flops / timing.seconds, share(timing, result.flops, best, result.ceiling)
        rows.append([timing.name, f"{timing.seconds:.3f}", f"{timing.ratio:.2f}x", f"{reached / 1e9:.0f}", f"{of:.0%}"])
        figures.append(Figure(f"step, {timing.name}", timing.seconds, "s", "lower"))
        figures.append(Figure(f"step, {timing.name}: faster than the first", timing.ratio, "x", "higher"))
    rows.append([best.name, f"{best.seconds:.3f}", "", f"{result.ceiling.operations / best.seconds / 1e9:.0f}", ""])
    figures.append(Figure("waiting for crops", result.waiting, "", "lower"))
    title = (
        f"training, recipe {result.recipe}, batch {BATCH}, {result.dtype}, "
        f"medians of {len(loops[0].each)} paired steps; the ceiling is a convolution of 64 channels"
    )
    notes = [f"in a run: {result.seconds:.3f} s a step, {result.waiting:.1%} of the time waiting for crops"]
    return Report(title, rows, notes, figures)


def _waiting(
    config: TrainConfig, pictures: Pictures, out: Path, device: torch.device, steps: int
) -> tuple[float, float]:
    """(part of the time spent waiting for crops, seconds of a step) in a run, its first step left out."""
    short = replace(config.scaled(steps), validate_every=0, save_every=0)
    Trainer(short, pictures, out, device=device).run()
    entries = read_history(out / HISTORY)[1:]
    waited, worked = (sum(entry[key] for entry in entries) for key in ("wait", "seconds"))
    return waited / (waited + worked), worked / len(entries)
