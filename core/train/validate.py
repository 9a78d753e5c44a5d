"""Validation on a fixed set: Y-PSNR, SSIM and PD-squeeze after every stage, on the middle of each picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..metrics import SSIM_WINDOW, psnr, ssim
from ..perceptual_distance import PerceptualDistance
from ..pictures import PictureError
from ..squeezenet import SMALLEST
from .data import MARGIN
from .degradation import RealisticConfig, degrade_realistic
from .degrade import matlab_imresize
from .distributed import World
from .pictures import Pictures

SIDE = 512  # pixels of each picture's middle: enough to rank models, quick enough to run often
BEST_PSNR = 100.0  # dB given to a picture that is met exactly, which has no finite PSNR

Enlarge = Callable[[Tensor], list[Tensor]]  # an input [1, 3, h, w] in 0..1 to the results, stage by stage


@dataclass(frozen=True)
class Subject:
    """A validation picture and its reductions.

    Attributes:
        input: `[1, 3, h, w]` float32 in 0..1.
        targets: what each stage should make of it.
    """

    input: Tensor
    targets: tuple[Tensor, ...]


def fewest_pixels(factors: Sequence[int], pd: bool = False) -> int:
    """What the short side of an input must have, in pixels, so that every result can be measured without its border.

    Args:
        factors: size after each stage, in multiples of the input; as many pixels are cropped at each border.
        pd: whether PD-squeeze is measured beside SSIM.
    """
    return 2 + math.ceil((SMALLEST if pd else SSIM_WINDOW) / factors[0])


def measurable(pictures: Pictures, factors: Sequence[int], pd: bool = False) -> list[int]:
    """The pictures that every result can be measured of.

    Args:
        pictures: the set.
        factors, pd: see `fewest_pixels`.

    Raises:
        ValueError: there are none.
    """
    return large_enough(pictures, factors[-1], fewest_pixels(factors, pd))


def presentable(pictures: Pictures, factors: Sequence[int]) -> list[int]:
    """The pictures that samples can be made of: all that are measured, and all that crops are cut from."""
    return large_enough(pictures, factors[-1], min(fewest_pixels(factors), 1 + 2 * MARGIN))


def large_enough(pictures: Pictures, factor: int, fewest: int) -> list[int]:
    """The pictures that can be reduced by a factor.

    Args:
        pictures: the set.
        factor: by which.
        fewest: pixels that their short side must have then.

    Raises:
        ValueError: there are none.
    """
    short = [min(size) for size in pictures.sizes]
    side = fewest * factor
    usable = [index for index, length in enumerate(short) if length >= side]
    if not usable:
        raise ValueError(f"val: expected pictures of at least {side}x{side} px, got at most {max(short)} px")
    return usable


def subject(
    pictures: Pictures, index: int, factors: Sequence[int], side: int = SIDE, realistic: RealisticConfig | None = None
) -> Subject:
    """The middle of a picture at every scale, reduced as the benchmarks do.

    Args:
        pictures: the set.
        index: which.
        factors: size after each stage, in multiples of the input.
        side: of the middle, at most.
        realistic: how the input is degraded, the same at every call as the picture's name decides what is drawn; None
            reduces it as the targets.

    Raises:
        PictureError: it cannot be decoded.
    """
    picture = torch.from_numpy(pictures[index].copy()).permute(2, 0, 1)[None]
    H, W = (min(length, side) // factors[-1] * factors[-1] for length in picture.shape[-2:])
    top, left = (picture.shape[-2] - H) // 2, (picture.shape[-1] - W) // 2
    truth = picture[..., top : top + H, left : left + W]
    sizes = [(H * factor // factors[-1], W * factor // factors[-1]) for factor in (1, *factors[:-1])]
    scales = [matlab_imresize(truth, size).float() / 255 for size in sizes] + [truth.float() / 255]
    if realistic is not None:
        rng = np.random.default_rng(list(pictures.names[index].encode()))
        scales[0] = degrade_realistic(truth[0], sizes[0], rng, realistic)[None].float() / 255
    return Subject(scales[0], tuple(scales[1:]))


def validate(
    enlarge: Enlarge,
    pictures: Pictures,
    factors: Sequence[int],
    *,
    realistic: RealisticConfig | None = None,
    distance: PerceptualDistance | None = None,
    poll: Callable[[], None] | None = None,
    world: World | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """Mean quality after each stage.

    Pictures that are too small or cannot be decoded are left out. Several processes measure some pictures each.

    Args:
        enlarge: the model.
        pictures: the validation set.
        factors: size after each stage, in multiples of the input.
        realistic: how inputs are degraded, see `subject`.
        distance: PD-squeeze; None leaves it out.
        poll: called before each picture; may raise to stop.
        world: of the run.
        device: that processes exchange figures on.

    Returns:
        Y-PSNR in dB by factor ("x2", "x4", …), Y-SSIM ("x2_ssim") and PD-squeeze ("x2_pd").

    Raises:
        ValueError: there is no picture that can be used.
    """
    world = world or World()
    names = [f"x{factor}{suffix}" for factor in factors for suffix in ("", "_ssim", *(["_pd"] if distance else []))]
    totals, count = dict.fromkeys(names, 0.0), 0
    usable = measurable(pictures, factors, pd=distance is not None)
    for index in usable[world.rank :: world.size]:
        if poll is not None:
            poll()
        try:
            measured = subject(pictures, index, factors, SIDE, realistic)
        except PictureError:  # the folder has named it
            continue
        for factor, output, target in zip(factors, enlarge(measured.input), measured.targets, strict=True):
            totals[f"x{factor}"] += min(float(psnr(output, target, crop=factor)), BEST_PSNR)
            totals[f"x{factor}_ssim"] += float(ssim(output, target, crop=factor))
            if distance is not None:
                totals[f"x{factor}_pd"] += float(distance.measure(output, target, crop=factor))
        count += 1
    *sums, counted = world.sums([*totals.values(), count], torch.device(device))
    if counted == 0:
        raise ValueError(f"val: none of the pictures of {pictures.name} can be decoded")
    return {name: total / counted for name, total in zip(names, sums, strict=True)}


def score(values: dict[str, float], select: str) -> float:
    """What a validation says of a model, higher being better: the mean over the stages, PD-squeeze negated.

    Args:
        values: of `validate`.
        select: "psnr", "ssim" or "pd".
    """
    suffix = {"psnr": "", "ssim": "_ssim", "pd": "_pd"}[select]
    chosen = [value for name, value in values.items() if name.partition("_")[2] == suffix.removeprefix("_")]
    return round((-1 if select == "pd" else 1) * sum(chosen) / len(chosen), 6)
