"""The learned fusion weights of article 2.5: a small net over all scales, for any number of images."""

from __future__ import annotations

from dataclasses import dataclass

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
        self.joint = nn.Conv2d(2 * width, width, 3, padding=1)
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
        planes = self._planes(images).to(self.last.weight.dtype)
        own = F.relu(self.own(rearrange(planes, "b n c h w -> (b n) c h w")))
        own = rearrange(own, "(b n) c h w -> b n c h w", n=N)
        context = own.mean(dim=1, keepdim=True).expand_as(own)
        both = rearrange([own, context], "two b n c h w -> (b n) (two c) h w")
        logits = self.last(F.relu(self.joint(both)))
        dtype = torch.promote_types(images.dtype, torch.float32)
        logits = rearrange(logits.to(dtype), "(b n) 1 h w -> b n h w", n=N)
        logits = F.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=False)[..., :H, :W]
        levels = torch.arange(N - 1, -1, -1, device=images.device, dtype=dtype)
        prior = -levels * F.softplus(self.prior.to(dtype))
        return torch.softmax(logits + prior[:, None, None], dim=1)

    @staticmethod
    def _planes(images: Tensor) -> Tensor:
        # Full precision even under autocast: the differences between the images are small.
        images = images.to(torch.promote_types(images.dtype, torch.float32))
        B, _, _, H, W = images.shape
        flat = rearrange(images, "b n c h w -> (b n) c h w")
        flat = F.pad(flat, (0, W % 2, 0, H % 2), mode="replicate")
        cells = rearrange(flat, "(b n) c (h u) (w v) -> b n c (u v) h w", b=B, u=2, v=2)
        mean = cells.mean(dim=3)
        contrast = (cells - mean.unsqueeze(3)).abs().mean(dim=(2, 3)).unsqueeze(2)
        return torch.cat([mean - 0.5, (mean - mean[:, -1:]) / _DETAIL, contrast / _DETAIL], dim=2)
