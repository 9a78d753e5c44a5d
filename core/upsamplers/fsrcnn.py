"""FSRCNN (Dong et al. 2016, "Accelerating the Super-Resolution Convolutional Neural Network")."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from ..checks import check_choice, check_integer
from .common import BICUBIC_HALO, SCALES, LumaUpsampler, in_float32, init_normal


@dataclass(frozen=True)
class FSRCNNConfig:
    """Shape of an FSRCNN(d, s, m); the paper's is (56, 12, 4), its fast FSRCNN-s (32, 5, 1).

    Args:
        scale: 2, 3 or 4.
        d: channels at the ends.
        s: channels of the mapping layers.
        m: number of mapping layers.
    """

    scale: int = 2
    d: int = 56
    s: int = 12
    m: int = 4

    def __post_init__(self) -> None:
        check_choice(self.scale, "scale", SCALES)
        check_integer(self.d, "d", minimum=1)
        check_integer(self.s, "s", minimum=1)
        check_integer(self.m, "m", minimum=0)

    @classmethod
    def small(cls, scale: int = 2) -> FSRCNNConfig:
        """FSRCNN-s."""
        return cls(scale, d=32, s=5, m=1)


class FSRCNN(LumaUpsampler):
    """Y upsampler: extract 5×5, shrink 1×1, map m times 3×3, expand 1×1, deconvolve 9×9; PReLU between.

    Args:
        config: the shape.

    Attributes:
        scale: the factor.
        halo: input pixels of context that make a tile's output exact.
    """

    def __init__(self, config: FSRCNNConfig) -> None:
        super().__init__()
        self.config = config
        self.scale = config.scale
        d, s, m = config.d, config.s, config.m
        self.extract = _conv_prelu(1, d, 5)
        self.shrink = _conv_prelu(d, s, 1)
        self.map = nn.Sequential(*(layer for _ in range(m) for layer in _conv_prelu(s, s, 3)))
        self.expand = _conv_prelu(s, d, 1)
        self.deconv = nn.ConvTranspose2d(d, 1, 9, stride=config.scale, padding=4, output_padding=config.scale - 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init_normal(module)
        init_normal(self.deconv, std=0.001)

    @property
    def halo(self) -> int:
        """Input pixels of context.

        Output o of the transposed convolution takes inputs i with |o - i·scale| <= 4, so the last output of
        pixel q, o = q·scale + scale - 1, reaches i = q + floor((scale - 1 + 4) / scale).
        """
        deconv = (self.scale - 1 + 4) // self.scale
        return max(2 + self.config.m + deconv, BICUBIC_HALO)

    def upsample_luma(self, luma: Tensor) -> Tensor:
        """[B, 1, H, W] in studio range -> [B, 1, H·scale, W·scale] float32."""
        features = self.expand(self.map(self.shrink(self.extract(luma))))
        return in_float32(self.deconv, features)


def _conv_prelu(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)
    return nn.Sequential(conv, nn.PReLU(out_channels))
