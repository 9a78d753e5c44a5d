"""Pictures and weights for the upsamplers' tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn


@pytest.fixture
def picture() -> Callable[..., Tensor]:
    """A smooth random colour picture [B, 3, H, W] in 0..1."""

    def make(height: int = 33, width: int = 47, batch: int = 1, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        small = torch.rand(batch, 3, max(height // 3, 1), max(width // 3, 1), generator=generator)
        return nn.functional.interpolate(small, size=(height, width), mode="bilinear")

    return make


@pytest.fixture
def randomised() -> Callable[[nn.Module], nn.Module]:
    """Fill a network with seeded random weights of such a size that every layer matters."""

    def fill(module: nn.Module, seed: int = 0) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in module.parameters():
                fan_in = parameter[0].numel() if parameter.ndim == 4 else 4
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)
        return module.eval()

    return fill
