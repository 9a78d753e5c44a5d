"""Separable resizing of one axis at a time by small exact weight matrices.

Weights and coordinates are computed in float64: in float32, as in `torch.nn.functional.interpolate`, the
coordinates of a picture 8192 pixels wide are off by up to 4e-4 pixels at scales that are no power of two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from .interrupt import check_interrupted

_ROWS = 32  # positions of the source per block: enough for the matrix product, few enough to stay banded
_FEWEST, _MOST = 16, 64  # output positions per block
_GPU_ROWS = 256  # there a launch costs more than the products with 0 beside the band


def _triangle(x: Tensor) -> Tensor:
    return (1.0 - x.abs()).clamp(min=0.0)


def _cubic(x: Tensor) -> Tensor:
    # Keys 1981 with a = -0.5, the only value that reproduces quadratics; also MATLAB's and PIL's.
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return torch.where(x <= 1.0, near, torch.where(x < 2.0, far, 0.0))


def _lanczos3(x: Tensor) -> Tensor:
    return torch.where(x.abs() < 3.0, torch.sinc(x) * torch.sinc(x / 3.0), 0.0)


# Interpolation kernel and half its width, in input pixels.
KERNELS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "bilinear": (_triangle, 1.0),
    "bicubic": (_cubic, 2.0),
    "lanczos": (_lanczos3, 3.0),
}


@dataclass(frozen=True)
class Axis:
    """One resizing of one axis.

    Args:
        length: pixels before.
        target: pixels after.
        scale: target pixels per pixel, which need not be target / length.
        kernel: a key of `KERNELS`.
        antialias: widen the kernel by 1 / scale when reducing.
        mirror: at the border, reflect the image (edge pixel repeated, as MATLAB) instead of dropping what
            lies outside and normalising the rest (as PIL).
    """

    length: int
    target: int
    scale: float
    kernel: str
    antialias: bool = True
    mirror: bool = False


@dataclass(frozen=True)
class _Block:
    start: int  # first source position, negative where the source is mirrored
    stop: int
    matrix: Tensor  # [output positions, stop - start]


def resize_axis(image: Tensor, dim: int, axis: Axis, part: slice | None = None, start: int = 0) -> Tensor:
    """Resize an image along its height or its width.

    Args:
        image: `[B, C, H, W]`, float32 or float64, contiguous; of an axis that is not mirrored it may hold a part
            alone, what `source_of` says at least.
        dim: 2 for the height, 3 for the width.
        axis: what to do; `axis.length` is the whole image's length along `dim`.
        part: the positions of the result that are wanted, None for all.
        start: position in the whole image that `image` begins at.

    Returns:
        `[B, C, H', W']` of the same dtype. Differentiable.
    """
    blocks: Sequence[_Block] = _blocks(axis, image.device, _product_dtype(image))
    shape = list(image.shape)
    shape[dim] = axis.target
    if part is not None:
        blocks = _part_of(blocks, part, slice(start, start + image.shape[dim]))
        shape[dim] = part.stop - part.start
    track = torch.is_grad_enabled() and image.requires_grad
    pieces: list[Tensor] = []
    result = image.new_empty(0 if track else shape)
    done = 0
    with torch.autocast(image.device.type, enabled=False):
        for block in blocks:
            check_interrupted()
            source, count = _source(image, dim, block), block.matrix.shape[0]
            if track:
                pieces.append(_product(block.matrix, source, dim))
            else:
                _product_to(result.narrow(dim, done, count), block.matrix, source, dim)
            done += count
    return torch.cat(pieces, dim) if track else result


def _product(matrix: Tensor, source: Tensor, dim: int) -> Tensor:
    dtype, source = source.dtype, source.to(matrix.dtype)
    return (matrix @ source if dim == 2 else source @ matrix.T).to(dtype)


def _product_to(out: Tensor, matrix: Tensor, source: Tensor, dim: int) -> None:
    """`_product`, written to a part of the result without a copy in between, which would take as long."""
    if matrix.dtype is not source.dtype:
        out.copy_(_product(matrix, source, dim))
    elif dim == 2:
        planes = source.flatten(0, 1)
        torch.bmm(matrix.expand(len(planes), -1, -1), planes, out=out.flatten(0, 1))
    else:
        torch.mm(source.flatten(0, 2), matrix.T, out=out.flatten(0, 2))


def source_of(axis: Axis, part: slice) -> slice:
    """The positions before that some positions after are made of.

    Args:
        axis: one that is not mirrored.
        part: positions after, at least one.
    """
    if axis.length == axis.target:
        return part
    _, reach, _ = _support(axis)
    first, last = ((at + 0.5) / axis.scale - 0.5 for at in (part.start, part.stop - 1))
    # strictly inside: at its ends the kernel is 0
    return slice(max(math.floor(first - reach) + 1, 0), min(math.ceil(last + reach), axis.length))


def _part_of(blocks: Sequence[_Block], part: slice, source: slice) -> list[_Block]:
    """The blocks of some positions alone, for an image of which only `source` is there."""
    found, length = [], blocks[0].matrix.shape[0]
    for number in range(part.start // length, -(-part.stop // length)):
        block, first = blocks[number], number * length
        rows = slice(max(part.start - first, 0), min(part.stop - first, length))
        start, stop = max(block.start, source.start), min(block.stop, source.stop)
        matrix = block.matrix[rows, start - block.start : stop - block.start]
        found.append(_Block(start - source.start, stop - source.start, matrix))
    return found


def _source(image: Tensor, dim: int, block: _Block) -> Tensor:
    length = image.shape[dim]
    if block.start >= 0 and block.stop <= length:
        return image.narrow(dim, block.start, block.stop - block.start)
    # Half-sample symmetry has period 2·length, so that even a 1-pixel image has neighbours.
    index = torch.arange(block.start, block.stop, device=image.device) % (2 * length)
    return image.index_select(dim, torch.minimum(index, 2 * length - 1 - index))


def _product_dtype(image: Tensor) -> torch.dtype:
    """float64 where the process has allowed torch to shorten float32 matrix products (TF32, bfloat16)."""
    if image.device.type not in ("cpu", "cuda"):
        return image.dtype
    try:
        exact = torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # torch refuses to answer when its old and new settings have been mixed
        exact = False
    return image.dtype if exact else torch.float64


@lru_cache(maxsize=128)
def _blocks(axis: Axis, device: torch.device, dtype: torch.dtype) -> tuple[_Block, ...]:
    # Cached tensors must be ordinary ones: one made under inference_mode could not serve training later.
    with torch.inference_mode(False), torch.no_grad():
        positions, weights = _taps(axis)
        blocks, length = [], _block_length(axis) if device.type == "cpu" else _GPU_ROWS
        for first in range(0, axis.target, length):
            at = positions[first : first + length]
            start, stop = int(at.min()), int(at.max()) + 1
            matrix = torch.zeros(at.shape[0], stop - start, dtype=torch.float64, device="cpu")
            matrix.scatter_(1, at - start, weights[first : first + length])
            if not axis.mirror:
                lower, upper = max(start, 0), min(stop, axis.length)
                matrix = matrix[:, lower - start : upper - start].contiguous()
                start, stop = lower, upper
            blocks.append(_Block(start, stop, matrix.to(device, dtype)))
        return tuple(blocks)


def _block_length(axis: Axis) -> int:
    return min(max(round(_ROWS * axis.scale), _FEWEST), _MOST)


def _taps(axis: Axis) -> tuple[Tensor, Tensor]:
    """Source positions (some outside the image) and normalised weights, both `[target, taps]`."""
    kernel = KERNELS[axis.kernel][0]
    widen, reach, taps = _support(axis)
    centre = (torch.arange(axis.target, dtype=torch.float64, device="cpu") + 0.5) / axis.scale - 0.5
    first = torch.floor(centre - reach).to(torch.int64)
    positions = first[:, None] + torch.arange(taps, device="cpu")
    weights = kernel((positions - centre[:, None]) / widen)
    if not axis.mirror:
        weights = weights * ((positions >= 0) & (positions < axis.length))
    return positions, weights / weights.sum(dim=1, keepdim=True)


def _support(axis: Axis) -> tuple[float, float, int]:
    """How much wider than usual the kernel is, half its width in input pixels, and the taps it may have."""
    widen = 1.0 / axis.scale if axis.antialias and axis.scale < 1.0 else 1.0
    reach = KERNELS[axis.kernel][1] * widen
    return widen, reach, math.ceil(2.0 * reach) + 2
