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
from .timing import Timing, paired, timed

RECIPE = "edsr_x2"
PLAIN, OURS = "plain float32 loop", "this trainer"
CEILING_SIDE, CEILING_CHANNELS = 256, 64  # of the convolution that shows what the machine can do


@dataclass(frozen=True)
class TrainingBench:
    """What the suite measured.

    Attributes:
        recipe: whose step it was.
        dtype: that the trainer computed in.
        timings: the plain loop first.
        flops: floating-point operations of a step, forward and backward, as torch counts them.
        ceiling: operations a second of a convolution of 64 channels in that dtype, forward.
        waiting: part of a run's time in which the trainer waited for crops.
        seconds: of a step in that run.
    """

    recipe: str
    dtype: str
    timings: tuple[Timing, ...]
    flops: float
    ceiling: float
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
        pictures: training pictures; None makes some noise, which takes as long.
        rounds: paired steps.
        steps: of the run that shows how long crops are waited for.
        on_round: progress, called with the rounds done.

    Raises:
        ValueError: the recipe is not that of a single upsampler.
    """
    config = read_recipe(recipe)
    if config.upsampler is None:
        raise ValueError(f"recipe: expected one of a single upsampler, got {recipe!r}")
    shown = noise_pictures() if pictures is None else pictures
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(config, shown, Path(folder) / "trial", device=device)
        batches = trainer._batches(0)
        image, target = (scale.to(device) for scale in batches[0].scales)
        plain = PlainLoop(trainer, image, target)

        def ours() -> None:
            trainer.counters.step = 1  # not the first one, which begins a phase
            trainer._train_step(batches)

        with learning():
            trainer._train_step(batches)
            with FlopCounterMode(display=False) as counter:
                plain.step()
            timings = paired({PLAIN: plain.step, OURS: ours}, rounds, device, on_round)
        ceiling = convolution_ceiling(device, trainer.dtype)
        waiting, seconds = _waiting(config, shown, Path(folder) / "run", device, steps)
    dtype = str(trainer.dtype).removeprefix("torch.")
    return TrainingBench(recipe, dtype, tuple(timings), counter.get_total_flops(), ceiling, waiting, seconds)


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


def convolution_ceiling(device: torch.device, dtype: torch.dtype, rounds: int = 8) -> float:
    """Operations a second of a 3×3 convolution of 64 channels, channels last: what a step could reach at best."""
    side, channels = CEILING_SIDE, CEILING_CHANNELS
    layer = nn.Conv2d(channels, channels, 3, padding=1, bias=False).to(device, dtype)
    layer = layer.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    x = torch.randn(1, channels, side, side, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        layer(x)
        best = min(timed(lambda: layer(x), device) for _ in range(rounds))
    return 2 * 9 * channels**2 * side**2 / best


def noise_pictures(count: int = 16, side: int = 320) -> PictureBatch:
    """Pictures of noise."""
    generator = torch.Generator().manual_seed(0)
    return PictureBatch(torch.rand(count, 3, side, side, generator=generator))


def _waiting(
    config: TrainConfig, pictures: Pictures, out: Path, device: torch.device, steps: int
) -> tuple[float, float]:
    """(part of the time spent waiting for crops, seconds of a step) in a run, its first step left out."""
    short = replace(config.scaled(steps), validate_every=0, save_every=0)
    Trainer(short, pictures, out, device=device).run()
    entries = read_history(out / HISTORY)[1:]
    waited, worked = (sum(entry[key] for entry in entries) for key in ("wait", "seconds"))
    return waited / (waited + worked), worked / len(entries)
