"""Noise injection (article 2.2): u = y + sigma·n, with noise drawn per image and per stage on the CPU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from kornia.filters import filter2d_separable, get_gaussian_kernel1d
from torch import Tensor, nn
from torch.nn import functional as F

from .checks import check_choice, check_image, check_integer, check_map, check_number
from .interrupt import check_interrupted
from .precision import autocast

KINDS = ("gaussian", "uniform", "correlated")

MAX_SEED = 2**64 - 1
CORRELATION_SIGMA = 1.5  # pixels: standard deviation of the blur of correlated noise
_CORRELATION_RADIUS = 5
_WORD = 2**64
_PLAIN: dict[str, Any] = {"device": torch.device("cpu"), "dtype": torch.float32}  # whatever torch's defaults are


def generator(seed: int, stage: int = 1) -> torch.Generator:
    """The random generator of one image in one stage.

    Args:
        seed: 0..2**64 − 1.
        stage: 1-based number of the stage; each has noise of its own.

    Returns:
        A CPU generator, whatever the device of the image: the noise does not depend on the device.

    Raises:
        TypeError: seed or stage is no integer.
        ValueError: seed or stage is out of range.
    """
    check_integer(seed, "seed", 0, MAX_SEED)
    check_integer(stage, "stage", 1)
    # torch's CPU generator keeps the low 32 bits of a seed only: mix all 64 into them.
    return torch.Generator("cpu").manual_seed(_mix(_mix(int(seed)) + int(stage)))


def draw(
    shape: tuple[int, int, int, int],
    seed: int | Sequence[int],
    stage: int = 1,
    kind: str = "gaussian",
) -> Tensor:
    """Draw noise of mean 0 and standard deviation 1.

    The noise of an image depends on seed, stage, C, H, W and kind alone, not on its place in the batch.

    Args:
        shape: `(B, C, H, W)`.
        seed: 0..2**64 − 1, one for all images of the batch, or a sequence with one for each.
        stage: 1-based number of the stage.
        kind: "gaussian"; "uniform" in ±√3; "correlated": Gaussian noise blurred by a Gaussian of
            `CORRELATION_SIGMA` pixels, with the same variance up to the border.

    Returns:
        `[B, C, H, W]` float32 on the CPU.

    Raises:
        TypeError, ValueError: a wrong seed, stage or shape; a sequence of seeds of another length than B;
            a kind that is not in `KINDS`.
    """
    check_choice(kind, "kind", KINDS)
    if len(shape) != 4:
        raise ValueError(f"shape: expected (B, C, H, W), got {tuple(shape)}")
    for length in shape:
        check_integer(length, "shape", 1)
    B, C, H, W = shape
    if not isinstance(seed, Sequence):
        return _draw_one((C, H, W), generator(seed, stage), kind).repeat(B, 1, 1, 1)
    if len(seed) != B:
        raise ValueError(f"seed: expected one seed or {B} of them, got {len(seed)}")
    return torch.stack([_draw_one((C, H, W), generator(one, stage), kind) for one in seed])


def inject_noise(
    image: Tensor,
    sigma: float | Tensor,
    seed: int | Sequence[int] = 0,
    stage: int = 1,
    kind: str = "gaussian",
) -> Tensor:
    """Add noise to an image: u(p) = y(p) + sigma(p)·n(p).

    Args:
        image: `[B, C, H, W]`, C of 1, 3 or 4. Not changed. Alpha gets no noise.
        sigma: standard deviation of the noise in 0..1 image units: a number, a tensor without axes (as
            `LearnableStrength` gives) or a map `[B or 1, 1, H, W]`. 0 leaves the values exactly as they are.
        seed: 0..2**64 − 1, or a sequence with one for each image.
        stage: 1-based number of the stage.
        kind: one of `KINDS`, see `draw`.

    Returns:
        `[B, C, H, W]` in the image's dtype, not clamped; gradients reach image and sigma.

    Raises:
        TypeError, ValueError: a wrong image, sigma, seed, stage or kind.
    """
    check_image(image)
    if isinstance(sigma, Tensor) and sigma.ndim > 0:
        check_map(sigma, image)
    else:
        check_number(sigma.item() if isinstance(sigma, Tensor) else sigma, "sigma", 0.0)
    B, C, H, W = image.shape
    colours = min(C, 3)
    noise = draw((B, colours, H, W), seed, stage, kind).to(image)
    if isinstance(sigma, Tensor):
        sigma = sigma.to(image)
    noisy = image[:, :colours] + sigma * noise
    return noisy if colours == C else torch.cat([noisy, image[:, colours:]], dim=1)


class LearnableStrength(nn.Module):
    """A positive number that can be trained: s = softplus(θ) (article 2.2, uniform noise).

    Noise carries no information about the truth, so that a reconstruction loss alone drives it to 0;
    train it on a target of its own.
    """

    def __init__(self, initial: float = 1.0) -> None:
        """Start at a given strength.

        Args:
            initial: the value at birth, > 0.

        Raises:
            TypeError, ValueError: no number above 0.
        """
        super().__init__()
        check_number(initial, "initial", above=0.0)
        self.theta = nn.Parameter(torch.tensor(softplus_inverse(initial)))

    def forward(self) -> Tensor:
        """The strength, > 0, as a tensor without axes."""
        return F.softplus(self.theta)


def softplus_inverse(value: float) -> float:
    """The θ for which softplus(θ) = ln(1 + e^θ) is `value`, which must be > 0."""
    return value + math.log(-math.expm1(-value))


def _draw_one(shape: tuple[int, int, int], random: torch.Generator, kind: str) -> Tensor:
    check_interrupted()
    if kind == "uniform":
        return (torch.rand(shape, generator=random, **_PLAIN) * 2.0 - 1.0) * math.sqrt(3.0)
    if kind == "gaussian":
        return torch.randn(shape, generator=random, **_PLAIN)
    # Drawn wider than the image and cropped by the filter: a padded border would change the variance there.
    C, H, W = shape
    margin = 2 * _CORRELATION_RADIUS
    wide = torch.randn((1, C, H + margin, W + margin), generator=random, **_PLAIN)
    check_interrupted()
    kernel = get_gaussian_kernel1d(margin + 1, CORRELATION_SIGMA, **_PLAIN)
    kernel = kernel / kernel.norm()  # a sum of independent unit variances keeps unit variance
    with autocast("cpu", torch.float32):
        return filter2d_separable(wide, kernel, kernel, padding="valid")[0]


def _mix(value: int) -> int:
    # splitmix64 (Steele, Lea, Flood 2014): every input bit reaches every output bit.
    value = (value + 0x9E3779B97F4A7C15) % _WORD
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % _WORD
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB % _WORD
    return value ^ (value >> 31)
