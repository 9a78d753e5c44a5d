"""One optimiser step: losses of a batch in shares, gradients averaged over all of them, clipped."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..checks import any_values
from .config import TrainConfig
from .data import Batch
from .distributed import World, waiting
from .learner import Learner
from .objective import Objective
from .phase import PhaseConfig
from .setup import training_autocast
from .share import Share, items_of
from .task import Task
from .unroll import weighted_sum


class Stepper:
    """Computes gradients and takes steps.

    Args:
        config: of the run.
        task: what is trained.
        model: the weights.
        objective: the terms of a result as a picture, with the discriminator.
        scaler: of the losses.
        device, dtype: where and in which format.
        world: the processes of the run.

    Attributes:
        learner: of the model.
    """

    def __init__(
        self,
        config: TrainConfig,
        task: Task,
        model: nn.Module,
        objective: Objective,
        scaler: torch.amp.GradScaler,
        device: torch.device,
        dtype: torch.dtype,
        world: World,
    ) -> None:
        self._config, self._device, self._world, self._scaler = config, device, world, scaler
        self._objective, self._task = objective, task
        self._losses = _Losses(config, task, model, objective, device, dtype)
        self.learner = Learner("", model, config.clip, scaler, config.optimizer)
        self._wrapped: nn.Module = self._losses

    def check(self, phase: PhaseConfig) -> None:
        """Checks that a phase with frozen parts has something to learn, on one crop; before any is begun.

        Raises:
            ValueError: no term of the loss reaches a part that is trained.
        """
        if all(phase.rates.values()):
            return
        self.learner.begin(phase.rates)
        for stages in phase.drawn:
            sides = [phase.crop * factor for factor in (1, *self._task.factors(stages))]
            batch = Batch(tuple(torch.full((1, 3, side, side), 0.5, device=self._device) for side in sides))
            self._objective.begin_step(phase)
            self._losses(Share(batch, (0,), 1, 1, min(phase.noisy_crops, 1), phase.noise, 0))
        self.learner.begin({})

    def begin(self, phase: PhaseConfig) -> None:
        """Starts a phase, with new optimisers."""
        self.learner.begin(phase.rates)
        self._objective.begin_phase(self._world)
        self._wrapped = self._world.wrap(self._losses)

    def items(self, phase: PhaseConfig) -> list[tuple[int, ...]]:
        """The crops of each share of this process, by their place in the whole batch."""
        shares, first = self._shares(phase), self._world.rank * phase.accumulate
        return [items_of(first + part, shares, phase.batch) for part in range(phase.accumulate)]

    def gradient(self, batches: list[Batch], phase: PhaseConfig, step: int, inside: int) -> dict[str, float]:
        """Computes the gradient of a step, clipped.

        Args:
            batches: the crops of each share of this process.
            phase: of the step.
            step: of the run.
            inside: of the phase.

        Returns:
            every term unweighted, the total, the learning rate, the norms of the gradients; averaged over the
            processes.
        """
        rate = phase.share_at(inside)
        self.learner.set_rate(rate * phase.learning_rate)
        self.learner.clear()
        self._objective.begin_step(phase, rate)
        sums: dict[str, float] = {}
        for place, (batch, items) in enumerate(zip(batches, self.items(phase), strict=True)):
            # the seed of the noise belongs to the step, so that it is the same in however many shares
            seed = self._config.seed * 1_000_003 + step
            batch, shares = batch.to(self._device), self._shares(phase)
            share = Share(batch, items, phase.batch, shares, phase.noisy_crops, phase.noise, seed)
            wait = place + 1 < len(batches)
            with waiting(self._wrapped, wait):
                total, terms = self._wrapped(share)
                self.learner.backward(total / phase.accumulate)
            found = {name: value.item() for name, value in terms.items()} | {"loss": total.item()}
            judged = self._objective.backward(step, share.weight / phase.accumulate, wait)
            found |= {name: share.weight * value for name, value in judged.items()}
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + value / phase.accumulate
        values = self._world.mean(sums, self._device)
        values |= {"lr": rate * phase.learning_rate, "gradient": self.learner.clipped(), **self._objective.clipped()}
        return values

    def update(self) -> None:
        """Takes the step."""
        self.learner.step()
        self._objective.update()
        self._scaler.update()

    def skip(self) -> bool:
        """Leaves the step out.

        Returns:
            whether only the scale of float16's losses was too high, which is lower from now on.
        """
        before = self._scaler.get_scale()
        self._scaler.update()
        return self._scaler.is_enabled() and before > 1

    def _shares(self, phase: PhaseConfig) -> int:
        return self._world.size * phase.accumulate


class _Losses(nn.Module):
    """The losses of a share as one forward pass."""

    def __init__(
        self,
        config: TrainConfig,
        task: Task,
        model: nn.Module,
        objective: Objective,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.model, self._task, self._objective = model, task, objective
        self._loss, self._device, self._dtype = config.loss, device, dtype

    def forward(self, share: Share) -> tuple[Tensor, dict[str, Tensor]]:
        with training_autocast(self._device, self._dtype), any_values():
            terms = self._task.losses(self.model, share, self._loss, self._objective)
        total = weighted_sum(terms, self._loss)
        if not total.requires_grad:
            raise ValueError("rates, loss: expected a trained part that a term of the loss reaches, got none")
        return total, {name: value.detach() for name, value in terms.items()}
