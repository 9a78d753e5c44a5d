"""Exponential moving average of a model's weights: what is validated, saved and shipped."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

Model = TypeVar("Model", bound=nn.Module)


class EMA(Generic[Model]):
    """Averages the weights of `model` after each step, in float32.

    Early on the decay is lower, (1 + t) / (10 + t), so that the average forgets the weights at birth.
    """

    def __init__(self, model: Model, decay: float = 0.999) -> None:
        self.decay, self.updates = decay, 0
        self.model: Model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Moves the average towards the weights of `model`."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        averages: list[Tensor] = list(self.model.parameters())
        values: list[Tensor] = list(model.parameters())
        get_ema_multi_avg_fn(decay)(averages, values, self.updates)
