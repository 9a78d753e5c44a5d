"""The learned fusion weights of article 2.5: a small net over all scales, for any number of images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from .checks import check_integer
from .noise import softplus_inverse

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
        self.own = nn.Conv2d(7, width, 3, padding=1)
        # Together one convolution of [own, context], the second half of it done once for all images.
        self.joint = nn.Conv2d(width, width, 3, padding=1)
        self.context = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.last = nn.Conv2d(width, 1, 1, bias=False)  # a bias would add the same to all logits
        nn.init.zeros_(self.last.weight)  # zero-init: at birth the weights are the prior's
        self.prior = nn.Parameter(torch.tensor(softplus_inverse(_PRIOR)))

    def forward(self, images: Tensor) -> Tensor:
        """Weights of images of one size.

        Args:
            images: `[B, N, 3, H, W]`, N >= 2, coarse to fine, 0..1.

        Returns:
            `[B, N, H, W]`, float32 (float64 for float64), >= 0, of sum 1 over N.

        Raises:
            ValueError: another shape.
        """
        if images.ndim != 5 or images.shape[1] < 2 or images.shape[2] != 3:
            raise ValueError(f"images: expected [B, N >= 2, 3, H, W], got {tuple(images.shape)}")
        _, N, _, H, W = images.shape
        planes = self._planes(images).to(self.last.weight.dtype).contiguous(memory_format=torch.channels_last)
        own = F.relu(self.own(planes), inplace=True)
        mean = _mean(own.unflatten(0, (-1, N)), 1)
        joint = self.joint(own)
        joint.unflatten(0, (-1, N)).add_(self.context(mean).unsqueeze(1))
        logits = self.last(F.relu(joint, inplace=True))
        dtype = torch.promote_types(images.dtype, torch.float32)
        logits = rearrange(logits.to(dtype), "(b n) 1 h w -> b n h w", n=N)
        logits = F.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=False)[..., :H, :W]
        levels = torch.arange(N - 1, -1, -1, device=images.device, dtype=dtype)
        prior = -levels * F.softplus(self.prior.to(dtype))
        return torch.softmax(logits + prior[:, None, None], dim=1)

    @staticmethod
    def _planes(images: Tensor) -> Tensor:
        # [B·N, 7, H/2, W/2]: the image, its difference from the finest, the contrast lost by halving.
        # Full precision even under autocast: the differences between the images are small.
        images = images.to(torch.promote_types(images.dtype, torch.float32))
        N, H, W = images.shape[1], images.shape[3], images.shape[4]
        even = images.flatten(0, 1)
        if H % 2 or W % 2:
            even = F.pad(even, (0, W % 2, 0, H % 2), mode="replicate")
        rows = even[..., 0::2, :] + even[..., 1::2, :]  # pooling and `pixel_unshuffle` take several times as long
        mean = (rows[..., 0::2] + rows[..., 1::2]) * 0.25
        finest = mean[N - 1 :: N].repeat_interleave(N, dim=0)
        luma = _mean(even, 1).unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
        cells = rearrange(luma, "b h i w j -> b (i j) h w")
        contrast = _mean((cells - _mean(cells, 1).unsqueeze(1)).abs(), 1).unsqueeze(1)
        return torch.cat([mean - 0.5, (mean - finest) / _DETAIL, contrast / _DETAIL], dim=1)


def _mean(planes: Tensor, dim: int) -> Tensor:
    # Whole planes added up: `Tensor.mean` over so few takes several times as long on a CPU.
    return reduce(torch.add, planes.unbind(dim)) / planes.shape[dim]
