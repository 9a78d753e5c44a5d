"""Noisy images and a denoiser whose estimates are given, for the tests of the denoiser."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from progressive_upsampling.core.denoiser import Blind, Denoiser, DenoiserConfig, Estimate, Refined, Regressed
from progressive_upsampling.core.noise import inject_noise

from .tiny import picture, unet_config

WHOLE = 10**6
ETAS = [1.0, 0.75, 0.5, 0.1]


class Stub(Denoiser):
    """A denoiser whose estimates are given by functions, and that keeps what it was asked."""

    def __init__(
        self,
        estimate: Callable[[Tensor, Tensor, float], Tensor],
        blind: Callable[[Tensor], Tensor] = lambda noisy: noisy,
    ) -> None:
        super().__init__(DenoiserConfig(unet_config()))
        self._estimate, self._blind = estimate, blind
        self.states: list[tuple[float, Tensor]] = []

    def whole(self, estimate: Estimate, *images: Tensor) -> Tensor:
        if isinstance(estimate, Blind):
            self.states.append((0.0, images[0]))
            return self._blind(images[0])
        z, y = (torch.zeros_like(images[0]), images[0]) if isinstance(estimate, Regressed) else images[:2]
        eta = estimate.eta.item() if isinstance(estimate, Refined) else 1.0
        self.states.append((eta, z))
        return self._estimate(z, y, eta)


def flat(value: float, height: int = 33, width: int = 47, batch: int = 1) -> Tensor:
    return torch.full((batch, 1, height, width), value)


def noised(sigma: float = 0.1, height: int = 33, width: int = 47, batch: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """An image, its noisy copy and the map."""
    y, s = picture(height, width, batch), flat(sigma, height, width, batch)
    return y, inject_noise(y, s, seed=3), s
