"""Colour denoising over a folder of pictures, by the protocol of FFDNet (arXiv 1710.04026) and CBM3D."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .checks import check_image, check_number
from .denoise import denoise
from .denoiser import Denoiser
from .evaluate import Means, Row, picture_paths, read_8bit
from .metrics import psnr, radial_spectrum_error, ssim
from .noise import inject_noise
from .perceptual_distance import PerceptualDistance
from .progress import OnStep

NOISY = "noisy"  # the row that every result has: it shows whether the noise is right

# noisy image [1, 3, H, W], not clipped, and sigma in units of the 0..1 image -> [1, 3, H, W]
DenoisingMethod = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True)
class DenoisingEvaluation(Means):
    """The result of `evaluate_denoising`.

    Args:
        folder: name of the folder.
        sigma: standard deviation of the noise, in levels of 0..255.
        methods: method names, "noisy" first.
        rows: one per picture and method, pictures in the order of their names.
    """

    folder: str
    sigma: float
    methods: tuple[str, ...]
    rows: tuple[Row, ...]


@torch.no_grad()
def evaluate_denoising(
    folder: str | Path,
    sigma: float,
    methods: Mapping[str, DenoisingMethod],
    *,
    distance: PerceptualDistance | None = None,
    names: Collection[str] | None = None,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> DenoisingEvaluation:
    """Add noise to each picture, let each method take it out, and compare.

    Gaussian noise is added to the 8-bit RGB picture and neither clipped nor quantised. The result is clipped and
    quantised to 8 bits, and compared on RGB over the whole picture. The noise is drawn anew from the seed for every
    picture, so that a picture's figures do not depend on which others are measured.

    Args:
        folder: folder of pictures, not its subfolders; grey ones are repeated to RGB.
        sigma: standard deviation of the noise, in levels of 0..255.
        methods: name to function of (noisy image `[1, 3, H, W]` float32 on the CPU, sigma in units of the 0..1 image)
            to `[1, 3, H, W]` on any device. "noisy", the picture as it is with its noise, is always there.
        distance: what measures PD-squeeze; None leaves it out.
        names: file names of the pictures to read, with or without their suffix; None reads all.
        seed: of the noise.
        on_step: called after each picture of each method, with the result.

    Returns:
        The rows, picture by picture.

    Raises:
        TypeError, ValueError: no pictures in the folder, one of `names` that is not there, a picture that cannot be
            read or is too small, a bad sigma or seed, a name that is taken, a method that returns
            another shape, NaN or infinity.
    """
    check_number(sigma, "sigma", above=0)
    if NOISY in methods:
        raise ValueError(f"methods: expected names other than {NOISY!r}, which is always computed")
    paths = picture_paths(Path(folder), names)
    every: dict[str, DenoisingMethod] = {NOISY: lambda image, sigma: image, **methods}
    rows: list[Row] = []
    for path in paths:
        truth = read_8bit(path).expand(-1, 3, -1, -1).float() / 255.0
        noisy = inject_noise(truth, sigma / 255.0, seed)
        for name, method in every.items():
            started = time.perf_counter()
            result = method(noisy, sigma / 255.0)
            if result.shape != truth.shape:
                raise ValueError(f"{name}: expected a result {list(truth.shape)}, got {tuple(result.shape)}")
            check_image(result, name)
            result = result.float().cpu()
            seconds = time.perf_counter() - started
            rows.append(_compare(path.name, name, result, truth, distance, seconds))
            if on_step is not None:
                on_step(float(len(rows)), float(len(paths) * len(every)), result.clamp(0.0, 1.0))
    return DenoisingEvaluation(Path(folder).resolve().name, float(sigma), tuple(every), tuple(rows))


def blind(
    denoiser: Denoiser, *, device: torch.device | str = "cpu", tile: int | None = None, dtype: str = "auto"
) -> DenoisingMethod:
    """A denoiser in its blind mode, without a conditioning image, as a method of `evaluate_denoising`.

    Args:
        denoiser: on `device`.
        device: where it runs.
        tile, dtype: as for `denoise`.
    """

    def clean(noisy: Tensor, sigma: float) -> Tensor:
        noisy = noisy.to(device)
        return denoise(denoiser, noisy, torch.full_like(noisy[:, :1], sigma), tile=tile, dtype=dtype)

    return clean


def _compare(
    picture: str,
    method: str,
    result: Tensor,
    truth: Tensor,
    distance: PerceptualDistance | None,
    seconds: float,
) -> Row:
    return Row(
        picture=picture,
        method=method,
        psnr=float(psnr(result, truth, channel="rgb")),
        ssim=float(ssim(result, truth, channel="rgb")),
        spectrum=float(radial_spectrum_error(result, truth, channel="rgb")),
        distance=None if distance is None else float(distance.measure(result, truth)),
        seconds=seconds,
    )
