"""The terms of a run that compare a stage's result with its target as a picture: structure, features, realism."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from .config import PhaseConfig, TrainConfig
from .critic import Critic
from .distributed import World
from .learner import Learner
from .losses import ImageLoss, frequency, ssim
from .perceptual import PerceptualLoss, perceptual_loss
from .texture import checkerboard, spectrum

# by the name of their weight
IMAGE_LOSSES: dict[str, ImageLoss] = {
    "ssim": ssim,
    "frequency": frequency,
    "spectrum": spectrum,
    "checkerboard": checkerboard,
}


class Objective:
    """Calls itself with (output, target) of each stage of a step, and keeps them for the discriminator.

    Args:
        config: of the run.
        device: where it is trained.
        dtype: number format of the discriminator's passes.
        scaler: of the losses.
        vgg: file of VGG19's weights for the perceptual term; None takes random ones.

    Attributes:
        critic: the discriminator; None in a run without adversarial phases.
        trunk: what the perceptual term's features are, in words; empty without that term.

    Raises:
        CheckpointError: the file cannot be used.
        ValueError: crops of a phase are too small for one of its terms.
    """

    def __init__(
        self,
        config: TrainConfig,
        device: torch.device,
        dtype: torch.dtype,
        scaler: torch.amp.GradScaler,
        vgg: str | Path | None = None,
    ) -> None:
        loss = config.loss
        self._terms = {name: term for name, term in IMAGE_LOSSES.items() if getattr(loss, name)}
        self.trunk = ""
        if loss.perceptual:
            features: PerceptualLoss = perceptual_loss(config.perceptual, vgg).to(device)
            self._terms["perceptual"], self.trunk = features, features.label
        self.critic = Critic(config.adversarial, loss, config.seed, device, dtype, scaler) if loss.judged else None
        self._judged, self._pairs = False, []
        for number, phase in enumerate(config.phases, 1):
            self._check(number, phase, config, device)

    def begin_phase(self, world: World) -> None:
        """Makes the discriminator's optimiser anew."""
        if self.critic is not None:
            self.critic.begin(world)

    def begin_step(self, phase: PhaseConfig, rate: float = 0.0) -> None:
        """Forgets the step before.

        Args:
            phase: that the step belongs to.
            rate: the learning rate as a part of its peak.
        """
        self._judged, self._pairs = phase.adversarial, []
        if self.critic is not None and self._judged:
            self.critic.begin_step(rate)

    def __call__(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The unweighted terms of one stage by name.

        Args:
            output: its result, `[B, 3, H, W]`.
            target: the same shape.
        """
        terms = {name: term(output, target) for name, term in self._terms.items()}
        if self.critic is not None and self._judged:
            terms |= self.critic.terms(output, target)
            self._pairs.append((output.detach(), target))
        return terms

    def backward(self, step: int, weight: float, wait: bool = False) -> dict[str, float]:
        """The gradient of the discriminator for the results since the last call, see `Critic.backward`."""
        if self.critic is None or not self._judged:
            return {}
        pairs, self._pairs = self._pairs, []
        return self.critic.backward(pairs, step, weight, wait)

    def clipped(self) -> dict[str, float]:
        """Clips the discriminator's gradient; its norm by name, nothing where it has no part."""
        if self.critic is None or not self._judged:
            return {}
        return {"discriminator_gradient": self.critic.clipped()}

    def update(self) -> None:
        """Takes the discriminator's step."""
        if self.critic is not None and self._judged:
            self.critic.update()

    def learners(self) -> list[Learner]:
        """What the run's state holds besides the model."""
        return [] if self.critic is None else [self.critic.learner]

    def _check(self, number: int, phase: PhaseConfig, config: TrainConfig, device: torch.device) -> None:
        # The first stage's results are the smallest; better now than hours later, when the phase begins.
        side = phase.crop * config.factor
        smallest = torch.full((1, 3, side, side), 0.5, device=device)
        self.begin_step(phase)
        try:
            with torch.no_grad():
                self(smallest, smallest)
        except ValueError as error:
            raise ValueError(f"phase {number}: crops of {phase.crop} px are too small for the loss: {error}") from None
        finally:
            self._judged, self._pairs = False, []
