"""What a training run is: its data, its phases, its optimiser. Frozen, and stored whole in the run and the model."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

from ..chain import ChainConfig
from ..checks import check_choice, check_integer, check_number
from ..precision import DTYPES
from .adversarial import AdversarialConfig
from .losses import PIXEL_LOSSES
from .perceptual import PerceptualConfig

MAX_SEED = 2**32 - 1  # torch's CPU generator keeps no more bits of a seed


@dataclass(frozen=True)
class PhaseConfig:
    """One part of a run: so many stages unrolled, trained for so many steps on crops of one size.

    Attributes:
        stages: stages that are run one after the other, each on what the one before really gives.
        steps: optimiser steps.
        crop: side of the first stage's input in pixels; the last stage sees crop · 2^stages.
        batch: crops a step.
        learning_rate: peak of the schedule.
        warmup: steps of linear rise before the cosine.
        final: the cosine ends at this part of the peak.
        noisy: crops of the batch, as a part of 1, on which the denoiser also learns to refine from noise.
        start_from: stage (1-based) whose weights a stage not trained yet starts from; 0 leaves it at birth.
        adversarial: whether a discriminator takes part. Begin without: it needs results that are good already.
    """

    stages: int
    steps: int
    crop: int = 48
    batch: int = 16
    learning_rate: float = 4e-4
    warmup: int = 100
    final: float = 0.01
    noisy: float = 0.25
    start_from: int = 0
    adversarial: bool = False

    def __post_init__(self) -> None:
        for name in ("stages", "steps", "crop", "batch"):
            check_integer(getattr(self, name), name, 1)
        check_integer(self.warmup, "warmup", 0)
        check_integer(self.start_from, "start_from", 0)
        check_number(self.learning_rate, "learning_rate", above=0)
        check_number(self.final, "final", 0, 1)
        check_number(self.noisy, "noisy", 0, 1)


@dataclass(frozen=True)
class LossConfig:
    """Weights of the loss terms; those of weight 0 are not computed. Each is a mean over the stages.

    Attributes:
        output: pixel loss of the stage's result.
        upsampler: pixel loss of the upsampler's own result, so that the denoiser is left with what is hard.
        refine: mean absolute error of the estimate from a noisy state at a random time.
        blind: mean absolute error of the estimate from a noisy image without conditioning.
        controller: the noise controller's negative log-likelihood; its gradients reach no other part.
        ssim, frequency: of the stage's result, see `losses`.
        perceptual: of the stage's result, see `perceptual`.
        adversarial: of the stage's result, see `adversarial`; only in phases that are adversarial.
        feature_matching: as `adversarial`.
        pixel: the pixel loss, "l1", "l2" or "charbonnier".
    """

    output: float = 1.0
    upsampler: float = 0.3
    refine: float = 0.25
    blind: float = 0.05
    controller: float = 0.01
    ssim: float = 0.0
    frequency: float = 0.0
    perceptual: float = 0.0
    adversarial: float = 0.0
    feature_matching: float = 0.0
    pixel: str = "l1"

    def __post_init__(self) -> None:
        weights = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "pixel"}
        for name, weight in weights.items():
            check_number(weight, name, 0)
        if not any(weights.values()):
            raise ValueError(f"loss: expected a weight above 0 among {', '.join(weights)}, got none")
        check_choice(self.pixel, "pixel", list(PIXEL_LOSSES))

    @property
    def judged(self) -> bool:
        """Whether a term needs a discriminator."""
        return self.adversarial > 0 or self.feature_matching > 0


@dataclass(frozen=True)
class TrainConfig:
    """A whole run.

    Attributes:
        chain: the model.
        phases: in order.
        loss: weights of the terms.
        perceptual: which features the term of that name compares.
        adversarial: how the discriminator of adversarial phases is made and trained.
        seed: 0..2^32-1, of everything random in the run; a step's crops and noise depend on it and the step alone.
        ema: decay of the averaged weights that are kept, after its own warm-up.
        clip: largest norm of the gradient.
        dtype: format of the forward pass, see `core.precision`.
        validate_every: steps between validations, 0 for none.
        save_every: steps between writings of the resumable state.
        memory: bytes of decoded pictures kept.
    """

    chain: ChainConfig = field(default_factory=ChainConfig)
    phases: tuple[PhaseConfig, ...] = (PhaseConfig(stages=1, steps=1000),)
    loss: LossConfig = field(default_factory=LossConfig)
    perceptual: PerceptualConfig = field(default_factory=PerceptualConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    seed: int = 0
    ema: float = 0.999
    clip: float = 0.5
    dtype: str = "auto"
    validate_every: int = 250
    save_every: int = 250
    memory: int = 2 << 30

    def __post_init__(self) -> None:
        if not self.phases:
            raise ValueError("phases: expected at least one, got none")
        if self.loss.judged != any(phase.adversarial for phase in self.phases):
            raise ValueError(
                "phases: expected adversarial ones where loss.adversarial or loss.feature_matching is above 0, "
                f"and nowhere else, got weights {self.loss.adversarial} and {self.loss.feature_matching}"
            )
        check_number(self.ema, "ema", 0, 1)
        check_number(self.clip, "clip", above=0)
        for name in ("validate_every", "save_every", "memory"):
            check_integer(getattr(self, name), name, 0)
        check_integer(self.seed, "seed", 0, MAX_SEED)
        check_choice(self.dtype, "dtype", DTYPES)

    @property
    def steps(self) -> int:
        """Steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def phase_at(self, step: int) -> tuple[int, int]:
        """(index of the phase, step inside it) of a step of the run."""
        for index, phase in enumerate(self.phases):
            if step < phase.steps:
                return index, step
            step -= phase.steps
        raise ValueError(f"step: expected less than {self.steps} steps in all, got {self.steps + step}")

    def scaled(self, steps: int) -> TrainConfig:
        """The run with its phases and their warm-ups made longer or shorter in the same ratio.

        Args:
            steps: of all phases together, at least one for each.

        Raises:
            TypeError, ValueError: no such number.
        """
        check_integer(steps, "steps", len(self.phases))
        shares = [phase.steps * steps / self.steps for phase in self.phases]
        counts = [max(int(share), 1) for share in shares]
        while sum(counts) != steps:  # what rounding left goes where it is missed most
            change = 1 if sum(counts) < steps else -1
            open_ = [i for i, count in enumerate(counts) if count + change >= 1]
            index = max(open_, key=lambda i: change * (shares[i] - counts[i]))
            counts[index] += change
        phases = tuple(
            replace(phase, steps=count, warmup=round(phase.warmup * count / phase.steps))
            for phase, count in zip(self.phases, counts, strict=True)
        )
        return replace(self, phases=phases)

    def starting_from(self, chain: ChainConfig) -> TrainConfig:
        """The run for a chain that is trained already: no stage takes over another one's weights.

        Args:
            chain: of the model to start from.
        """
        return replace(self, chain=chain, phases=tuple(replace(phase, start_from=0) for phase in self.phases))
