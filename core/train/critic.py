"""The discriminator in training: its terms for the generator, and its own steps."""

from __future__ import annotations

import torch
from torch import Tensor

from .adversarial import AdversarialConfig, discriminator_loss, feature_matching, generator_loss, r1_penalty
from .config import LossConfig
from .discriminators import Discriminator, Judgement, build_discriminator
from .setup import training_autocast
from .state import Trained

NAME = "discriminator"
BETAS = (0.9, 0.99)


class Critic:
    """A discriminator and its optimiser.

    Args:
        config: of both.
        loss: weights; decides which terms are computed.
        seed: of the weights at birth.
        device: where it is trained.
        dtype: number format of its passes, but for the penalty, which is float32.
    """

    def __init__(
        self, config: AdversarialConfig, loss: LossConfig, seed: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.config, self.loss, self.device, self.dtype = config, loss, device, dtype
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = build_discriminator(config.discriminator)
        self.network: Discriminator = network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.network.requires_grad_(False)
        self.begin()

    def begin(self) -> None:
        """Starts a phase: a new optimiser, and weights that go on."""
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=self.config.learning_rate, betas=BETAS)

    @property
    def part(self) -> Trained:
        """What the run's state holds of it."""
        return Trained(NAME, self.network, self.optimizer)

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

    def backward(self, pairs: list[tuple[Tensor, Tensor]], step: int, share: float) -> dict[str, float]:
        """Computes the gradient of the discriminator's own loss.

        Args:
            pairs: (result, target) of each stage, detached.
            step: of the run.
            share: of the peak learning rate, for the step that follows.

        Returns:
            the loss, the penalty where it is due, the norm of the gradient, and how often it is right (0.5 when
            it cannot tell).
        """
        for group in self.optimizer.param_groups:
            group["lr"] = share * self.config.learning_rate
        self.optimizer.zero_grad(set_to_none=True)
        self.network.train().requires_grad_(True)
        try:
            values = self._backward(pairs, step)
        finally:
            self.network.eval().requires_grad_(False)
        parameters = list(self.network.parameters())
        values["discriminator_gradient"] = float(torch.nn.utils.clip_grad_norm_(parameters, self.config.clip))
        return values

    def update(self) -> None:
        """Takes the step of the gradient computed last."""
        self.optimizer.step()

    def _backward(self, pairs: list[tuple[Tensor, Tensor]], step: int) -> dict[str, float]:
        losses, right = [], []
        for output, target in pairs:
            with training_autocast(self.device, self.dtype):
                real, fake = _both(self.network, target, output)
            losses.append(discriminator_loss(real.logits, fake.logits, self.config.kind))
            right.append(_share_right(real, fake))
        loss = torch.stack(losses).mean()
        values = {"discriminator": loss.item(), "discriminator_right": sum(right) / len(right)}
        loss.backward()
        if self.config.r1 and step % self.config.r1_every == 0:
            penalty = torch.stack([r1_penalty(self.network, target, self.config.r1) for _, target in pairs]).mean()
            (self.config.r1_every * penalty).backward()
            values["r1"] = penalty.item()
        return values


def _both(network: Discriminator, real: Tensor, fake: Tensor) -> tuple[Judgement, Judgement]:
    """Pictures and results in one pass."""
    count = real.shape[0]
    judged = network(torch.cat([real, fake]))
    halves = [tuple(logits[part] for logits in judged.logits) for part in (slice(count), slice(count, None))]
    return Judgement(halves[0], ()), Judgement(halves[1], ())


def _share_right(real: Judgement, fake: Judgement) -> float:
    """How often a picture's mean logit is above that of the result it belongs to."""
    scores = [[scale.detach().float().flatten(1).mean(1) for scale in side.logits] for side in (real, fake)]
    r, f = (torch.stack(side).mean(0) for side in scores)
    return float((r > f).float().mean())
