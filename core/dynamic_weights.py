"""The learned fusion weights of article 2.5: a small net over all scales, for any number of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from .checks import check_integer
from .interrupt import check_interrupted
from .noise import softplus_inverse
from .precision import autocast_dtype

_DETAIL = 0.04  # usual RMS error of an upsampled picture: brings differences to the size of the other inputs
_PRIOR = 5.0  # 1 / (1 + e^-5 + e^-10 + …) > 0.99: at birth the finest image wins, and gradients still flow


@dataclass(frozen=True)
class DynamicWeightsConfig:
    """Config of a `DynamicWeights`.

    Attributes:
        width: channels of the hidden layers, >= 1.
    """

    width: int = 16

    def __post_init__(self) -> None:
        check_integer(self.width, "width", 1)


class DynamicWeights(nn.Module):
    """Predict how much of each image goes into the fused one, pixel by pixel.

    One net is shared by all images, so that any number of them works. It sees each image, how it differs
    from the finest and how much detail it has, then once more together with the mean over all images. A
    prior −level·softplus(p), level 0 being the finest, is added to the logits. All of it runs at half
    resolution on means of 2×2 pixels.

    Attributes:
        config: the `DynamicWeightsConfig`.
        halo: pixels of context that make a tile exact.
        align: multiple of pixels on which a tile must start.
        scale: output pixels per input pixel.
    """

    halo = 6  # half resolution: two 3×3 convolutions and one neighbour of the bilinear upsampling
    align = 2
    scale = 1

    def __init__(self, config: DynamicWeightsConfig | None = None) -> None:
        """Build the net.

        Args:
            config: None for the default one.
        """
        super().__init__()
        self.config = config or DynamicWeightsConfig()
        width = self.config.width
        # They hold the parameters: see `_over_all`.
        self.own = nn.Conv2d(7, width, 3)
        self.joint = nn.Conv2d(width, width, 3)
        self.context = nn.Conv2d(width, width, 3, bias=False)
        self.last = nn.Conv2d(width, 1, 1, bias=False)  # a bias would add the same to all logits
        nn.init.zeros_(self.last.weight)  # zero-init: at birth the weights are the prior's
        self.prior = nn.Parameter(torch.tensor(softplus_inverse(_PRIOR)))

    def forward(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        """Weights of images of one size.

        Args:
            images: `[B, N, 3, H, W]`, N >= 2, coarse to fine, 0..1; or N images `[B, 3, H, W]`, which need not be put
                together.

        Returns:
            `[B, N, H, W]`, float32 (float64 for float64), >= 0, of sum 1 over N.

        Raises:
            ValueError: another shape.
        """
        images = _separate(images)
        N, H, W = len(images), *images[0].shape[2:]
        dtype = torch.promote_types(images[0].dtype, torch.float32)
        planes = self._planes([image.to(dtype) for image in images])
        format_ = autocast_dtype(planes.device) or self.last.weight.dtype  # of the convolutions: one copy does for both
        planes = planes.to(format_, memory_format=torch.channels_last)
        alone = torch.eye(N, device=planes.device)
        together = torch.full_like(alone, 1 / N)
        own = F.relu(_over_all(planes, (self.own, alone)), inplace=True)
        joint = F.relu(_over_all(own, (self.joint, alone), (self.context, together)), inplace=True)
        logits = _over_all(joint, (self.last, alone)).to(dtype, memory_format=torch.contiguous_format)
        levels = torch.arange(N - 1, -1, -1, device=logits.device, dtype=dtype)
        logits = logits - (levels * F.softplus(self.prior.to(dtype)))[:, None, None]
        logits = F.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=False)
        return torch.softmax(logits[..., :H, :W], dim=1)

    @staticmethod
    def _planes(images: Sequence[Tensor]) -> Tensor:
        # [B, 7·N, H/2, W/2]: each image, its difference from the finest, the contrast lost by halving.
        # Full precision even under autocast: the differences between the images are small.
        halved = [_halved(image) for image in images]
        finest, _ = halved[-1]
        planes: list[Tensor] = []
        for mean, contrast in halved:
            planes += [mean - 0.5, (mean - finest) / _DETAIL, contrast / _DETAIL]
        return torch.cat(planes, dim=1)


def _over_all(planes: Tensor, *parts: tuple[nn.Conv2d, Tensor]) -> Tensor:
    """Sums of convolutions as one, over the channels of N images: the zeros in it cost less than narrow ones.

    Args:
        planes: `[B, N·C, H, W]`, one image after the other.
        parts: layers of the channels of one image, each with `[N, N]`: how much every image is given of what the
            layer makes of every image.
    """
    check_interrupted()  # no hook of the layers is called
    weights, biases = [], []
    for layer, mixing in parts:
        mixed = mixing.to(layer.weight)[:, None, :, None, None, None] * layer.weight[:, None]
        weights.append(mixed.flatten(2, 3).flatten(0, 1))
        if layer.bias is not None:
            biases.append(layer.bias.repeat(len(mixing)))
    bias = reduce(torch.add, biases) if biases else None
    return F.conv2d(planes, reduce(torch.add, weights), bias, padding="same")


def _halved(image: Tensor) -> tuple[Tensor, Tensor]:
    """The means of 2×2 pixels, `[B, 3, H/2, W/2]`, and how far luma is from them, `[B, 1, H/2, W/2]`."""
    H, W = image.shape[2:]
    if H % 2 or W % 2:
        image = F.pad(image, (0, W % 2, 0, H % 2), mode="replicate")
    rows = image[..., 0::2, :] + image[..., 1::2, :]  # pooling and `pixel_unshuffle` take several times as long
    mean = (rows[..., 0::2] + rows[..., 1::2]) * 0.25
    luma = _mean(image, 1).unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
    cells = rearrange(luma, "b h i w j -> b (i j) h w")
    return mean, _mean((cells - _mean(cells, 1).unsqueeze(1)).abs(), 1).unsqueeze(1)


def _separate(images: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    if isinstance(images, Tensor) and images.ndim != 5:
        raise ValueError(f"images: expected [B, N >= 2, 3, H, W], got {tuple(images.shape)}")
    found = images.unbind(1) if isinstance(images, Tensor) else tuple(images)
    shapes = [tuple(image.shape) for image in found]
    if len(found) < 2 or len(shapes[0]) != 4 or shapes[0][1] != 3 or len(set(shapes)) > 1:
        raise ValueError(f"images: expected N >= 2 of one size [B, 3, H, W], got {shapes}")
    return found


def _mean(planes: Tensor, dim: int) -> Tensor:
    # Whole planes added up: `Tensor.mean` over so few takes several times as long on a CPU.
    return reduce(torch.add, planes.unbind(dim)) / planes.shape[dim]
