"""VDSR (Kim 2016, arXiv 1511.04587): twenty convolutions that correct a picture enlarged by bicubic."""

from __future__ import annotations

from torch import Tensor, nn


class Layer(nn.Module):
    """A convolution with ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).relu()


class VDSR(nn.Module):
    """Enlarged luma [B, 1, H, W], in 0..1 of the studio range, to the same with the residual added."""

    def __init__(self, channels: int = 64, layers: int = 18) -> None:
        super().__init__()
        self.input = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.residual_layer = nn.Sequential(*(Layer(channels) for _ in range(layers)))
        self.output = nn.Conv2d(channels, 1, 3, padding=1, bias=False)

    def forward(self, y: Tensor) -> Tensor:
        return y + self.output(self.residual_layer(self.input(y).relu()))
