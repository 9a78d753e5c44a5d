"""The one place that knows BHWC and BCHW, masks, alpha, grey, and RGB and YCbCr."""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor

from .checks import check_image
from .resample import resample

# ITU-R BT.601, studio range, as MATLAB's rgb2ycbcr: rows Y, Cb, Cr over R, G, B in 0..1, in units of 1/255.
_TO_YCBCR = ((65.481, 128.553, 24.966), (-37.797, -74.203, 112.0), (112.0, -93.786, -18.214))
_OFFSET = (16.0, 128.0, 128.0)
_TO_RGB = tuple(
    tuple(row)
    for row in torch.linalg.inv(torch.tensor(_TO_YCBCR, dtype=torch.float64, device="cpu")).mul(255.0).tolist()
)


def from_bhwc(image_bhwc: Tensor, name: str = "image") -> Tensor:
    """Turn a ComfyUI IMAGE into an image.

    Args:
        image_bhwc: `[B, H, W, C]`, C of 1, 3 or 4, any float dtype, 0..1.
        name: argument name for the messages.

    Returns:
        `[B, C, H, W]` float32, contiguous; never shares memory that a caller could change by mistake.

    Raises:
        TypeError: not a float tensor.
        ValueError: another shape, an axis of length 0, NaN or infinity.
    """
    bhwc_shape(image_bhwc, name)
    image = rearrange(image_bhwc, "b h w c -> b c h w")
    check_image(image, name)
    return image.to(torch.float32, memory_format=torch.contiguous_format, copy=True)


def bhwc_shape(image_bhwc: Tensor, name: str = "image") -> tuple[int, int, int, int]:
    """(B, H, W, C) of a ComfyUI IMAGE; `name` is for the messages.

    Raises:
        TypeError, ValueError: it has no such shape; see `from_bhwc`.
    """
    if not isinstance(image_bhwc, Tensor):
        raise TypeError(f"{name}: expected a float tensor [B, H, W, C], got {type(image_bhwc).__name__}")
    shape = tuple(image_bhwc.shape)
    if len(shape) != 4 or shape[3] not in (1, 3, 4) or 0 in shape:
        raise ValueError(f"{name}: expected [B, H, W, 1|3|4] with no axis of length 0, got {shape}")
    B, H, W, C = shape
    return B, H, W, C


def to_bhwc(image: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Turn an image into a ComfyUI IMAGE.

    Args:
        image: `[B, C, H, W]`, C of 1, 3 or 4.
        dtype: dtype of the result.

    Returns:
        `[B, H, W, C]`, contiguous.

    Raises:
        TypeError, ValueError: as `check_image`.
    """
    check_image(image)
    return rearrange(image, "b c h w -> b h w c").to(dtype, memory_format=torch.contiguous_format, copy=True)


def mask_to_map(mask: Tensor, name: str = "mask") -> Tensor:
    """Turn a ComfyUI MASK into a map.

    Args:
        mask: `[H, W]` or `[B, H, W]`, any float dtype.
        name: argument name for the messages.

    Returns:
        `[B, 1, H, W]` float32 (B is 1 for a mask without batch).

    Raises:
        TypeError: not a float tensor.
        ValueError: another number of axes, an axis of length 0, NaN or infinity.
    """
    if not isinstance(mask, Tensor):
        raise TypeError(f"{name}: expected a float tensor [H, W] or [B, H, W], got {type(mask).__name__}")
    if mask.ndim not in (2, 3) or 0 in mask.shape:
        raise ValueError(f"{name}: expected [H, W] or [B, H, W], got {tuple(mask.shape)}")
    map_ = mask[None, None] if mask.ndim == 2 else mask[:, None]
    check_image(map_, name, channels=(1,))
    return map_.to(torch.float32, memory_format=torch.contiguous_format, copy=True)


def map_at(map_: Tensor, size: tuple[int, int]) -> Tensor:
    """A map at the size of an image: itself if it has it, else brought there by bilinear.

    Args:
        map_: `[B, 1, H, W]`.
        size: (height, width) in pixels.
    """
    return map_ if tuple(map_.shape[-2:]) == size else resample(map_, size, "bilinear")


def map_to_mask(map_: Tensor) -> Tensor:
    """Turn a map into a ComfyUI MASK.

    Args:
        map_: `[B, 1, H, W]`.

    Returns:
        `[B, H, W]` float32.

    Raises:
        TypeError, ValueError: as `check_image`.
    """
    check_image(map_, "map", channels=(1,))
    return map_[:, 0].to(torch.float32, memory_format=torch.contiguous_format, copy=True)


def rgb_to_ycbcr(rgb: Tensor) -> Tensor:
    """Convert RGB to YCbCr of ITU-R BT.601 in studio range, as MATLAB's rgb2ycbcr does.

    Args:
        rgb: `[B, 3, H, W]`, 0..1.

    Returns:
        `[B, 3, H, W]` of the same dtype: Y in 16/255..235/255, Cb and Cr in 16/255..240/255, not rounded.
    """
    r, g, b = _channels(rgb)
    planes = [
        (wr * r + wg * g + wb * b + offset) / 255.0 for (wr, wg, wb), offset in zip(_TO_YCBCR, _OFFSET, strict=True)
    ]
    return torch.cat(planes, dim=1).to(rgb.dtype)


def ycbcr_to_rgb(ycbcr: Tensor) -> Tensor:
    """Convert YCbCr of BT.601 in studio range to RGB; the inverse of `rgb_to_ycbcr`.

    Args:
        ycbcr: `[B, 3, H, W]`, as `rgb_to_ycbcr` returns it.

    Returns:
        `[B, 3, H, W]` of the same dtype, 0..1 for colours that exist in RGB, not clamped.
    """
    y, cb, cr = (plane - offset / 255.0 for plane, offset in zip(_channels(ycbcr), _OFFSET, strict=True))
    planes = [wy * y + wcb * cb + wcr * cr for wy, wcb, wcr in _TO_RGB]
    return torch.cat(planes, dim=1).to(ycbcr.dtype)


def rgb_to_y(rgb: Tensor) -> Tensor:
    """Luma of BT.601 in studio range: the first channel of `rgb_to_ycbcr`.

    Args:
        rgb: `[B, 3, H, W]`, 0..1.

    Returns:
        `[B, 1, H, W]` of the same dtype, in 16/255..235/255.
    """
    r, g, b = _channels(rgb)
    wr, wg, wb = _TO_YCBCR[0]
    return ((wr * r + wg * g + wb * b + _OFFSET[0]) / 255.0).to(rgb.dtype)


def through_rgb_only(image: Tensor) -> Tensor:
    """The colour of an image as [B, 3, H, W]: grey repeated, alpha left out."""
    return image.expand(-1, 3, -1, -1) if image.shape[1] == 1 else image[:, :3]


def through_rgb(image: Tensor, function: Callable[[Tensor], Tensor], size: tuple[int, int] | None = None) -> Tensor:
    """Apply a function of RGB to an image that may be grey or have alpha.

    Grey is repeated to RGB and comes back as the mean of the channels. Alpha does not go through the
    function: it is resampled (bicubic, clamped to 0..1) to the size of the result, and kept exactly when
    the size stays.

    Args:
        image: `[B, C, H, W]`, C of 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA). Not changed.
        function: `[B, 3, H, W]` to `[B, 3, H', W']`; it must not change its argument.
        size: (H', W') expected of the function; None accepts what it gives.

    Returns:
        `[B, C, H', W']` with the channels of the input.

    Raises:
        TypeError, ValueError: as `check_image`; ValueError if the function returns another shape.
    """
    check_image(image, channels=(1, 2, 3, 4))
    B, C, _, _ = image.shape
    has_alpha = C in (2, 4)
    colour = image[:, :-1] if has_alpha else image
    is_grey = colour.shape[1] == 1
    result = function(colour.expand(-1, 3, -1, -1).contiguous() if is_grey else colour)
    if result.ndim != 4 or result.shape[:2] != (B, 3) or (size and tuple(result.shape[-2:]) != tuple(size)):
        sides = "H, W" if size is None else f"{size[0]}, {size[1]}"
        raise ValueError(f"function: expected a result [{B}, 3, {sides}], got {tuple(result.shape)}")
    if is_grey:
        result = result.mean(dim=1, keepdim=True)
    if has_alpha:
        alpha = resample(image[:, -1:], (result.shape[-2], result.shape[-1])).clamp(0.0, 1.0)
        result = torch.cat([result, alpha.to(result)], dim=1)
    return result


def _channels(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # Shape only: networks call this in training, where a pass over the values and a device sync are dear.
    # Sums of planes rather than a matrix product, which autocast would run in half precision.
    if image.ndim != 4 or image.shape[1] != 3:
        raise ValueError(f"image: expected [B, 3, H, W], got {tuple(image.shape)}")
    if image.dtype in (torch.float16, torch.bfloat16):
        image = image.float()
    r, g, b = image.split(1, dim=1)
    return r, g, b
