"""Residual skip (article 2.6): carry part of the previous image over into the current one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .checks import check_integer


@dataclass(frozen=True)
class SkipWeightsConfig:
    """Config of a `SkipWeights`.

    Attributes:
        levels: bands of the Laplacian pyramid, finest first, >= 1.
    """

    levels: int = 3

    def __post_init__(self) -> None:
        check_integer(self.levels, "levels", 1)


class SkipWeights(nn.Module):
    """Learned weights of a residual skip, one number for each band; 0 at birth, so that it does nothing.

    Attributes:
        config: the `SkipWeightsConfig`.
    """

    def __init__(self, config: SkipWeightsConfig | None = None) -> None:
        """Build the weights.

        Args:
            config: None for the default one.
        """
        super().__init__()
        self.config = config or SkipWeightsConfig()
        self.weights = nn.Parameter(torch.zeros(self.config.levels))

    def forward(self) -> Tensor:
        """The weights, `[levels]`, finest band first, in 0..1."""
        weights = _UnitInterval.apply(self.weights)
        if not isinstance(weights, Tensor):
            raise TypeError(f"weights: expected a tensor, got {type(weights).__name__}")
        return weights


class _UnitInterval(torch.autograd.Function):
    """Clamp to 0..1 whose gradient stops only what would lead further out.

    The plain clamp has no gradient outside, and half of one on the border, where the weights are born;
    without any stop, a weight that training pushes out drifts away and cannot come back.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return values.clamp(0.0, 1.0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (values,) = ctx.saved_tensors
        (grad,) = grads
        leads_out = ((values < 0) & (grad > 0)) | ((values > 1) & (grad < 0))
        return grad.masked_fill(leads_out, 0.0)
