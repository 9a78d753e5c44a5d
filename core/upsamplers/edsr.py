"""EDSR (Lim et al. 2017, "Enhanced Deep Residual Networks for Single Image Super-Resolution")."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import check_choice, check_integer, check_number
from ..precision import check_weights
from ..residual_stream import ResidualBody
from ..row_stream import Bicubic, Chained, Convolved, Local, Stream, added_over, layer_by_layer
from .common import BICUBIC_HALO, SCALES, bicubic, check_rgb, in_float32

# mean colour of DIV2K, which the paper subtracts before the first convolution
RGB_MEAN = (0.4488, 0.4371, 0.4040)


@dataclass(frozen=True)
class EDSRConfig:
    """Shape of an EDSR.

    Args:
        scale: 2, 3 or 4.
        width: channels of the body; 64 is EDSR-baseline, 256 the full EDSR.
        blocks: residual blocks; 16 is EDSR-baseline, 32 the full EDSR.
        res_scale: factor on every residual branch in 0..1; the paper takes 0.1 for width 256, where training
            is unstable without it, and 1 for width 64.
        tail: "classic" is the paper's (a convolution and a PixelShuffle per factor, then a convolution at
            full size). "direct" is one zero-initialised convolution to 3·scale² channels and a PixelShuffle,
            added to the bicubic upsampling: a twentieth of the classic tail's cost, and the untrained
            network is bicubic.
    """

    scale: int = 2
    width: int = 64
    blocks: int = 16
    res_scale: float = 1.0
    tail: Literal["classic", "direct"] = "classic"

    def __post_init__(self) -> None:
        check_choice(self.scale, "scale", SCALES)
        check_integer(self.width, "width", minimum=1)
        check_integer(self.blocks, "blocks", minimum=0)
        check_number(self.res_scale, "res_scale", above=0.0, maximum=1.0)
        check_choice(self.tail, "tail", ("classic", "direct"))


class ResidualBlock(nn.Module):
    """conv, ReLU, conv and an identity skip, without batch normalisation (Lim 2017, Figure 2c)."""

    def __init__(self, width: int, res_scale: float) -> None:
        super().__init__()
        self.conv1 = _conv3x3(width, width)
        self.conv2 = _conv3x3(width, width)
        self.res_scale = res_scale

    def forward(self, x: Tensor) -> Tensor:
        """[B, width, H, W] -> the same shape."""
        branch = self.conv2(F.relu(self.conv1(x), inplace=True))
        return (branch if self.res_scale == 1.0 else branch * self.res_scale).add_(x)  # in place: no new feature map


class EDSR(nn.Module):
    """RGB upsampler: head, residual blocks under one long skip, tail.

    Convolutions run in the autocast dtype; the mean shift and the direct tail's bicubic base are float32.

    Args:
        config: the shape.

    Attributes:
        scale: the factor.
        halo: input pixels of context that make a tile's output exact.
    """

    mean: Tensor

    def __init__(self, config: EDSRConfig) -> None:
        super().__init__()
        self.config = config
        self.scale = config.scale
        self.register_buffer("mean", torch.tensor(RGB_MEAN, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)
        self.head = _conv3x3(3, config.width)
        self.blocks = nn.Sequential(*(ResidualBlock(config.width, config.res_scale) for _ in range(config.blocks)))
        self.blocks_end = _conv3x3(config.width, config.width)
        if config.tail == "direct":
            last = _conv3x3(config.width, 3 * config.scale**2)
            for parameter in last.parameters():
                nn.init.zeros_(parameter)  # zero-init: the untrained network is its bicubic base
            self.tail = nn.Sequential(last, nn.PixelShuffle(config.scale))
        else:
            self.tail = nn.Sequential(*_classic_upsampling(config), _conv3x3(config.width, 3))

    @property
    def halo(self) -> int:
        """Input pixels of context: one for every convolution at input size, one for those beyond it."""
        body = 1 + 2 * self.config.blocks + 1
        return max(body + 1, BICUBIC_HALO) if self.config.tail == "direct" else body + 2

    def forward(self, rgb: Tensor) -> Tensor:
        """Upsample.

        Args:
            rgb: [B, 3, H, W] in 0..1.

        Returns:
            [B, 3, H·scale, W·scale] float32, not clamped.

        Raises:
            TypeError: the weights are not float32.
            ValueError: `rgb` has another shape.
        """
        check_weights(self, "EDSR")
        check_rgb(rgb)
        rgb = rgb.float()
        if self.config.tail == "direct":
            detail = self.tail(self._features(rgb - self.mean))
            return detail.float() + bicubic(rgb, self.scale)
        # the paper's weights live in 0..255
        features = self.tail[:-1](self._features((rgb - self.mean) * 255.0))
        return in_float32(self.tail[-1], features) / 255.0 + self.mean

    def stream(self, height: int) -> Stream:
        """The network over the rows of an image, see `core.row_stream`.

        Args:
            height: of the image.

        Returns:
            a stream of what `forward` gives.

        Raises:
            TypeError: the weights are not float32.
        """
        check_weights(self, "EDSR")
        blocks = [(block.conv1, block.conv2) for block in cast(Iterable[ResidualBlock], self.blocks)]
        first, *layers = cast(Iterable[nn.Module], self.tail)
        body = ResidualBody(blocks, self.blocks_end, cast(nn.Conv2d, first), self.config.res_scale)
        features = Chained(Convolved(self.head), body)
        if self.config.tail == "direct":
            detail = Chained(Local(self._centred), features, *layer_by_layer(layers))
            return added_over(Chained(detail, Local(Tensor.float)), Bicubic(height, self.scale))
        *layers, last = layers
        return Chained(
            Local(lambda rgb: self._centred(rgb) * 255.0),
            features,
            *layer_by_layer(layers),
            Convolved(cast(nn.Conv2d, last), in_float32),
            Local(lambda rgb: rgb / 255.0 + self.mean),
        )

    def _centred(self, rgb: Tensor) -> Tensor:
        return (rgb.float() - self.mean).contiguous(memory_format=torch.channels_last)

    def _features(self, centred: Tensor) -> Tensor:
        head = self.head(centred)
        return self.blocks_end(self.blocks(head)).add_(head)


def _classic_upsampling(config: EDSRConfig) -> list[nn.Module]:
    factors = [3] if config.scale == 3 else [2] * (config.scale // 2)
    layers: list[nn.Module] = []
    for factor in factors:
        layers += [_conv3x3(config.width, config.width * factor**2), nn.PixelShuffle(factor)]
    return layers


def _conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)
