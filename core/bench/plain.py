"""The peers that need nothing from outside: the same networks as a first script would run them, and the usual tiles."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..attention import WindowAttention
from ..chain import Chain
from ..denoiser import Denoiser
from ..fusion import fuse
from ..resample import resample
from ..residual import skip

TILE, OVERLAP = 512, 32  # of ComfyUI's node "Upscale Image (using Model)", in input pixels


class PlainChain:
    """A chain in float32, in the framework's own layout, on whole images: no tiles, no autocast, no channels last.

    Args:
        chain: whose weights it takes.
    """

    def __init__(self, chain: Chain) -> None:
        self._chain = copy.deepcopy(chain).float()
        self._chain._apply(lambda tensor: tensor.contiguous(memory_format=torch.contiguous_format))

    @torch.no_grad()
    def __call__(self, image: Tensor, stages: int) -> Tensor:
        """[B, 3, H, W] to [B, 3, H·2^stages, W·2^stages]."""
        source = image
        for number in range(1, stages + 1):
            stage = self._chain.stage(number)
            up = stage.upsampler(image).clamp(0, 1)
            current = _regressed(stage.denoiser, up) if stage.denoiser.config.regression else up
            before = resample(image, (up.shape[2], up.shape[3])).clamp(0, 1)
            current = skip(current, before, "weighted", model=stage.skip_weights)
            image = fuse([before, current], "learned", model=stage.weights).image
        return _projected_back(image, source) if self._chain.config.back_projection else image


def _regressed(denoiser: Denoiser, up: Tensor) -> Tensor:
    ones = up.new_ones(1, 1, 1, 1)
    x = torch.cat([torch.zeros_like(up), up - 0.5, torch.zeros_like(up[:, :2])], 1)
    c_out, b = denoiser.coefficients(torch.zeros_like(ones), ones)[1::2]
    x[:, 6] = (b / denoiser.config.sigma_r).log().item()
    x[:, 7] = 1.0
    return (up + c_out * denoiser.unet(x)).clamp(0, 1)


def _projected_back(image: Tensor, source: Tensor) -> Tensor:
    lacking = source - resample(image, (source.shape[2], source.shape[3]))
    return (image + resample(lacking, (image.shape[2], image.shape[3]))).clamp(0, 1)


def blended_tiles(
    function: Callable[[Tensor], Tensor], image: Tensor, scale: int, tile: int = TILE, overlap: int = OVERLAP
) -> Tensor:
    """Enlarges in overlapping tiles whose borders are blended linearly, the usual scheme for networks of unknown reach.

    Tiles begin every `tile - overlap` pixels; over the overlap the weight of a tile rises from nearly 0 to 1. The
    result is the weighted mean.

    Args:
        function: [1, 3, h, w] to [1, 3, h·scale, w·scale].
        image: [1, 3, H, W].
        scale: of the function.
        tile, overlap: in input pixels.

    Returns:
        [1, 3, H·scale, W·scale].
    """
    H, W = image.shape[-2:]
    total = image.new_zeros(1, 3, H * scale, W * scale)
    weights = torch.zeros_like(total)
    for top in _starts(H, tile, overlap):
        for left in _starts(W, tile, overlap):
            part = function(image[..., top : top + tile, left : left + tile]).float()
            mask = torch.ones_like(part)
            for dim in (2, 3):
                mask *= _ramp(part.shape[dim], overlap * scale).unflatten(0, (-1, 1) if dim == 2 else (1, -1))
            h, w = part.shape[-2:]
            rows, columns = slice(top * scale, top * scale + h), slice(left * scale, left * scale + w)
            total[..., rows, columns] += part * mask
            weights[..., rows, columns] += mask
    return total / weights


def naive_window_attention(layer: WindowAttention, x: Tensor) -> Tensor:
    """The layer by the formula softmax(q kᵀ / √d + bias) v, every matrix in memory, float32."""
    B, C, H, W = x.shape
    side, heads = layer.window, layer.heads
    q, k, v = (
        part.reshape(B, heads, C // heads, H // side, side, W // side, side)
        .permute(0, 3, 5, 1, 4, 6, 2)
        .reshape(-1, heads, side * side, C // heads)
        for part in layer.qkv(layer.norm(x)).chunk(3, 1)
    )
    bias = layer.bias_table[layer.bias_index].permute(2, 0, 1)
    weights = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(C // heads) + bias, -1)
    out = (weights @ v).reshape(B, H // side, W // side, heads, side, side, C // heads)
    return x + layer.proj(out.permute(0, 3, 6, 1, 4, 2, 5).reshape(B, C, H, W))


def full_attention(layer: WindowAttention, x: Tensor) -> Tensor:
    """Attention of every token to every other with the same layer's weights, without position encoding."""
    B, C, H, W = x.shape
    q, k, v = (
        part.reshape(B, layer.heads, C // layer.heads, H * W).transpose(2, 3)
        for part in layer.qkv(layer.norm(x)).chunk(3, 1)
    )
    out = F.scaled_dot_product_attention(q, k, v)
    return x + layer.proj(out.transpose(2, 3).reshape(B, C, H, W))


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    return [0] if length <= tile else list(range(0, length - overlap, tile - overlap))


def _ramp(length: int, feather: int) -> Tensor:
    """Weights along one axis of a tile: they rise over `feather` pixels at each end."""
    if feather >= length:
        return torch.ones(length)
    places = torch.arange(1.0, length + 1)
    return (places / feather).clamp(max=1) * ((length + 1 - places) / feather).clamp(max=1)
