"""What the steps of a phase cost, measured on one of each kind."""

from __future__ import annotations

import time

from .data import Batch
from .loop import Trainer
from .phase import PhaseConfig
from .setup import learning


def trial(trainer: Trainer, number: int) -> float:
    """Takes steps of a phase and times them. What has been learned is spoilt by it, and the memory of the largest held.

    Steps differ by how many stages they run, where that is drawn, and by whether R1 is due. Each kind counts for its
    part of the phase.

    Args:
        trainer: which must not be run afterwards.
        number: index of the phase.

    Returns:
        seconds of one step, without the making of crops, which goes on beside it.
    """
    config = trainer.config
    phase, first = config.phases[number], sum(before.steps for before in config.phases[:number])
    # by a step's number, which alone decides that R1 is due
    parts = {1: 1.0}
    if phase.adversarial and config.adversarial.r1:
        due = 1 / config.adversarial.r1_every
        parts = {0: due, 1: 1 - due}
    with learning():
        trainer.stepper.begin(phase)
        total = 0.0
        for stages in phase.drawn:
            batches = trainer.batches_of(first, stages)
            total += sum(part * seconds(trainer, phase, batches, step) for step, part in parts.items() if part)
    return total / len(phase.drawn)


def seconds(trainer: Trainer, phase: PhaseConfig, batches: list[Batch], step: int) -> float:
    """Takes a step twice, and times the second.

    Args:
        trainer: its optimisers those of the phase.
        phase: of the step.
        batches: of `Trainer.batches_of`.
        step: its number.
    """
    times = [time.perf_counter()]
    for _ in range(2):
        trainer.stepper.gradient(batches, phase, step, 0)
        trainer.stepper.update()
        trainer.ema.update(trainer.model)
        times.append(time.perf_counter())
    return times[-1] - times[-2]
