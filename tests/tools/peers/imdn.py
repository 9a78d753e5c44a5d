"""IMDN (Hui 2019, arXiv 1909.11856): information multi-distillation, for inference from published weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.05  # of every leaky ReLU


class ContrastAttention(nn.Module):
    """Channel attention by contrast: standard deviation plus mean of each channel (section 3.3)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.conv_du = nn.Sequential(
            nn.Conv2d(channels, channels // reduction, 1),
            nn.ReLU(),
            nn.Conv2d(channels // reduction, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, dim=(2, 3), correction=0, keepdim=True)
        return x * self.conv_du(variance.sqrt() + mean)


class DistillationBlock(nn.Module):
    """Keeps a quarter of the channels after each convolution and refines the others (figure 3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.kept = channels // 4
        self.rest = channels - self.kept
        self.c1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.c2 = nn.Conv2d(self.rest, channels, 3, padding=1)
        self.c3 = nn.Conv2d(self.rest, channels, 3, padding=1)
        self.c4 = nn.Conv2d(self.rest, self.kept, 3, padding=1)
        self.cca = ContrastAttention(channels)
        self.c5 = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        distilled, rest = [], x
        for layer in (self.c1, self.c2, self.c3):
            kept, rest = F.leaky_relu(layer(rest), SLOPE).split((self.kept, self.rest), 1)
            distilled.append(kept)
        distilled.append(self.c4(rest))
        return x + self.c5(self.cca(torch.cat(distilled, 1)))


class IMDN(nn.Module):
    """[B, 3, H, W] in 0..1 to [B, 3, H·scale, W·scale]; the names of its parts are those of the weights."""

    def __init__(self, scale: int, channels: int = 64, blocks: int = 6) -> None:
        super().__init__()
        self.blocks = blocks
        self.fea_conv = nn.Conv2d(3, channels, 3, padding=1)
        for number in range(1, blocks + 1):
            self.add_module(f"IMDB{number}", DistillationBlock(channels))
        self.c = nn.Sequential(nn.Conv2d(channels * blocks, channels, 1), nn.LeakyReLU(SLOPE))
        self.LR_conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.upsampler = nn.Sequential(nn.Conv2d(channels, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))

    def forward(self, x: Tensor) -> Tensor:
        features = self.fea_conv(x)
        outputs, current = [], features
        for number in range(1, self.blocks + 1):
            current = self.get_submodule(f"IMDB{number}")(current)
            outputs.append(current)
        return self.upsampler(features + self.LR_conv(self.c(torch.cat(outputs, 1))))
