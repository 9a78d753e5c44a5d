"""Strategies of the article's section 3 as phases: stage by stage, all at once, or scales at random."""

from __future__ import annotations

from dataclasses import replace

from ..checks import check_choice, check_integer, check_number
from .phase import PhaseConfig

STRATEGIES = ("progressive", "end_to_end", "multi_scale")
EARLIER = {"joint": 1.0, "slowed": 0.1, "frozen": 0.0}  # learning rate of the stages before, as a part
CROP_STEP = 8  # crops have a multiple of this many pixels a side


def phases_of(
    strategy: str,
    *,
    stages: int,
    steps: int,
    weights: int,
    crop: int = 48,
    batch: int = 16,
    learning_rate: float = 1e-4,
    earlier: str = "joint",
    pixel: float = 1.0,
    adversarial: bool = False,
    accumulate: int = 1,
    noisy: float = 0.25,
) -> tuple[PhaseConfig, ...]:
    """The phases of a strategy.

    - "progressive": the first stage alone, then with the second, and so on (LapSRN and ProGAN in spirit), in equal
      parts of the steps; crops become smaller as stages are added, so that a step's cost does not quadruple.
    - "end_to_end": all stages unrolled from the start.
    - "multi_scale": each step unrolls a number of stages drawn at random.

    Args:
        strategy: one of `STRATEGIES`.
        stages: to train.
        steps: in all.
        weights: stages that the model has weights for; further ones share the last one's.
        crop: side in pixels of the first stage's input where one stage is trained.
        batch, learning_rate, accumulate, noisy: see `PhaseConfig`.
        earlier: what happens to the stages before the newest in "progressive": one of `EARLIER`.
        pixel: where adversarial, the part of the steps that come first without a discriminator, which then joins the
            last phase; at 0 it takes part in every phase.
        adversarial: whether the loss has terms that need a discriminator.

    Raises:
        TypeError, ValueError: an argument is not as described, or there are fewer steps than phases.
    """
    check_choice(strategy, "strategy", STRATEGIES)
    check_choice(earlier, "earlier", list(EARLIER))
    check_integer(stages, "stages", 1)
    check_integer(weights, "weights", 1)
    check_integer(crop, "crop", CROP_STEP)
    check_number(pixel, "pixel", 0, 1)
    counts = range(1, stages + 1) if strategy == "progressive" else [stages]
    phases = [
        PhaseConfig(
            stages=count,
            steps=1,
            crop=crop_at(crop, count),
            batch=batch,
            accumulate=accumulate,
            learning_rate=learning_rate,
            noisy=noisy,
            rates=_rates(count, weights, EARLIER[earlier]) if strategy == "progressive" else {},
            sampled=strategy == "multi_scale" and count > 1,
        )
        for count in counts
    ]
    shares = [1.0 / len(phases)] * len(phases)
    if adversarial and pixel == 0:
        phases = [replace(phase, adversarial=True) for phase in phases]
    elif adversarial and pixel < 1:
        shares = [*(pixel * share for share in shares), 1.0 - pixel]
        phases.append(replace(phases[-1], adversarial=True))
    check_integer(steps, "steps", len(phases))
    return tuple(
        replace(phase, steps=count, warmup=min(100, count // 10))
        for phase, count in zip(phases, _split(steps, shares), strict=True)
    )


def crop_at(crop: int, stages: int) -> int:
    """Side of the first stage's input where so many stages are unrolled: the result grows by √2 a stage."""
    return max(int(crop / 2 ** ((stages - 1) / 2)) // CROP_STEP * CROP_STEP, CROP_STEP)


def _rates(stages: int, weights: int, rate: float) -> dict[str, float]:
    newest = min(stages, weights) - 1
    return {} if rate == 1 else {f"stages.{index}.*": rate for index in range(newest)}


def _split(steps: int, shares: list[float]) -> list[int]:
    """Whole numbers in these shares, at least one each, that add up."""
    counts = [max(int(steps * share), 1) for share in shares]
    counts[counts.index(max(counts))] += steps - sum(counts)
    return counts
