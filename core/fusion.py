"""Multi-scale fusion (article 2.5): I = Σ wᵢ(p)·up(Iᵢ), with weights that sum to 1 at every pixel."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from .checks import check_choice, check_image, check_number, check_size
from .interrupt import check_interrupted
from .local_features import feature_distance, in_temperatures, local_features
from .pyramid import collapse, decompose, gaussian_pyramid
from .resample import resample
from .transparency import spread_colour

__all__ = ["MODES", "STRUCTURES", "FusionResult", "blend", "check_images", "fuse"]

MODES = ("weighted", "attention", "learned")
STRUCTURES = ("flat", "hierarchical", "laplacian")

_FEWEST_BANDS = 3

# Weights [B, N, H, W] of images of one size, given the share that the caller's weights leave to each.
_Weigh = Callable[[Sequence[Tensor], Sequence[float]], Tensor]


class FusionResult(NamedTuple):
    """What `fuse` returns.

    Attributes:
        image: `[B, C, H, W]`, 0..1.
        weights: `[B, N, H, W]` the share of each input, >= 0, of sum 1 over N; never below float32.
    """

    image: Tensor
    weights: Tensor


def fuse(
    images: Sequence[Tensor],
    mode: str = "weighted",
    structure: str = "flat",
    weights: Sequence[float] | None = None,
    model: Callable[[Tensor], Tensor] | None = None,
    size: tuple[int, int] | None = None,
    temperature: float = 1.0,
) -> FusionResult:
    """Fuse images of several scales into one.

    Every image is brought to `size` by bicubic. Modes, how the weights come about:

    - "weighted": `weights`, the same at all pixels; equal ones by default.
    - "attention": softmax over the images of −distance / temperature, the distance of local features
      (luma and gradient over a small patch) between the finest image, the query, and each image, the
      keys. Where all agree they are averaged; where they differ the finest decides.
    - "learned": `model`, as `DynamicWeights`.

    Structures, how they are applied:

    - "flat": all images at once.
    - "hierarchical": the two coarsest first, at the size of the larger, then the result with the next,
      and so on. Given weights keep their shares of the whole.
    - "laplacian": band by band in a Laplacian pyramid, with weights of their own for each band. A band
      takes nothing from images too small to hold it, unless it would have no image left.

    Inputs that are all equal come back unchanged.

    Args:
        images: at least two `[B, C, H, W]` with the same B and C (1, 3 or 4), any sizes, coarse to fine,
            0..1. Not changed. Alpha is fused with the weights of the colour; colours that it hides count for
            nothing, see `core.transparency`.
        mode: one of `MODES`.
        structure: one of `STRUCTURES`.
        weights: mode "weighted" only: one number >= 0 for each image, not all 0, normalised here.
        model: mode "learned" only: a `DynamicWeights` or any function, as a tiled one, from
            `[B, N, 3, H, W]` to weights `[B, N, H, W]` of sum 1. It sees pairs in structure
            "hierarchical" and every reduction in structure "laplacian".
        size: (height, width) of the result; None for that of the largest image.
        temperature: mode "attention" only: > 0; small lets the finest image win sooner.

    Returns:
        The fused image in the dtype of the last, and the effective weights. For structure "laplacian" the
        weights are those of the finest band.

    Raises:
        TypeError, ValueError: a wrong image, mode, structure, weight, size or temperature; fewer than two
            images, or images of different batch or channels; mode "learned" without a model.
    """
    check_images(images)
    check_choice(mode, "mode", MODES)
    check_choice(structure, "structure", STRUCTURES)
    check_number(temperature, "temperature", above=0.0)
    if size is None:
        size = fused_size(images)
    check_size(size)
    shares = _shares(weights, mode, len(images))
    weigh = _weigher(mode, model, temperature)
    dtype, device = images[-1].dtype, images[-1].device
    images = [spread_colour(image.to(device, torch.promote_types(dtype, torch.float32))) for image in images]
    structures = {"flat": _flat, "hierarchical": _hierarchical, "laplacian": _laplacian}
    image, effective = structures[structure](images, shares, weigh, (size[0], size[1]))
    return FusionResult(image.clamp(0.0, 1.0).to(dtype), effective)


def blend(images: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Σ wᵢ·Iᵢ of images of one size.

    Args:
        images: `[B, C, H, W]` each.
        weights: `[B, N, H, W]` of sum 1 over N.

    Returns:
        `[B, C, H, W]`, a new tensor; equal images come back to the bit.
    """
    # written as changes to the last image, so that it is so
    last = images[-1]
    result = last
    for i, image in enumerate(images[:-1]):
        check_interrupted()
        result = torch.addcmul(result, weights[:, i : i + 1], image - last)
    return result


def fused_size(images: Sequence[Tensor]) -> tuple[int, int]:
    """(height, width) of the largest image, the last of them where several are."""
    return max((_size(image) for image in reversed(images)), key=math.prod)


def _flat(
    images: Sequence[Tensor], shares: Sequence[float], weigh: _Weigh, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    scaled = [_scaled(image, size) for image in images]
    weights = weigh(scaled, shares)
    return blend(scaled, weights), weights


def _hierarchical(
    images: Sequence[Tensor], shares: Sequence[float], weigh: _Weigh, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    fused, share = images[0], shares[0]
    effective = torch.ones_like(fused[:, :1])
    for i, image in enumerate(images[1:], start=1):
        at = size if i == len(images) - 1 else _larger(_size(fused), _size(image), size)
        pair = [_scaled(fused, at), _scaled(image, at)]
        weights = weigh(pair, [share, shares[i]])
        fused = blend(pair, weights)
        effective = torch.cat([resample(effective, at, "bilinear") * weights[:, :1], weights[:, 1:]], dim=1)
        share += shares[i]
    return fused, effective


def _laplacian(
    images: Sequence[Tensor], shares: Sequence[float], weigh: _Weigh, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    scaled = [_scaled(image, size) for image in images]
    ratios = [min(h / size[0], w / size[1]) for h, w in map(_size, images)]
    levels = max(_FEWEST_BANDS, 1 + math.ceil(-math.log2(min(ratios))))
    # Differences from the finest image, so that equal images give exact zeros.
    bands = [decompose(image - scaled[-1], levels) for image in scaled[:-1]]
    reduced = [gaussian_pyramid(image, levels) for image in scaled]
    fused, weights = [], []
    for level in range(levels):
        check_interrupted()
        weights.append(weigh([pyramid[level] for pyramid in reduced], shares))
        weights[-1] = _of_holders(weights[-1], [_holds(ratio, level, levels) for ratio in ratios])
        terms = [weights[-1][:, i : i + 1] * pyramid[level] for i, pyramid in enumerate(bands)]
        fused.append(torch.stack(terms).sum(dim=0))
    return scaled[-1] + collapse(fused), weights[0]


def _holds(ratio: float, level: int, levels: int) -> bool:
    # Nearest octave, because sizes are rounded: 33 of 67 pixels count as one half.
    return level == levels - 1 or ratio * 2.0**level >= math.sqrt(0.5)


def _of_holders(weights: Tensor, holds: Sequence[bool]) -> Tensor:
    held = weights * weights.new_tensor(holds)[:, None, None]
    total = held.sum(dim=1, keepdim=True)
    enough = total > 1e-6
    return torch.where(enough, held / torch.where(enough, total, torch.ones_like(total)), weights)


def _weigher(mode: str, model: Callable[[Tensor], Tensor] | None, temperature: float) -> _Weigh:
    if mode == "weighted":
        return _weighted
    if mode == "attention":
        return partial(_attention, temperature)
    if model is None:
        raise ValueError('model: expected a DynamicWeights for mode "learned", got None')
    return partial(_learned, model)


def _weighted(images: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    B, _, H, W = images[0].shape
    total = sum(shares)
    # A pair that has no share in the whole may be mixed in any way.
    normalised = [share / total if total > 0 else 1.0 / len(shares) for share in shares]
    return images[0].new_tensor(normalised).view(1, -1, 1, 1).expand(B, -1, H, W)


def _attention(temperature: float, images: Sequence[Tensor], _shares: Sequence[float]) -> Tensor:
    query = local_features(images[-1])
    distances = torch.cat([feature_distance(query, local_features(image)) for image in images], dim=1)
    return torch.softmax(-in_temperatures(distances, temperature), dim=1)


def _learned(model: Callable[[Tensor], Tensor], images: Sequence[Tensor], _shares: Sequence[float]) -> Tensor:
    B, _, H, W = images[0].shape
    weights = model(torch.stack([image[:, :3].expand(-1, 3, -1, -1) for image in images], dim=1))
    if tuple(weights.shape) != (B, len(images), H, W):
        expected = f"weights [{B}, {len(images)}, {H}, {W}]"
        raise ValueError(f"model: expected {expected}, got {tuple(weights.shape)}")
    return weights


def check_images(images: object, alike: bool = True) -> None:
    """Check that a value is a list of images that can be fused.

    Args:
        images: what should be at least two `[B, C, H, W]` with the same B.
        alike: whether they must have the same C, too.

    Raises:
        TypeError, ValueError: it is none.
    """
    if isinstance(images, Tensor) or not isinstance(images, Sequence):
        raise TypeError(f"images: expected a sequence of images, got {type(images).__name__}")
    if len(images) < 2:
        raise ValueError(f"images: expected at least 2, got {len(images)}")
    for i, image in enumerate(images):
        check_image(image, f"images[{i}]")
        B, C = images[0].shape[:2]
        if image.shape[0] != B or (alike and image.shape[1] != C):
            channels = C if alike else "1|3|4"
            raise ValueError(f"images[{i}]: expected [{B}, {channels}, H, W] as images[0], got {tuple(image.shape)}")


def _shares(weights: Sequence[float] | None, mode: str, count: int) -> list[float]:
    if weights is None:
        return [1.0 / count] * count
    if mode != "weighted":
        raise ValueError(f'weights: expected None for mode "{mode}", got {list(weights)}')
    if len(weights) != count:
        raise ValueError(f"weights: expected {count}, one for each image, got {len(weights)}")
    for i, weight in enumerate(weights):
        check_number(weight, f"weights[{i}]", 0.0)
    if not any(weights):
        raise ValueError(f"weights: expected at least one above 0, got {list(weights)}")
    largest = float(max(weights))  # only ratios count; the sum of large numbers is none
    return [float(weight) / largest for weight in weights]


def _scaled(image: Tensor, size: tuple[int, int]) -> Tensor:
    return resample(image, size).clamp(0.0, 1.0)  # bicubic overshoots at edges


def _size(image: Tensor) -> tuple[int, int]:
    return image.shape[-2], image.shape[-1]


def _larger(a: tuple[int, int], b: tuple[int, int], limit: tuple[int, int]) -> tuple[int, int]:
    return min(max(a[0], b[0]), limit[0]), min(max(a[1], b[1]), limit[1])
