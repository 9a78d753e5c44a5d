"""SAFMN (Sun 2023, arXiv 2302.13800): spatially adaptive feature modulation, for inference from published weights.

This is the light variant that its authors entered in NTIRE 2023: without biases and layer normalisation in the
blocks, with one global response normalisation (Woo 2023, arXiv 2301.00808) before them, and bilinear beside it all.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 4


class ResponseNorm(nn.Module):
    """Global response normalisation: each channel by its share of the energy of all."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        energy = torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True)
        share = energy / (energy.mean(1, keepdim=True) + 1e-6)
        return x + self.gamma * share * x + self.beta


class Modulation(nn.Module):
    """Quarters of the channels at full size and at a 4th, an 8th and a 16th weigh the features (section 3.2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        part = channels // LEVELS
        self.mfr = nn.ModuleList(nn.Conv2d(part, part, 3, padding=1, groups=part, bias=False) for _ in range(LEVELS))
        self.aggr = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        H, W = x.shape[-2:]
        first, *others = x.chunk(LEVELS, 1)
        parts = [self.mfr[0](first)]
        for level, part in enumerate(others, 1):
            factor = 2 ** (level + 1)
            pooled = F.adaptive_max_pool2d(part, (max(H // factor, 1), max(W // factor, 1)))
            parts.append(F.interpolate(self.mfr[level](pooled), (H, W), mode="nearest"))
        return x * F.gelu(self.aggr(torch.cat(parts, 1)))


class Mixer(nn.Module):
    """A 3×3 convolution to twice the channels and a 1×1 one back (section 3.3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ccm = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False),
            nn.GELU(),
            nn.Conv2d(2 * channels, channels, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.ccm(x)


class Block(nn.Module):
    """Modulation and mixing, each added to what it is made from."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.safm, self.ccm = Modulation(channels), Mixer(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.safm(x)
        return x + self.ccm(x)


class SAFMN(nn.Module):
    """[B, 3, H, W] in 0..1 to [B, 3, H·scale, W·scale]; the names of its parts are those of the weights."""

    def __init__(self, scale: int, channels: int = 36, blocks: int = 8) -> None:
        super().__init__()
        self.scale = scale
        self.to_feat = nn.Conv2d(3, channels, 3, padding=1)
        self.norm = ResponseNorm(channels)
        self.feats = nn.Sequential(*(Block(channels) for _ in range(blocks)))
        self.to_img = nn.Sequential(nn.Conv2d(channels, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))

    def forward(self, x: Tensor) -> Tensor:
        features = self.feats(self.norm(self.to_feat(x)))
        return self.to_img(features) + F.interpolate(x, scale_factor=self.scale, mode="bilinear")
