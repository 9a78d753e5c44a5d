"""`demo`: photographs from 128 to 1024 pixels, with comparison sheets."""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..metrics import psnr
from ..pictures import write_picture
from ..precision import resolve_dtype
from ..resample import resample
from ..sheet import compare
from ..train.degrade import matlab_imresize
from .console import Console
from .folders import folders_for_output
from .models import Model, load_model, pick_device

_SMALL, _LARGE = 128, 1024


@dataclass(frozen=True)
class Photograph:
    """A public-domain photograph that comes with scikit-image.

    Attributes:
        name: of the files written, and of the function in `skimage.data`.
        about: what it shows.
        side: the middle square of this side, in pixels, is the truth.
    """

    name: str
    about: str
    side: int


# The first is the sharpest portrait there is, the second the only one that has 1024 true pixels.
PHOTOGRAPHS = (
    Photograph("astronaut", "Eileen Collins (NASA)", 512),
    Photograph("retina", "the back of an eye (Mikael Häggström)", 1024),
)


def run(args: argparse.Namespace, console: Console) -> int:
    """Run the subcommand.

    Args:
        args: the parsed options.
        console: where to report.

    Returns:
        0.

    Raises:
        ValueError, OSError: scikit-image is missing, or an option, the model or the folder is not usable.
    """
    device = pick_device(args.device)
    resolve_dtype(args.dtype, device)
    data = _sample_photographs()
    folder = Path(args.output)
    with folders_for_output({"--output": folder}):
        model = load_model(args.model, device)
        for photograph in PHOTOGRAPHS:
            truth = _truth(getattr(data, photograph.name), photograph.side)
            lines = _show(photograph, truth, model, folder, args, console)
            if not args.quiet:
                print("\n".join(lines))
    return 0


def _show(
    photograph: Photograph,
    truth: Tensor,
    model: Model,
    folder: Path,
    args: argparse.Namespace,
    console: Console,
) -> list[str]:
    reduced = matlab_imresize(truth, scale=_SMALL / photograph.side).float() / 255.0
    original = truth.float() / 255.0
    size = (_LARGE, _LARGE)
    started = time.monotonic()
    with console.progress(photograph.name) as on_step:
        result = model.stages(reduced, size, tile=args.tile, dtype=args.dtype, on_step=on_step, every=False)[-1]
    seconds = time.monotonic() - started
    bicubic = resample(reduced, size).clamp(0.0, 1.0)
    results = {"bicubic": bicubic, model.name: result}
    figures = {label: _measure(image, original) for label, image in results.items()}
    labels = {label: f"{label}, {quality:.2f} dB (Y)" for label, (quality, _) in figures.items()}
    panels = {
        f"input {_SMALL}x{_SMALL}": reduced,
        **{labels[label]: image for label, image in results.items()},
        f"truth {photograph.side}x{photograph.side}": _enlarged(original, size),
    }
    for label, image in {"input": reduced, "bicubic": bicubic, "result": result}.items():
        write_picture(folder / f"{photograph.name}_{label}.png", image)
    title = f"{photograph.about}: {_SMALL} to {_LARGE} pixels"
    write_picture(folder / f"{photograph.name}_sheet.png", compare(panels, crop=224, title=title))
    lines = [f"{title} in {seconds:.1f} s"]
    if photograph.side != _LARGE:
        lines[0] += f"; the truth has {photograph.side} pixels a side: results are reduced to that to measure"
    for label, (quality, colour) in figures.items():
        lines.append(f"  {label:<10} Y-PSNR {quality:.2f} dB, mean colour off by {colour:.2f}/255")
    return [*lines, f"  {folder / photograph.name}_sheet.png"]


def _measure(image: Tensor, truth: Tensor) -> tuple[float, float]:
    """Y-PSNR in dB, and the largest difference of a channel's mean in units of 1/255, at the truth's size."""
    image = resample(image, (truth.shape[2], truth.shape[3])).clamp(0.0, 1.0)
    crop = truth.shape[2] // _SMALL
    colour = (image.mean((0, 2, 3)) - truth.mean((0, 2, 3))).abs().max() * 255.0
    return float(psnr(image, truth, crop=crop)), float(colour)


def _enlarged(image: Tensor, size: tuple[int, int]) -> Tensor:
    """As large as the results, by repeating pixels: nothing is made up."""
    return resample(image, size, "nearest")


def _truth(load: Callable[[], Any], side: int) -> Tensor:
    """The middle square of a photograph, `[1, 3, side, side]` uint8."""
    pixels = torch.from_numpy(load().copy()).movedim(-1, 0)[None]
    top, left = (pixels.shape[2] - side) // 2, (pixels.shape[3] - side) // 2
    return pixels[:, :3, top : top + side, left : left + side].contiguous()


def _sample_photographs() -> Any:
    try:
        return importlib.import_module("skimage.data")
    except ImportError as error:
        raise ValueError("the demo's photographs come with scikit-image: pip install scikit-image") from error
