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
        seconds of one step. Crops are made beside it; where their pictures do not fit into memory and are decoded at
        each use, that may take longer than the step does, and is what counts.
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
            start = time.perf_counter()
            batches = trainer.batches_of(first, stages)
            making = (time.perf_counter() - start) * not_kept(trainer)
            step_time = sum(part * seconds(trainer, phase, batches, step) for step, part in parts.items() if part)
            total += max(step_time, making)
    return total / len(phase.drawn)


def not_kept(trainer: Trainer) -> float:
    """Part of the decoded pictures that does not fit into `data.memory`, 0..1."""
    pictures = trainer.sampler.pictures.bytes + (0 if trainer.validation is None else trainer.validation.bytes)
    return max(1 - trainer.config.data.memory / max(pictures, 1), 0.0)


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
