"""What the upsamplers share: the bicubic base, a float32 layer, and the luma-only networks' colour."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from ..layout import rgb_to_ycbcr, ycbcr_to_rgb
from ..precision import check_weights
from ..separable import Axis, resize_axis

SCALES = (2, 3, 4)
BICUBIC_HALO = 2  # input pixels that a bicubic kernel reaches to either side when it enlarges


def bicubic(image: Tensor, scale: int) -> Tensor:
    """Enlarge by bicubic interpolation, bit for bit as `core.resample`, without its look at every value.

    Args:
        image: [B, C, H, W] float32.
        scale: whole factor.

    Returns:
        [B, C, H·scale, W·scale], not clamped.
    """
    image = image.contiguous()
    for dim in (2, 3):
        length = image.shape[dim]
        image = resize_axis(image, dim, Axis(length, length * scale, scale, "bicubic"))
    return image


def in_float32(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Run a layer that produces pixels in float32, whatever the autocast around it.

    A bfloat16 has 8 significant bits: pixels written in it show bands in smooth skies.
    """
    kind = x.device.type
    available = torch.amp.is_autocast_available(kind)
    with torch.autocast(kind, enabled=False) if available else nullcontext():
        return layer(x.float())


def check_rgb(rgb: Tensor) -> None:
    """Check the shape alone: networks are called in training, where a look at every value is dear.

    Raises:
        ValueError: `rgb` is not [B, 3, H, W].
    """
    if rgb.ndim != 4 or rgb.shape[1] != 3:
        raise ValueError(f"rgb: expected [B, 3, H, W], got {tuple(rgb.shape)}")


class LumaUpsampler(nn.Module):
    """An upsampler whose network sees Y of BT.601 alone; Cb and Cr are enlarged by bicubic.

    A subclass sets `scale` and defines `upsample_luma`.
    """

    scale: int

    def upsample_luma(self, luma: Tensor) -> Tensor:
        """Upsample Y: [B, 1, H, W] in studio range 16/255..235/255 -> [B, 1, H·scale, W·scale] float32."""
        raise NotImplementedError

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
        check_weights(self, type(self).__name__)
        check_rgb(rgb)
        luma, chroma = rgb_to_ycbcr(rgb.float()).split((1, 2), dim=1)
        return ycbcr_to_rgb(torch.cat([self.upsample_luma(luma), bicubic(chroma, self.scale)], dim=1))


def init_normal(conv: nn.Conv2d | nn.ConvTranspose2d, std: float = 0.0) -> None:
    """Draw weights from N(0, std) and zero the bias; std 0 means √(2/(out·k²)) (He 2015, as in Dong 2016)."""
    he = (2.0 / (conv.out_channels * conv.kernel_size[0] * conv.kernel_size[1])) ** 0.5
    nn.init.normal_(conv.weight, std=std or he)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
