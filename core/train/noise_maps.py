"""The noise that a denoiser learns from: how strong it is where, and how it is drawn for a step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..adaptive_noise import adaptive_sigma
from ..noise import generator

MAP_FLOOR = 0.25  # of a smooth map, whose highest value is 1
_MAP_CELLS = 5  # cells a side of the grid that a smooth map grows from


class StepNoise:
    """Draws on the CPU for a step's whole batch, and gives what some of its crops get.

    Args:
        seed: of the step.
        stage: that the noise is for.
        count: crops that are drawn for.
        items: those that are wanted.
        like: their images, `[N, 3, H, W]`.
    """

    def __init__(self, seed: int, stage: int, count: int, items: Sequence[int], like: Tensor) -> None:
        self._generator, self._count, self._items = generator(seed, stage), count, list(items)
        self._shape, self._device = like.shape[1:], like.device

    def normal(self) -> Tensor:
        """Unit Gaussian noise, [N, 3, H, W]."""
        drawn = torch.randn(self._count, *self._shape, generator=self._generator)
        return drawn[self._items].to(self._device)

    def uniform(self, low: float = 0.0, high: float = 1.0, cells: int = 1) -> Tensor:
        """Even values in low..high, [N, 1, cells, cells]."""
        drawn = torch.rand(self._count, 1, cells, cells, generator=self._generator)
        return (low + (high - low) * drawn[self._items]).to(self._device)


def training_map(y: Tensor, random: StepNoise, levels: tuple[float, float]) -> Tensor:
    """Mixed noise maps: half uniform, a quarter along the gradient, a quarter smooth blobs as a hand paints them.

    Args:
        y: the upsampled images, [N, 3, H, W].
        random: of these images.
        levels: their highest values, from..to, spread evenly on a log scale.
    """
    low, high = levels
    level = low * (high / low) ** random.uniform()
    kind = random.uniform()
    smooth = F.interpolate(random.uniform(MAP_FLOOR, 1.0, _MAP_CELLS), y.shape[-2:], mode="bicubic").clamp(MAP_FLOOR, 1)
    edges = adaptive_sigma(y.clamp(0, 1), "gradient", 1.0, 1.0)
    shaped = torch.where(kind < 0.75, edges, smooth)
    return level * torch.where(kind < 0.5, torch.ones_like(edges), shaped)
