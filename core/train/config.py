"""What a training run is: its data, its phases, its optimiser. Frozen, and stored whole in the run and the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..chain import ChainConfig
from ..checks import check_choice, check_integer, check_number
from ..denoiser import DenoiserConfig
from ..precision import DTYPES
from ..upsamplers import build_upsampler
from ..upsamplers.registry import upsampler_config
from .adversarial import AdversarialConfig
from .data_config import DataConfig
from .degradation import RealisticConfig
from .learner import OPTIMIZERS
from .losses import CHANNELS, PIXEL_LOSSES
from .perceptual import PerceptualConfig
from .phase import PhaseConfig
from .seeds import MAX_SEED

__all__ = ["MAX_SEED", "SELECT", "LossConfig", "PhaseConfig", "TrainConfig"]

SELECT = ("psnr", "ssim", "pd")
JUDGED = ("output", "refined")

ModelConfig = ChainConfig | DenoiserConfig | dict[str, Any]  # of what is trained; a dict is that of an upsampler


@dataclass(frozen=True)
class LossConfig:
    """Weights of the loss terms; those of weight 0 are not computed. Each is a mean over the stages.

    Attributes:
        output: pixel loss of the stage's result; where `judge` is "refined", plus that of the refined one.
        upsampler: pixel loss of the upsampler's own result, so that the denoiser is left with what is hard.
        refine: mean absolute error of the estimate from a noisy state at a random time.
        blind: mean absolute error of the estimate from a noisy image without conditioning.
        controller: the noise controller's negative log-likelihood; its gradients reach no other part.
        ssim, frequency: of the stage's result, see `losses`.
        spectrum, checkerboard: of the stage's result, see `texture`.
        perceptual: of the stage's result, see `perceptual`.
        adversarial: of the stage's result, see `adversarial`; only in phases that are adversarial.
        feature_matching: as `adversarial`.
        pixel: the pixel loss, "l1", "l2" or "charbonnier".
        judge: which result of a stage the terms on pictures (ssim to feature_matching) see: "output", the one of
            least error that detail 0 shows, or "refined", an estimate from noise as detail 1 shows it. Detail 0 is
            then left to the pixel losses, and no gradient passes from one stage to another.
        channel: what the pixel loss sees: "rgb", or "y", the luma of BT.601 in 16/255..235/255, for networks that see
            no more.
    """

    output: float = 1.0
    upsampler: float = 0.3
    refine: float = 0.25
    blind: float = 0.05
    controller: float = 0.01
    ssim: float = 0.0
    frequency: float = 0.0
    spectrum: float = 0.0
    checkerboard: float = 0.0
    perceptual: float = 0.0
    adversarial: float = 0.0
    feature_matching: float = 0.0
    pixel: str = "l1"
    channel: str = "rgb"
    judge: str = "output"

    def __post_init__(self) -> None:
        weights = {item.name: getattr(self, item.name) for item in fields(self) if item.type == "float"}
        for name, weight in weights.items():
            check_number(weight, name, 0)
        if not any(weights.values()):
            raise ValueError(f"loss: expected a weight above 0 among {', '.join(weights)}, got none")
        check_choice(self.pixel, "pixel", list(PIXEL_LOSSES))
        check_choice(self.channel, "channel", CHANNELS)
        check_choice(self.judge, "judge", JUDGED)

    @property
    def weights(self) -> dict[str, float]:
        """The weights above 0, by the name of their term."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.type == "float" and getattr(self, f.name)}

    @property
    def judged(self) -> bool:
        """Whether a term needs a discriminator."""
        return self.adversarial > 0 or self.feature_matching > 0


@dataclass(frozen=True)
class TrainConfig:
    """A whole run.

    Attributes:
        chain: the model; of no effect where `upsampler` or `denoiser` is given, or the run starts from a chain, whose
            own config it keeps. Its `back_projection` becomes false where `data.degradation` is "realistic": the
            result would be brought back to the noise of its input.
        upsampler: a single network to train in place of a chain, as `core.build_upsampler` takes it. It has one
            stage, and of the loss terms those of a stage's result alone.
        denoiser: a single denoiser to train in place of a chain, for blind use. It has one stage, and of the loss
            terms "blind", and those on pictures.
        kappa: of every stage of the chain, in place of its own, see `StageConfig`; None keeps that.
        afresh: patterns of the parameters' names (`*.denoiser.unet.tail.*`) that begin at birth all the same where the
            run starts from a model.
        init: bundled model or file to start from, where whoever starts the run names none; empty for birth. Of no
            effect on a run that goes on from its state.
        phases: in order.
        loss: weights of the terms.
        perceptual: which features the term of that name compares.
        adversarial: how the discriminator of adversarial phases is made and trained.
        data: how pictures become crops.
        seed: 0..2^32-1, of everything random in the run; a step's crops and noise depend on it and the step alone.
        optimizer: of the model, "adam", or "muon" (see `muon`), whose learning rates are some 20 times Adam's. The
            discriminator has Adam.
        ema: decay of the averaged weights that are kept, after its own warm-up.
        clip: largest norm of the gradient.
        dtype: format of the forward pass, see `core.precision`.
        validate_every: steps between validations, each with a sheet of samples; 0 for none but the last.
        save_every: steps between writings of the resumable state.
        select: what makes a model the best: "psnr", "ssim" (highest) or "pd" (lowest; needs SqueezeNet's weights).
    """

    chain: ChainConfig = field(default_factory=ChainConfig)
    upsampler: dict[str, Any] | None = None
    denoiser: DenoiserConfig | None = None
    kappa: float | None = None
    afresh: tuple[str, ...] = ()
    init: str = ""
    phases: tuple[PhaseConfig, ...] = (PhaseConfig(stages=1, steps=1000),)
    loss: LossConfig = field(default_factory=LossConfig)
    perceptual: PerceptualConfig = field(default_factory=PerceptualConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    data: DataConfig = field(default_factory=DataConfig)
    seed: int = 0
    optimizer: str = "adam"
    ema: float = 0.999
    clip: float = 0.5
    dtype: str = "auto"
    validate_every: int = 250
    save_every: int = 250
    select: str = "psnr"

    def __post_init__(self) -> None:
        if self.data.degradation == "realistic" and self.chain.back_projection:
            object.__setattr__(self, "chain", replace(self.chain, back_projection=False))
        if self.kappa is not None:
            stages = tuple(replace(stage, kappa=self.kappa) for stage in self.chain.stages)
            object.__setattr__(self, "chain", replace(self.chain, stages=stages))
        if not self.phases:
            raise ValueError("phases: expected at least one, got none")
        if self.loss.judged != any(phase.adversarial for phase in self.phases):
            raise ValueError(
                "phases: expected adversarial ones where loss.adversarial or loss.feature_matching is above 0, "
                f"and nowhere else, got weights {self.loss.adversarial} and {self.loss.feature_matching}"
            )
        if self.upsampler is not None:
            try:
                build_upsampler(self.upsampler)
            except ValueError as error:
                raise ValueError(f"upsampler: {error}") from None
        if self.upsampler is not None and self.denoiser is not None:
            raise ValueError("denoiser: expected none beside upsampler, as one network is trained, got both")
        if self.single:
            self._check_single("blind" if self.upsampler is None else "output")
        for number, phase in enumerate(self.phases, 1):
            self._check_terms(number, phase)
        check_choice(self.optimizer, "optimizer", OPTIMIZERS)
        check_number(self.ema, "ema", 0, 1)
        check_number(self.clip, "clip", above=0)
        for name in ("validate_every", "save_every"):
            check_integer(getattr(self, name), name, 0)
        check_integer(self.seed, "seed", 0, MAX_SEED)
        check_choice(self.dtype, "dtype", DTYPES)
        check_choice(self.select, "select", SELECT)

    def _check_single(self, own: str) -> None:
        if any(phase.stages != 1 or phase.start_from for phase in self.phases):
            raise ValueError("phases: expected stages 1 and start_from 0, as a single network has one stage")
        parts = ("output", "upsampler", "refine", "blind", "controller")
        foreign = [name for name in parts if name in self.loss.weights and name != own]
        if self.loss.judge != "output":
            foreign.append('judge "refined"')
        if foreign:
            raise ValueError(f"loss: expected no {', '.join(foreign)}, which a single network does not have")

    def _check_terms(self, number: int, phase: PhaseConfig) -> None:
        """Refuses a phase that would have nothing to learn from, now and not when it begins."""
        elsewhere = {}
        if not phase.adversarial:
            elsewhere |= dict.fromkeys(("adversarial", "feature_matching"), "phases with a discriminator")
        if not self.single and not phase.noisy_crops:
            elsewhere |= dict.fromkeys(("refine", "blind"), "phases with noisy above 0")
        weights = self.loss.weights
        if all(name in elsewhere for name in weights):
            got = ", ".join(f"{name} (for {elsewhere[name]})" for name in weights)
            own = "output" if self.denoiser is None else "blind"
            raise ValueError(f"phase {number}: expected a weight for a term that it has, as {own}, got only {got}")

    @property
    def single(self) -> bool:
        """Whether a single network is trained in place of a chain."""
        return self.upsampler is not None or self.denoiser is not None

    @property
    def realistic(self) -> RealisticConfig | None:
        """How the inputs that the model is measured and shown on are degraded; None where they are clean.

        A single denoiser is given pictures as they are, and noise.
        """
        degraded = self.data.degradation == "realistic" and self.denoiser is None
        return self.data.realistic if degraded else None

    @property
    def factor(self) -> int:
        """Size of the first stage's result in multiples of its input."""
        alone = 2 if self.denoiser is None else 1
        return alone if self.upsampler is None else int(self.upsampler.get("scale", 2))

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
        """The run with its phases made longer or shorter in the same ratio.

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
        phases = tuple(phase.scaled(count) for phase, count in zip(self.phases, counts, strict=True))
        return replace(self, phases=phases)

    def without_paths(self) -> TrainConfig:
        """The run as its models tell of it: of the file that it starts from the name alone."""
        return replace(self, init=Path(self.init).name)

    def starting_from(self, model: ModelConfig) -> TrainConfig:
        """The run for a model that is trained already: no stage takes over another one's weights.

        Args:
            model: the config of the chain, or of the single network, to start from. The run keeps its own scale
                where the two differ in nothing else.
        """
        phases = tuple(replace(phase, start_from=0) for phase in self.phases)
        if isinstance(model, ChainConfig):
            return replace(self, chain=model, upsampler=None, denoiser=None, phases=phases)
        if isinstance(model, DenoiserConfig):
            return replace(self, upsampler=None, denoiser=model, phases=phases)
        own = self.upsampler and upsampler_config(build_upsampler(self.upsampler))
        kept = own if own and alike_but_for_scale(own, model) else dict(model)
        return replace(self, upsampler=kept, denoiser=None, phases=phases)


def alike_but_for_scale(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two configs of single upsamplers differ in nothing but their scale, if in that."""
    return {**one, "scale": None} == {**other, "scale": None}
