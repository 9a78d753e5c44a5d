"""What the suites run on where no pictures are given."""

from __future__ import annotations

import torch
from torch import Tensor


def sample(height: int, width: int, batch: int = 1) -> Tensor:
    """Waves of all directions with some noise, [B, 3, height, width] in 0..1: the networks take as long for it as for
    photographs, and no two places are alike."""
    y = torch.linspace(0, 1, height)[:, None]
    x = torch.linspace(0, 1, width)
    random = torch.Generator().manual_seed(0)
    image = torch.zeros(batch, 3, height, width)
    for number in range(8):
        turn, speed, phase = torch.rand(3, generator=random).tolist()
        angle = torch.tensor(6.28 * turn)
        wave = torch.sin((3 + 60 * speed**2) * (x * angle.cos() + y * angle.sin()) * 6.28 + 6.28 * phase)
        image += wave * torch.rand(batch, 3, 1, 1, generator=random) / (1 + number)
    image = 0.5 + 0.15 * image
    return (image + 0.02 * torch.randn(image.shape, generator=random)).clamp(0, 1)
