"""Residual skip (article 2.6): carry part of the previous image over into the current one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .checks import check_choice, check_image, check_integer, check_number
from .local_features import similarity
from .pyramid import collapse, decompose, weighed_rows
from .resample import resample
from .rows import Rows
from .transparency import spread_colour

MODES = ("constant", "cosine", "weighted", "attention")

_Weight = TypeVar("_Weight", float, Tensor)

COSINE_POWER = 3.0  # α of DemoFusion, arXiv 2311.16973


def cosine_weight(position: float) -> float:
    """DemoFusion's skip weight c1 = κ^α, κ = ½(1 + cos(π(1 − position))), α = 3 (arXiv 2311.16973).

    Args:
        position: t / T in 0..1: 1 is the start of a process, where the previous image leads, 0 its end.

    Returns:
        A number in 0..1 that grows with position.

    Raises:
        TypeError, ValueError: no number in 0..1.
    """
    check_number(position, "position", 0.0, 1.0)
    return (0.5 * (1.0 + math.cos(math.pi * (1.0 - position)))) ** COSINE_POWER


def skip(
    current: Tensor,
    previous: Tensor,
    mode: str = "cosine",
    strength: float = 1.0,
    position: float = 1.0,
    levels: int = 1,
    model: Callable[[], Tensor] | None = None,
    *,
    weights: Sequence[float] | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """Carry part of the previous image over into the current one.

    The result is current + Σ w_l·band_l(up(previous) − current) over the bands l of a Laplacian pyramid,
    l = 0 the finest, with all w_l in 0..1: at 0 the current image, at 1 the previous one. Modes:

    - "constant": w = strength.
    - "cosine": w = strength·`cosine_weight(position)`.
    - "weighted": w_l = strength·weights[l], from `model` or `weights`.
    - "attention": w(p) = strength·similarity of both images at p: what they agree on is averaged, what
      the current image has added is kept.

    Except for "weighted", w_l = 1 − (1 − w)^(l + 1): with several levels the coarse bands take more of the
    previous image than the fine ones, and strength keeps its ends. Colours that alpha hides count for
    nothing, see `core.transparency`.

    Args:
        current: `[B, C, H, W]`, C of 1, 3 or 4, 0..1. Not changed.
        previous: `[B, C, H', W']` of any size, 0..1; brought to H×W by bicubic. Not changed.
        mode: one of `MODES`.
        strength: 0..1; 0 returns the current image exactly.
        position: mode "cosine" only: t / T in 0..1, see `cosine_weight`.
        levels: bands of the pyramid, >= 1; mode "weighted" has one for each weight instead.
        model: mode "weighted" only: a `SkipWeights`.
        weights: mode "weighted" only, instead of a model: one number in 0..1 for each band, finest first.
        temperature: mode "attention" only: > 0; larger forgives larger differences.

    Returns:
        `[B, C, H, W]` in the dtype of `current`, 0..1; gradients reach both images and the model.

    Raises:
        TypeError, ValueError: a wrong image, mode or number; images of different batch or channels; mode
            "weighted" with neither or both of model and weights.
    """
    _check(current, previous, mode, strength, position, levels, temperature)
    if mode != "weighted" and weights is not None:
        raise ValueError(f'weights: expected None for mode "{mode}", got {list(weights)}')
    given = _given_weights(model, weights) if mode == "weighted" else []
    if strength == 0 or (given and not any(isinstance(w, Tensor) or w for w in given)):
        return current.clamp(0.0, 1.0)
    H, W = current.shape[-2:]
    present = spread_colour(current.to(torch.promote_types(current.dtype, torch.float32)))
    before = resample(spread_colour(previous.to(present)), (H, W)).clamp(0.0, 1.0)
    if mode == "weighted":
        change = Rows(before - present, 0, H)
        weighed = weighed_rows(change, [strength * weight for weight in given], slice(0, H))
        return (present + weighed).clamp(0.0, 1.0).to(current.dtype)
    bands = decompose(before - present, levels)
    if mode == "attention":
        alike = similarity(present, before, temperature)
        terms = [_for_band(strength * _fit(alike, band), level) * band for level, band in enumerate(bands)]
    else:
        w = strength * (cosine_weight(position) if mode == "cosine" else 1.0)
        terms = [_for_band(w, level) * band for level, band in enumerate(bands)]
    return (present + collapse(terms)).clamp(0.0, 1.0).to(current.dtype)


@dataclass(frozen=True)
class SkipWeightsConfig:
    """Config of a `SkipWeights`.

    Attributes:
        levels: bands of the Laplacian pyramid, finest first, >= 1.
    """

    levels: int = 3

    def __post_init__(self) -> None:
        check_integer(self.levels, "levels", 1)


class SkipWeights(nn.Module):
    """Learned weights of a residual skip, one number for each band; 0 at birth, so that it does nothing.

    Attributes:
        config: the `SkipWeightsConfig`.
    """

    def __init__(self, config: SkipWeightsConfig | None = None) -> None:
        """Build the weights.

        Args:
            config: None for the default one.
        """
        super().__init__()
        self.config = config or SkipWeightsConfig()
        self.weights = nn.Parameter(torch.zeros(self.config.levels))

    def forward(self) -> Tensor:
        """The weights, `[levels]`, finest band first, in 0..1."""
        weights = _UnitInterval.apply(self.weights)
        if not isinstance(weights, Tensor):
            raise TypeError(f"weights: expected a tensor, got {type(weights).__name__}")
        return weights


class _UnitInterval(torch.autograd.Function):
    """Clamp to 0..1 whose gradient stops only what would lead further out.

    The plain clamp has no gradient outside, and half of one on the border, where the weights are born;
    without any stop, a weight that training pushes out drifts away and cannot come back.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return values.clamp(0.0, 1.0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (values,) = ctx.saved_tensors
        (grad,) = grads
        leads_out = ((values < 0) & (grad > 0)) | ((values > 1) & (grad < 0))
        return grad.masked_fill(leads_out, 0.0)


def check_pair(current: Tensor, previous: Tensor) -> None:
    """Check that two values are images that a skip can join.

    Raises:
        TypeError, ValueError: one is no image, or they differ in batch or channels.
    """
    check_image(current, "current")
    check_image(previous, "previous")
    if current.shape[:2] != previous.shape[:2]:
        B, C = current.shape[:2]
        raise ValueError(f"previous: expected [{B}, {C}, H, W] as current, got {tuple(previous.shape)}")


def _check(
    current: Tensor,
    previous: Tensor,
    mode: str,
    strength: float,
    position: float,
    levels: int,
    temperature: float,
) -> None:
    check_pair(current, previous)
    check_choice(mode, "mode", MODES)
    check_number(strength, "strength", 0.0, 1.0)
    check_number(position, "position", 0.0, 1.0)
    check_integer(levels, "levels", 1)
    check_number(temperature, "temperature", above=0.0)


def _given_weights(model: Callable[[], Tensor] | None, weights: Sequence[float] | None) -> Sequence[float | Tensor]:
    if model is not None and weights is not None:
        raise ValueError("weights: expected None together with a model")
    if model is not None:
        learned = model()
        # As numbers outside training: zeros are then known to do nothing, and no device is waited for later.
        return learned.unbind() if learned.requires_grad else learned.tolist()
    if weights is None:
        raise ValueError('weights: expected weights or a SkipWeights model for mode "weighted", got None')
    if len(weights) == 0:
        raise ValueError("weights: expected at least one, got none")
    for i, weight in enumerate(weights):
        check_number(weight, f"weights[{i}]", 0.0, 1.0)
    return weights


def _fit(map_: Tensor, band: Tensor) -> Tensor:
    return resample(map_, (band.shape[-2], band.shape[-1]), "bilinear")


def _for_band(weight: _Weight, level: int) -> _Weight:
    # Monotone from 0 to 1 for every level, larger for coarser ones, and smooth, unlike a root.
    return 1.0 - (1.0 - weight) ** (level + 1)
