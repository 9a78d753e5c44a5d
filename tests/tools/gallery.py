"""Makes the gallery: six of scikit-image's photographs from 128 to 1024 pixels, as sheets in docs/gallery.

    python -m tests.tools.gallery [--model NAME|FILE] [--output FOLDER] [--only NAME]

A square of the photograph is reduced to 128 pixels and enlarged by 8: by bicubic, and by the chain at detail 0 (least
error) and 1 (most texture). The truth stands beside, at the pixels it has, which are fewer than 1024; decibels are of
results reduced to that size. Astronaut and rocket are NASA's, in the public domain; the others are CC0.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import skimage.data
import torch
from PIL import Image
from torch import Tensor

from progressive_upsampling.core.chain import Chain
from progressive_upsampling.core.metrics import psnr
from progressive_upsampling.core.picture_output import write_atomic
from progressive_upsampling.core.resample import resample
from progressive_upsampling.core.sheet import compare
from progressive_upsampling.core.train.degrade import matlab_imresize

from .quality.pages import ROOT

SMALL, LARGE = 128, 1024
SUBJECTS = {  # name to what it shows, and the (top, left, side) of the square
    "astronaut": ("a face", (0, 0, 512)),
    "chelsea": ("fur", (0, 90, 300)),
    "coffee": ("a cup on wood", (0, 150, 400)),
    "rocket": ("towers and lattices", (0, 180, 427)),
    "camera": ("a man with a camera, grey", (0, 0, 512)),
    "grass": ("nothing but texture", (0, 0, 512)),
}
QUALITY = 85  # of the JPEG


def truth_of(name: str) -> Tensor:
    """The square of a photograph, `[1, 3, side, side]` uint8; grey is repeated."""
    top, left, side = SUBJECTS[name][1]
    pixels = np.atleast_3d(getattr(skimage.data, name)())[top : top + side, left : left + side]
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].expand(-1, 3, -1, -1)


@torch.no_grad()
def sheet(chain: Chain, name: str) -> Tensor:
    """Bicubic, detail 0, detail 1 and the truth side by side, `[1, 3, H, W]` in 0..1."""
    about, (_, _, side) = SUBJECTS[name]
    truth = truth_of(name)
    reduced = matlab_imresize(truth, (SMALL, SMALL)).float() / 255
    original = truth.float() / 255
    results = {
        "bicubic": resample(reduced, (LARGE, LARGE)).clamp(0, 1),
        "detail 0": chain(reduced, size=(LARGE, LARGE)),
        "detail 1": chain(reduced, size=(LARGE, LARGE), detail=1.0, seed=0),
    }
    panels = {f"{label}, {_quality(image, original):.2f} dB (Y)": image for label, image in results.items()}
    panels[f"truth {side}x{side}"] = resample(original, (LARGE, LARGE), "nearest")
    return compare(panels, side=400, details=2, crop=200, title=f"{about}: {SMALL} to {LARGE} pixels")


def _quality(image: Tensor, truth: Tensor) -> float:
    reduced = resample(image, (truth.shape[2], truth.shape[3])).clamp(0, 1)
    return float(psnr(reduced, truth, crop=4))


def write_sheet(path: Path, image: Tensor) -> None:
    """As a JPEG, whole or not at all."""
    pixels, encoded = (image[0].permute(1, 2, 0) * 255).round().byte().numpy(), io.BytesIO()
    Image.fromarray(pixels).save(encoded, "JPEG", quality=QUALITY, optimize=True)
    write_atomic(path, encoded.getvalue())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool."""
    parser = argparse.ArgumentParser(
        prog="gallery", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="default", metavar="NAME|FILE", help="a chain (default: default)")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "gallery", metavar="FOLDER")
    parser.add_argument("--only", action="append", choices=list(SUBJECTS), help="may be repeated (default: all)")
    args = parser.parse_args(argv)
    chain = Chain.from_pretrained(args.model)
    args.output.mkdir(parents=True, exist_ok=True)
    for name in args.only or SUBJECTS:
        write_sheet(args.output / f"{name}.jpg", sheet(chain, name))
        print(args.output / f"{name}.jpg", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
