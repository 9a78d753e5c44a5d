"""Figures of each bundled model on crops of scikit-image's photographs, which a test measures again."""

from __future__ import annotations

import skimage.data
import torch
from torch import Tensor

from progressive_upsampling.core.metrics import psnr
from progressive_upsampling.core.noise import inject_noise
from progressive_upsampling.core.train.degrade import matlab_imresize

from .models import Bundled

# (top, left) of crops with edges, texture and skin; a multiple of 2, 3, 4 and 8 a side
PLACES = {"astronaut": (24, 168), "coffee": (120, 300), "chelsea": (60, 140)}
SIDE = 144
SIGMA = 25 / 255
DTYPE = "fp32"  # in which machines differ by their last bits alone


def crop(name: str) -> Tensor:
    """A crop, `[1, 3, SIDE, SIDE]` uint8."""
    top, left = PLACES[name]
    pixels = getattr(skimage.data, name)()[top : top + SIDE, left : left + SIDE]
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]


@torch.no_grad()
def figures(model: Bundled) -> dict[str, float]:
    """dB by name: Y-PSNR of enlarged crops; of a chain also at detail 1; RGB-PSNR of crops without their noise."""
    found: dict[str, float] = {}
    if model.scales:
        scale = max(model.scales)
        for name in PLACES:
            found[f"{name} x{scale}"] = _enlarged(model, name, scale)
        if model.kind == "chain":
            scale = min(model.scales)
            found[f"astronaut x{scale}, detail 1"] = _enlarged(model, "astronaut", scale, detail=1.0, steps=1, seed=0)
    if model.denoises:
        for name in ("astronaut", "coffee"):
            truth = crop(name).float() / 255.0
            result = model.clean(DTYPE)(inject_noise(truth, SIGMA, seed=0), SIGMA)
            found[f"{name}, noise 25"] = float(psnr(result, truth, channel="rgb"))
    return {name: round(value, 4) for name, value in found.items()}


def _enlarged(model: Bundled, name: str, scale: int, **settings: float) -> float:
    truth = crop(name)
    reduced = matlab_imresize(truth, scale=1.0 / scale).float() / 255.0
    return float(psnr(model.enlarge(DTYPE, **settings)(reduced, scale), truth.float() / 255.0, crop=scale))
