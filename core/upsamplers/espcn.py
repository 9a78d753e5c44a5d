"""ESPCN (Shi et al. 2016, "Real-Time Single Image and Video Super-Resolution …")."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import check_choice, check_integer
from .common import BICUBIC_HALO, SCALES, LumaUpsampler, in_float32, init_normal


@dataclass(frozen=True)
class ESPCNConfig:
    """Shape of an ESPCN.

    Args:
        scale: 2, 3 or 4.
        width: channels after the first layer; the paper's (5, 64), (3, 32), 3.
        width2: channels after the second layer.
    """

    scale: int = 2
    width: int = 64
    width2: int = 32

    def __post_init__(self) -> None:
        check_choice(self.scale, "scale", SCALES)
        check_integer(self.width, "width", minimum=1)
        check_integer(self.width2, "width2", minimum=1)


class ESPCN(LumaUpsampler):
    """Y upsampler: 5×5 tanh, 3×3 tanh, 3×3 to scale² channels, PixelShuffle.

    Args:
        config: the shape.

    Attributes:
        scale: the factor.
        halo: input pixels of context that make a tile's output exact.
    """

    def __init__(self, config: ESPCNConfig) -> None:
        super().__init__()
        self.config = config
        self.scale = config.scale
        self.halo = max(2 + 1 + 1, BICUBIC_HALO)
        first = nn.Conv2d(1, config.width, 5, padding=2)
        second = nn.Conv2d(config.width, config.width2, 3, padding=1)
        self.features = nn.Sequential(first, nn.Tanh(), second, nn.Tanh())
        self.last = nn.Conv2d(config.width2, config.scale**2, 3, padding=1)
        init_normal(first)
        init_normal(second)
        init_normal(self.last, std=0.001)

    def upsample_luma(self, luma: Tensor) -> Tensor:
        """[B, 1, H, W] in studio range -> [B, 1, H·scale, W·scale] float32."""
        return F.pixel_shuffle(in_float32(self.last, self.features(luma)), self.scale)
