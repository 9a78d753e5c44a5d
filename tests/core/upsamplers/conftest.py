"""Pictures and weights for the upsamplers' tests."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

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


@pytest.fixture(scope="session")
def plain() -> ModuleType:
    """The module plain_layouts, which importlib mode keeps tests from importing by name."""
    path = Path(__file__).with_name("plain_layouts.py")
    spec = importlib.util.spec_from_file_location("plain_layouts", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def close() -> Callable[[Tensor, Tensor], None]:
    """Assert that two pictures are the same to float32 rounding, and no blank ones."""

    def check(actual: Tensor, expected: Tensor) -> None:
        assert expected.std() > 1e-3
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=2e-5)

    return check
