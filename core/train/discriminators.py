"""Discriminators: networks that tell pictures from results, patch by patch or pixel by pixel.

Both are without batch norm, which would let pictures of a batch see each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import check_choice, check_integer
from .spectral import spectral_norm

KINDS = ("patch", "unet")
_SLOPE = 0.2  # of LeakyReLU where it is negative


class Judgement(NamedTuple):
    """What a discriminator says of images, one entry a scale.

    Attributes:
        logits: `[B, 1, h, w]` each; above 0 for what it takes to be real.
        features: the outputs of its layers but the last, shallow to deep, for feature matching.
    """

    logits: tuple[Tensor, ...]
    features: tuple[tuple[Tensor, ...], ...]


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Shape of a discriminator.

    Attributes:
        kind: "patch" or "unet".
        width: channels of the first layer.
        layers: kind "patch": layers that halve the size; 3 give logits of 70 pixels of the image each.
        scales: kind "patch": discriminators, each on the image at half the size of the one before.
        spectral: whether weights are normalised by their largest singular value.
    """

    kind: str = "patch"
    width: int = 64
    layers: int = 3
    scales: int = 2
    spectral: bool = True

    def __post_init__(self) -> None:
        check_choice(self.kind, "kind", KINDS)
        for name in ("width", "layers", "scales"):
            check_integer(getattr(self, name), name, 1)


class PatchDiscriminator(nn.Module):
    """PatchGAN (Isola 2017, arXiv 1611.07004): 4×4 convolutions, `layers` of stride 2, then two of stride 1.

    Attributes:
        field: pixels a side of the image that one logit depends on; 70 for three layers.
        smallest: pixels a side of the smallest image.
    """

    def __init__(self, width: int = 64, layers: int = 3, spectral: bool = True) -> None:
        super().__init__()
        widths = [3, *(width * min(2**k, 8) for k in range(layers + 1)), 1]
        strides = [2] * layers + [1, 1]
        self.convolutions = nn.ModuleList(
            _conv(widths[k], widths[k + 1], 4, stride, spectral) for k, stride in enumerate(strides)
        )
        self.field = self.smallest = 1
        for stride in reversed(strides):
            self.field = self.field * stride + 4 - stride
            self.smallest = (self.smallest - 1) * stride + 2

    def forward(self, image: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Logits `[B, 1, h, w]` of `[B, 3, H, W]` in 0..1, and the features of all layers but the last."""
        x, features = 2 * image - 1, []
        for convolution in self.convolutions[:-1]:
            x = F.leaky_relu(convolution(x), _SLOPE)
            features.append(x)
        return self.convolutions[-1](x), tuple(features)


class MultiScaleDiscriminator(nn.Module):
    """PatchGANs of one shape on the image and on its reductions by 2, 4, … (pix2pixHD, arXiv 1711.11585).

    Attributes:
        smallest: pixels a side of the smallest image.
    """

    def __init__(self, width: int = 64, layers: int = 3, scales: int = 2, spectral: bool = True) -> None:
        super().__init__()
        patches = [PatchDiscriminator(width, layers, spectral) for _ in range(scales)]
        self.patches = nn.ModuleList(patches)
        self.smallest = patches[0].smallest
        for _ in range(scales - 1):
            self.smallest = 2 * self.smallest - 1

    def forward(self, image: Tensor) -> Judgement:
        """The judgement of `[B, 3, H, W]` in 0..1, one entry a scale, finest first.

        Raises:
            ValueError: images with a side under `smallest`.
        """
        _check_side(image, self.smallest)
        logits, features = [], []
        for number, patch in enumerate(self.patches):
            if number > 0:
                image = F.avg_pool2d(image, 3, stride=2, padding=1, count_include_pad=False)
            found, levels = patch(image)
            logits.append(found)
            features.append(levels)
        return Judgement(tuple(logits), tuple(features))


class UNetDiscriminator(nn.Module):
    """A U-Net that judges every pixel (Schönfeld 2020, arXiv 2002.12655; Real-ESRGAN, arXiv 2107.10833).

    Three levels down by 4×4 convolutions of stride 2, three up by bilinear interpolation, skips by addition.

    Attributes:
        smallest: pixels a side of the smallest image.
    """

    smallest = 8

    def __init__(self, width: int = 64, spectral: bool = True) -> None:
        super().__init__()
        self.head = _conv(3, width, 3, 1, False)
        self.downs = nn.ModuleList(_conv(width * 2**k, width * 2 ** (k + 1), 4, 2, spectral, False) for k in range(3))
        self.ups = nn.ModuleList(
            _conv(width * 2 ** (k + 1), width * 2**k, 3, 1, spectral, False) for k in reversed(range(3))
        )
        self.ends = nn.ModuleList(_conv(width, width, 3, 1, spectral, False) for _ in range(2))
        self.last = _conv(width, 1, 3, 1, False)

    def forward(self, image: Tensor) -> Judgement:
        """The judgement of `[B, 3, H, W]` in 0..1: logits `[B, 1, H, W]`, and the features of all other layers.

        Raises:
            ValueError: images with a side under 8 pixels.
        """
        _check_side(image, self.smallest)
        x = F.leaky_relu(self.head(2 * image - 1), _SLOPE)
        features, skips = [x], []
        for down in self.downs:
            skips.append(x)
            x = F.leaky_relu(down(x), _SLOPE)
            features.append(x)
        for up in self.ups:
            skip = skips.pop()
            x = F.interpolate(x, skip.shape[-2:], mode="bilinear", align_corners=False)
            x = F.leaky_relu(up(x), _SLOPE)
            features.append(x)
            x = x + skip
        for end in self.ends:
            x = F.leaky_relu(end(x), _SLOPE)
            features.append(x)
        return Judgement((self.last(x),), (tuple(features),))


Discriminator = MultiScaleDiscriminator | UNetDiscriminator


def build_discriminator(config: DiscriminatorConfig) -> Discriminator:
    """The discriminator of a config, its weights from torch's global generator."""
    if config.kind == "unet":
        return UNetDiscriminator(config.width, config.spectral)
    return MultiScaleDiscriminator(config.width, config.layers, config.scales, config.spectral)


def _conv(inputs: int, outputs: int, size: int, stride: int, spectral: bool, bias: bool = True) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, size, stride, padding=1, bias=bias)
    nn.init.kaiming_normal_(layer.weight, _SLOPE)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return spectral_norm(layer) if spectral else layer


def _check_side(image: Tensor, smallest: int) -> None:
    if image.ndim != 4 or image.shape[1] != 3 or min(image.shape[-2:]) < smallest:
        raise ValueError(f"image: expected [B, 3, H, W] of at least {smallest} px a side, got {tuple(image.shape)}")
