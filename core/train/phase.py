"""One part of a training run: how long, on what crops, at what learning rates."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from ..checks import check_choice, check_integer, check_number
from .schedule import SCHEDULES, cosine, stepped


@dataclass(frozen=True)
class PhaseConfig:
    """One part of a run: so many stages unrolled, trained for so many steps on crops of one size.

    Attributes:
        stages: stages that are run one after the other, each on what the one before really gives.
        steps: optimiser steps.
        crop: side of the first stage's input in pixels; the last stage's result has crop · 2^stages.
        batch: crops a step.
        accumulate: parts that the batch of each process is computed in, one after the other; saves memory. What is
            learned stays the same, but for the relativistic loss, whose means are those of a part.
        learning_rate: peak of the schedule.
        warmup: steps of linear rise before it; at most half of the phase's.
        schedule: "cosine" to `final`, "step": times `gamma` after every `step_size` steps, or "constant".
        final: schedule "cosine": it ends at this part of the peak.
        step_size, gamma: schedule "step".
        rates: multipliers of the learning rate by pattern of a parameter's name (`stages.0.*`, `*.denoiser.*`); the
            last that matches counts, 1 where none does, and 0 freezes. So earlier stages are frozen or slowed.
        noisy: crops of the batch, as a part of 1, on which the denoiser also learns to refine from noise; at least one
            where it is above 0.
        noise: sigma of the noisy crops, from..to in units of sigma_r, spread evenly on a log scale.
        start_from: stage (1-based) whose weights a stage not trained yet starts from; 0 leaves it at birth.
        sampled: whether each step runs a number of stages drawn from 1..stages in place of all.
        adversarial: whether a discriminator takes part. Begin without: it needs results that are good already.
    """

    stages: int
    steps: int
    crop: int = 48
    batch: int = 16
    accumulate: int = 1
    learning_rate: float = 4e-4
    warmup: int = 100
    schedule: str = "cosine"
    final: float = 0.01
    step_size: int = 1000
    gamma: float = 0.5
    rates: dict[str, float] = field(default_factory=dict)
    noisy: float = 0.25
    noise: tuple[float, float] = (0.25, 4.0)  # from one that hardly shows to one that hides the detail
    start_from: int = 0
    sampled: bool = False
    adversarial: bool = False

    def __post_init__(self) -> None:
        for name in ("stages", "steps", "crop", "batch", "accumulate", "step_size"):
            check_integer(getattr(self, name), name, 1)
        check_integer(self.warmup, "warmup", 0)
        check_integer(self.start_from, "start_from", 0)
        check_number(self.learning_rate, "learning_rate", above=0)
        check_choice(self.schedule, "schedule", SCHEDULES)
        check_number(self.final, "final", 0, 1)
        check_number(self.gamma, "gamma", 0, 1)
        check_number(self.noisy, "noisy", 0, 1)
        for end in self.noise:
            check_number(end, "noise", above=0)
        if self.noise[0] > self.noise[1]:
            raise ValueError(f"noise: expected (low, high), got {self.noise}")
        for pattern, rate in self.rates.items():
            check_number(rate, f"rates[{pattern!r}]", 0)
        check_choice(self.sampled, "sampled", (False, True))
        check_choice(self.adversarial, "adversarial", (False, True))
        if self.accumulate > self.batch:
            raise ValueError(f"accumulate: expected at most the batch of {self.batch}, got {self.accumulate}")

    @property
    def noisy_crops(self) -> int:
        """Crops of the batch that also go through the noisy paths: the first so many."""
        return max(round(self.noisy * self.batch), 1) if self.noisy > 0 else 0

    @property
    def drawn(self) -> tuple[int, ...]:
        """The numbers of stages that its steps may run."""
        return tuple(range(1, self.stages + 1)) if self.sampled else (self.stages,)

    def stages_at(self, seed: int, step: int) -> int:
        """How many stages a step runs.

        Args:
            seed, step: of the run.
        """
        if not self.sampled:
            return self.stages
        # a word of its own: the crops are drawn from (seed, step, index)
        return int(np.random.default_rng((seed, step, 2**32)).integers(1, self.stages + 1))

    def share_at(self, step: int) -> float:
        """The learning rate as a part of its peak.

        Args:
            step: inside the phase, from 0.
        """
        warmup = min(self.warmup, self.steps // 2)
        if self.schedule == "step":
            return stepped(step, self.step_size, self.gamma, warmup)
        return cosine(step, self.steps, warmup, self.final if self.schedule == "cosine" else 1.0)

    def scaled(self, steps: int) -> PhaseConfig:
        """The phase with another number of steps; warm-up and decay keep their parts of it."""
        ratio = steps / self.steps
        return replace(
            self,
            steps=steps,
            warmup=round(self.warmup * ratio),
            step_size=max(round(self.step_size * ratio), 1),
        )
