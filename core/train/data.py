"""Training crops of pictures: degraded as the protocol says, flipped and turned.

Each crop is a function of (seed, step, its number in the batch) and the pictures alone: a resumed run sees the same
crops as an uninterrupted one, and processes that share a batch see the crops that one process would.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..checks import check_integer
from ..pictures import PictureError
from .augment import colour_jitter, cutblur, mixup
from .data_config import DataConfig
from .degradation import degrade_realistic
from .degrade import matlab_imresize
from .pictures import Pictures

MARGIN = 2  # input pixels around a crop whose degradation saw its border; cut off
CANDIDATES = 3  # positions drawn for a crop; the one with the most gradient energy is taken
_NAMED = 5  # pictures that a report names

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """Crops at every scale, coarse to fine, each [B, 3, h, w] float32 in 0..1: the input, then a target a stage."""

    scales: tuple[Tensor, ...]

    def to(self, device: torch.device) -> Batch:
        """The crops on a device."""
        return Batch(tuple(scale.to(device, non_blocking=True) for scale in self.scales))


@dataclass(frozen=True)
class _Fitting:
    """Pictures that are large enough, and how likely each or one before it is drawn."""

    indices: list[int]
    likely: NDArray[np.float64]


class CropSampler:
    """Draws batches of crops.

    Args:
        pictures: where from.
        seed: of the run, >= 0.
        config: what is done to the crops.
        device: where they are wanted. A CUDA device reduces them itself, to the same levels, faster than one thread of
            a CPU could; others may lack the float64 for it, and the crops stay on the CPU.
    """

    def __init__(
        self,
        pictures: Pictures,
        seed: int,
        config: DataConfig | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.pictures, self.seed, self.config = pictures, seed, config or DataConfig()
        wanted = torch.device(device)
        self.device = wanted if wanted.type == "cuda" else torch.device("cpu")
        self._fitting: dict[int, _Fitting] = {}

    def fitting(self, factor: int, crop: int) -> list[int]:
        """The pictures that are large enough; the others are reported the first time.

        Args:
            factor: the finest crop is so many times the input.
            crop: side of the input in pixels.

        Raises:
            ValueError: there are none.
        """
        return self._large_enough(factor, crop).indices

    def batch(
        self, step: int, *, factors: tuple[int, ...], crop: int, batch: int, items: Sequence[int] | None = None
    ) -> Batch:
        """The crops of one step.

        Args:
            step: of the run.
            factors: of each target over the input, from coarse to fine, whole numbers that divide the last:
                (2, 4, 8) for three stages of 2, (3,) for a single network of 3.
            crop: side of the input in pixels.
            batch: crops of the step.
            items: the numbers of those to be made here, of 0..batch-1; None makes all.

        Raises:
            TypeError, ValueError: bad factors, sizes or items.
            ValueError: no picture is large enough, or none of those that are can be decoded.
        """
        _check_factors(factors)
        numbers = _checked_items(items, batch)
        side = (crop + 2 * MARGIN) * factors[-1]
        fitting = self._large_enough(factors[-1], crop)
        generators = [np.random.default_rng((self.seed, step, number)) for number in numbers]
        finest = torch.empty(len(numbers), 3, side, side, dtype=torch.uint8)
        for image, rng in zip(finest, generators, strict=True):
            image.copy_(self._finest(fitting, side, rng))
        on_device = finest.to(self.device)
        targets = [matlab_imresize(on_device, scale=f / factors[-1]) for f in factors[:-1]] + [on_device]
        images = [self._inputs(finest, on_device, factors[-1], generators), *targets]
        scales = zip(images, (1, *factors), strict=True)
        return Batch(tuple(_trim(image, MARGIN * factor).float() / 255 for image, factor in scales))

    def _large_enough(self, factor: int, crop: int) -> _Fitting:
        side = (crop + 2 * MARGIN) * factor
        if side not in self._fitting:
            sides = [min(size) for size in self.pictures.sizes]
            fitting = [index for index, short in enumerate(sides) if short >= side]
            wanted = f"{side}x{side} px for crops of {crop} px at factor {factor}"
            if not fitting:
                raise ValueError(f"data: expected pictures of at least {wanted}, got at most {max(sides)} px")
            if len(fitting) < len(sides):
                small = [name for name, short in zip(self.pictures.names, sides, strict=True) if short < side]
                names = ", ".join(small[:_NAMED]) + (", …" if len(small) > _NAMED else "")
                log.warning("data: %d of %d pictures are left out, under %s: %s", len(small), len(sides), wanted, names)
            share = np.cumsum(np.sqrt([float(np.prod(self.pictures.sizes[index])) for index in fitting]))
            self._fitting[side] = _Fitting(fitting, share / share[-1])
        return self._fitting[side]

    def _finest(self, fitting: _Fitting, side: int, rng: np.random.Generator) -> Tensor:
        """One crop [3, side, side] uint8, before anything is reduced."""
        crop = self._cut(fitting, side, rng)
        if rng.random() < self.config.mixup:
            crop = mixup(crop, self._cut(fitting, side, rng), rng)
        return colour_jitter(crop, self.config.jitter, rng) if self.config.jitter > 0 else crop

    def _inputs(self, finest: Tensor, on_device: Tensor, factor: int, generators: list[np.random.Generator]) -> Tensor:
        """What the network is given [B, 3, side / factor, side / factor] uint8, on the device."""
        if self.config.degradation == "realistic":
            size = (finest.shape[-2] // factor, finest.shape[-1] // factor)
            pairs = zip(finest, generators, strict=True)
            made = [degrade_realistic(image, size, rng, self.config.realistic) for image, rng in pairs]
            images = torch.stack(made).to(self.device)
        else:
            images = matlab_imresize(on_device, scale=1 / factor)
        for image, rng in zip(images, generators, strict=True):
            if rng.random() < self.config.cutblur:
                image.copy_(cutblur(image, rng))
        return images

    def _cut(self, fitting: _Fitting, side: int, rng: np.random.Generator) -> Tensor:
        """A piece of a picture [3, side, side], flipped and turned."""
        chosen = fitting.indices[int(np.searchsorted(fitting.likely, rng.random(), side="right"))]
        picture = self._picture(chosen, fitting.indices)
        reduce = self._reduction(min(picture.shape[:2]) // side, rng)
        piece = _piece(picture, side * reduce, rng)
        if self.config.turns:
            piece = np.rot90(piece, int(rng.integers(4)))
        if self.config.flips and rng.integers(2):
            piece = piece[:, ::-1]
        crop = torch.from_numpy(np.ascontiguousarray(piece.transpose(2, 0, 1)))
        return crop if reduce == 1 else matlab_imresize(crop[None], scale=1 / reduce)[0]

    def _reduction(self, most: int, rng: np.random.Generator) -> int:
        """By how much a picture that can be reduced by `most` is reduced before a crop is made of it."""
        choice = self.config.reduce
        if len(choice) == 1:  # nothing is drawn, so that runs without it keep their crops
            return min(choice[0], most)
        return min(choice[int(rng.integers(len(choice)))], most)

    def _picture(self, index: int, fitting: list[int]) -> NDArray[np.uint8]:
        # In place of a damaged picture the next one: the crops stay a function of seed, step and the pictures.
        start = bisect_left(fitting, index)
        for candidate in fitting[start:] + fitting[:start]:
            try:
                return self.pictures[candidate]
            except PictureError:
                continue
        raise ValueError(f"data: none of the {len(fitting)} pictures that are large enough can be decoded")


def _piece(picture: NDArray[np.uint8], side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    H, W, _ = picture.shape
    best, most = None, -1.0
    for _ in range(CANDIDATES):
        top, left = int(rng.integers(H - side + 1)), int(rng.integers(W - side + 1))
        piece = picture[top : top + side, left : left + side]
        green = piece[::2, ::2, 1].astype(np.int16)
        energy = float(np.abs(np.diff(green, axis=0)).mean() + np.abs(np.diff(green, axis=1)).mean())
        if energy > most:
            best, most = piece, energy
    if best is None:
        raise ValueError(f"side: expected at most {min(H, W)}, got {side}")
    return best


def _check_factors(factors: tuple[int, ...]) -> None:
    expected = "whole numbers that grow and divide the last"
    if not factors:
        raise ValueError(f"factors: expected {expected}, got none")
    for factor in factors:
        check_integer(factor, "factors", 1)
    if list(factors) != sorted(set(factors)) or any(factors[-1] % factor for factor in factors):
        raise ValueError(f"factors: expected {expected}, got {factors}")


def _checked_items(items: Sequence[int] | None, batch: int) -> Sequence[int]:
    check_integer(batch, "batch", 1)
    if items is None:
        return range(batch)
    if not items:
        raise ValueError(f"items: expected some of 0..{batch - 1}, got none")
    for item in items:
        check_integer(item, "items", 0, batch - 1)
    return items


def _trim(image: Tensor, border: int) -> Tensor:
    return image[..., border:-border, border:-border]
