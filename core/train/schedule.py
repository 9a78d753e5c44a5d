"""Learning-rate schedule: linear warm-up, then a cosine."""

from __future__ import annotations

import math


def learning_rate(step: int, steps: int, peak: float, warmup: int = 0, final: float = 0.0) -> float:
    """The learning rate of a step.

    Args:
        step: 0 .. steps - 1.
        steps: length of the phase.
        peak: reached after the warm-up.
        warmup: steps of linear rise.
        final: the cosine ends at final · peak.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(steps - warmup, 1)
    return peak * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress)))
