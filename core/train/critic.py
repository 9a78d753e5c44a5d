"""The discriminator in training: its terms for the generator, and its own steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .adversarial import AdversarialConfig, discriminator_loss, feature_matching, generator_loss, r1_penalty
from .config import LossConfig
from .discriminators import Discriminator, Judgement, build_discriminator
from .distributed import World, waiting
from .learner import Learner
from .setup import training_autocast
from .spectral import follow_weights

NAME = "discriminator"

Pairs = list[tuple[Tensor, Tensor]]  # (result, target) of each stage, detached


class Critic:
    """A discriminator and its optimiser.

    Args:
        config: of both.
        loss: weights; decides which terms are computed.
        seed: of the weights at birth.
        device: where it is trained.
        dtype: number format of its passes, but for the penalty, which is float32.
        scaler: of the losses.

    Attributes:
        network: the discriminator.
        learner: what the run's state holds of it.
    """

    def __init__(
        self,
        config: AdversarialConfig,
        loss: LossConfig,
        seed: int,
        device: torch.device,
        dtype: torch.dtype,
        scaler: torch.amp.GradScaler,
    ) -> None:
        self.config, self.loss = config, loss
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = build_discriminator(config.discriminator)
        self.network: Discriminator = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.learner = Learner(NAME, self.network, config.clip, scaler)
        self._losses = _Losses(self.network, config, device, dtype)
        self.begin(World())

    def begin(self, world: World) -> None:
        """Starts a phase: a new optimiser, weights that go on, gradients averaged over the processes."""
        self.learner.begin({})
        self._wrapped = world.wrap(self._losses)
        self.network.requires_grad_(False)

    def terms(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        """What the generator is told of a result, unweighted; gradients reach the result alone.

        Args:
            output: `[B, 3, H, W]`.
            target: the same shape.
        """
        with torch.no_grad():
            real = self.network(target)
        fake = self.network(output)
        terms = {}
        if self.loss.adversarial:
            terms["adversarial"] = generator_loss(real.logits, fake.logits, self.config.kind)
        if self.loss.feature_matching:
            terms["feature_matching"] = feature_matching(real.features, fake.features)
        return terms

    def begin_step(self, rate: float) -> None:
        """Forgets the gradient.

        Args:
            rate: of the step, as a part of the peak learning rate.
        """
        self.learner.set_rate(rate * self.config.learning_rate)
        self.learner.clear()

    def backward(self, pairs: Pairs, step: int, weight: float, wait: bool = False) -> dict[str, float]:
        """Adds the gradient of the discriminator's own loss for some crops.

        Args:
            pairs: (result, target) of each stage, detached.
            step: of the run.
            weight: of these crops.
            wait: whether more crops of the step follow, and gradients are averaged over the processes only then.

        Returns:
            the loss, the penalty where it is due, and how often it is right (0.5 when it cannot tell).
        """
        penalise = bool(self.config.r1) and step % self.config.r1_every == 0
        self.network.requires_grad_(True)
        try:
            with waiting(self._wrapped, wait):
                losses = self._wrapped(pairs, penalise)
                total = losses["discriminator"]
                if penalise:
                    total = total + self.config.r1_every * losses["r1"]
                self.learner.backward(weight * total)
        finally:
            self.network.requires_grad_(False)
        return {name: value.item() for name, value in losses.items()}

    def clipped(self) -> float:
        """Clips the step's gradient; returns its norm."""
        return self.learner.clipped()

    def update(self) -> None:
        """Takes the step."""
        self.learner.step()
        follow_weights(self.network)  # only now: the norm stays as it is for all parts of a step


class _Losses(nn.Module):
    """The discriminator's losses as one forward pass."""

    def __init__(self, network: nn.Module, config: AdversarialConfig, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self._config, self._device, self._dtype = network, config, device, dtype

    def forward(self, pairs: Pairs, penalise: bool) -> dict[str, Tensor]:
        losses, right = [], []
        for output, target in pairs:
            with training_autocast(self._device, self._dtype):
                real, fake = self._both(target, output)
            losses.append(discriminator_loss(real.logits, fake.logits, self._config.kind))
            right.append(_share_right(real, fake))
        values = {"discriminator": torch.stack(losses).mean(), "discriminator_right": torch.stack(right).mean()}
        if penalise:
            penalties = [r1_penalty(self.network, target, self._config.r1) for _, target in pairs]
            values["r1"] = torch.stack(penalties).mean()
        return values

    def _both(self, real: Tensor, fake: Tensor) -> tuple[Judgement, Judgement]:
        """Pictures and results in one pass."""
        count = real.shape[0]
        judged = self.network(torch.cat([real, fake]))
        halves = [tuple(logits[part] for logits in judged.logits) for part in (slice(count), slice(count, None))]
        return Judgement(halves[0], ()), Judgement(halves[1], ())


def _share_right(real: Judgement, fake: Judgement) -> Tensor:
    """How often a picture's mean logit is above that of the result it belongs to."""
    scores = [[scale.detach().float().flatten(1).mean(1) for scale in side.logits] for side in (real, fake)]
    r, f = (torch.stack(side).mean(0) for side in scores)
    return (r > f).float().mean()
