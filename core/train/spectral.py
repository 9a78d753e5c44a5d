"""Spectral normalisation (Miyato 2018, arXiv 1802.05957): a weight divided by its largest singular value.

torch's own computes under autocast in half precision, where the singular value is off by half a percent.
"""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList, register_parametrization

from .losses import full_precision

Layer = TypeVar("Layer", bound=nn.Module)

_FIRST_STEPS = 15  # of the power iteration, at birth; then one after each training step
_EPSILON = 1e-12


class SpectralNorm(nn.Module):
    """A parametrisation: weight -> weight / sigma, the weight seen as a matrix [outputs, rest].

    Evaluations change nothing, so that the norm is the same for all that is computed with the same weights; see
    `follow_weights`.

    Attributes:
        u, v: the singular vectors as far as they are known; kept in checkpoints.
    """

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        matrix = weight.detach().flatten(1)
        self.register_buffer("u", F.normalize(torch.randn(matrix.shape[0]), dim=0, eps=_EPSILON))
        self.register_buffer("v", F.normalize(torch.randn(matrix.shape[1]), dim=0, eps=_EPSILON))
        for _ in range(_FIRST_STEPS):
            self.iterate(matrix)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with a largest singular value of 1."""
        matrix = weight.flatten(1)
        with full_precision(weight):
            return weight / torch.dot(self.u, matrix @ self.v)

    @torch.no_grad()
    def iterate(self, weight: Tensor) -> None:
        """One step of the power iteration, which brings u and v nearer to those of the weight."""
        matrix = weight.flatten(1)
        self.v.copy_(F.normalize(matrix.T @ self.u, dim=0, eps=_EPSILON))
        self.u.copy_(F.normalize(matrix @ self.v, dim=0, eps=_EPSILON))


def follow_weights(network: nn.Module) -> None:
    """Takes a step of the power iteration for each normalised weight of a network: once its weights have changed."""
    for module in network.modules():
        if isinstance(module, ParametrizationList):
            for norm in module:
                if isinstance(norm, SpectralNorm):
                    norm.iterate(module.original)


def spectral_norm(layer: Layer) -> Layer:
    """The layer, with its `weight` normalised from now on; in place."""
    register_parametrization(layer, "weight", SpectralNorm(layer.get_parameter("weight")))
    return layer
