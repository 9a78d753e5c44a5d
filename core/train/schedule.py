"""Learning-rate schedules: linear warm-up, then a cosine, steps, or a constant; each a part of the peak."""

from __future__ import annotations

import math

SCHEDULES = ("cosine", "step", "constant")


def cosine(step: int, steps: int, warmup: int = 0, final: float = 0.0) -> float:
    """A linear rise to 1, then half a cosine down to `final` (Loshchilov 2017, arXiv 1608.03983).

    Args:
        step: 0 .. steps - 1.
        steps: length of the phase.
        warmup: steps of the rise.
        final: where the cosine ends.
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(steps - warmup, 1)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))


def stepped(step: int, step_size: int, gamma: float = 0.5, warmup: int = 0) -> float:
    """A linear rise to 1, then times `gamma` after every `step_size` steps (of EDSR's training, arXiv 1707.02921).

    Args:
        step: from 0.
        step_size: steps at one rate, counted from the phase's beginning.
        gamma: the factor.
        warmup: steps of the rise.
    """
    rise = (step + 1) / warmup if step < warmup else 1.0
    return rise * gamma ** (step // step_size)
