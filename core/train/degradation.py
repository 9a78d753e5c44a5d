"""A realistic degradation for the inputs of training: blur, resizing, noise and JPEG, in this order.

After BSRGAN (Zhang 2021, arXiv 2103.14006) and Real-ESRGAN (Wang 2021, arXiv 2107.10833), once through and in one
order. Every draw comes from the crop's own generator, and all arithmetic is in float64, so that neither the number
of threads nor the crops beside it can change a bit of the result.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from ..checks import check_choice, check_integer, check_number, check_size
from ..resample import resample

RESIZINGS = ("area", "bilinear", "bicubic")
_REACH = 4  # standard deviations of the blur that the border is continued by
_JPEG_GRID = 16  # pixels of a JPEG's block where colour has half the resolution


@dataclass(frozen=True)
class RealisticConfig:
    """How often each part of the degradation acts, and how strongly; strengths are drawn evenly from their range.

    Attributes:
        blur: share of the crops that are blurred by a Gaussian.
        width: its standard deviation in pixels of the input (of the reduced picture), a range.
        anisotropic: share of the blurs with two widths and an angle.
        resizing: ways of reducing, of which each crop draws one; antialiased all of them.
        noise: share of the crops that get noise.
        sigma: its standard deviation in units of the 0..1 image, a range; of Poisson noise, at white.
        poisson: share of the noises that are Poisson's, growing with the brightness, instead of Gaussian.
        grey: share of the noises that are the same in all channels.
        jpeg: share of the crops that go through a JPEG.
        quality: Pillow's, a range of 1..100.
    """

    blur: float = 0.8
    width: tuple[float, float] = (0.1, 1.0)
    anisotropic: float = 0.5
    resizing: tuple[str, ...] = RESIZINGS
    noise: float = 0.8
    sigma: tuple[float, float] = (0.004, 0.06)
    poisson: float = 0.4
    grey: float = 0.4
    jpeg: float = 0.8
    quality: tuple[int, int] = (30, 95)

    def __post_init__(self) -> None:
        for name in ("blur", "anisotropic", "noise", "poisson", "grey", "jpeg"):
            check_number(getattr(self, name), name, 0, 1)
        for name in ("width", "sigma"):
            for value in _range(getattr(self, name), name):
                check_number(value, name, above=0)
        for value in _range(self.quality, "quality"):
            check_integer(value, "quality", 1, 100)
        if not self.resizing:
            raise ValueError(f"resizing: expected at least one of {', '.join(RESIZINGS)}, got none")
        for method in self.resizing:
            check_choice(method, "resizing", RESIZINGS)


def degrade_realistic(
    image: Tensor, size: tuple[int, int], rng: np.random.Generator, config: RealisticConfig | None = None
) -> Tensor:
    """Degrades and reduces a picture.

    Pixels keep their place: the result lies over the picture as a plain reduction to its size would.

    Args:
        image: `[3, H, W]` uint8.
        size: (height, width) of the result.
        rng: of this picture; the same state gives the same result.
        config: what may happen to it; None takes the defaults.

    Returns:
        `[3, height, width]` uint8.

    Raises:
        TypeError: `image` is not a uint8 tensor.
        ValueError: another shape, a bad size.
    """
    if not isinstance(image, Tensor) or image.dtype != torch.uint8:
        got = image.dtype if isinstance(image, Tensor) else type(image).__name__
        raise TypeError(f"image: expected a uint8 tensor [3, H, W], got {got}")
    if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
        raise ValueError(f"image: expected [3, H, W] with no axis of length 0, got {tuple(image.shape)}")
    check_size(size)
    config = config or RealisticConfig()
    pixels = image.numpy().astype(np.float64) / 255
    factors = np.array([image.shape[1] / size[0], image.shape[2] / size[1]])
    if rng.random() < config.blur:
        pixels = _gaussian_blur(pixels, _covariance(factors, rng, config))
    pixels = _resized(pixels, size, config.resizing[int(rng.integers(len(config.resizing)))])
    if rng.random() < config.noise:
        pixels = pixels + _noise(pixels.clip(0, 1), rng, config)
    samples = (pixels.clip(0, 1) * 255).round().astype(np.uint8)
    if rng.random() < config.jpeg:
        samples = _jpeg(samples, rng, config)
    return torch.from_numpy(samples)


def _covariance(factors: NDArray[np.float64], rng: np.random.Generator, config: RealisticConfig) -> NDArray[np.float64]:
    """Of a random Gaussian [2, 2] in pixels of the picture, rows first."""
    widths = np.full(2, rng.uniform(*config.width))
    if rng.random() < config.anisotropic:
        widths[1], angle = rng.uniform(*config.width), rng.uniform(0, np.pi)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    else:
        turn = np.eye(2)
    axes = factors[:, None] * turn * widths
    return axes @ axes.T


def _gaussian_blur(pixels: NDArray[np.float64], covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    # Through the Fourier transform: of any width and angle at the same cost, where a kernel of 49 x 49 for a reduction
    # by 8 takes some thirty times as long. NumPy's transform runs in one thread, in one order of summation.
    _, H, W = pixels.shape
    border = int(np.ceil(_REACH * np.sqrt(covariance.diagonal().max())))
    padded = np.pad(pixels, ((0, 0), (border, border), (border, border)), "symmetric")
    size = (padded.shape[1], padded.shape[2])
    rows, columns = np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1])
    form = covariance[0, 0] * rows**2 + 2 * covariance[0, 1] * rows * columns + covariance[1, 1] * columns**2
    blurred = np.fft.irfft2(np.fft.rfft2(padded) * np.exp(-2 * np.pi**2 * form), s=size)
    return blurred[:, border : border + H, border : border + W]


def _resized(pixels: NDArray[np.float64], size: tuple[int, int], method: str) -> NDArray[np.float64]:
    image = torch.from_numpy(np.ascontiguousarray(pixels))[None]
    small = interpolate(image, size, mode="area") if method == "area" else resample(image, size, method)
    return small[0].numpy()


def _noise(pixels: NDArray[np.float64], rng: np.random.Generator, config: RealisticConfig) -> NDArray[np.float64]:
    sigma = rng.uniform(*config.sigma)
    is_poisson, is_grey = rng.random() < config.poisson, rng.random() < config.grey
    if not is_poisson:
        return sigma * rng.standard_normal((1 if is_grey else 3, *pixels.shape[1:]))
    light = pixels.mean(axis=0, keepdims=True) if is_grey else pixels
    return rng.poisson(light / sigma**2) * sigma**2 - light  # so many photons at white that their spread is sigma


def _jpeg(samples: NDArray[np.uint8], rng: np.random.Generator, config: RealisticConfig) -> NDArray[np.uint8]:
    quality = int(rng.integers(config.quality[0], config.quality[1] + 1))
    # Blocks may begin anywhere in the crop, or a network would learn that they lie as its windows do.
    top, left = int(rng.integers(_JPEG_GRID)), int(rng.integers(_JPEG_GRID))
    padded = np.pad(samples.transpose(1, 2, 0), ((top, 0), (left, 0), (0, 0)), "symmetric")
    file = io.BytesIO()
    Image.fromarray(padded).save(file, "JPEG", quality=quality)
    with Image.open(file) as decoded:
        return np.array(np.asarray(decoded)[top:, left:].transpose(2, 0, 1), order="C")


def _range(value: tuple[float, float], name: str) -> tuple[float, float]:
    if not isinstance(value, tuple) or len(value) != 2 or not value[0] <= value[1]:
        raise ValueError(f"{name}: expected (lowest, highest), got {value!r}")
    return value
