"""Suite tiling: our exact strips beside overlapping tiles that are blended, on the same network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..chain import Chain
from ..precision import autocast, resolve_dtype
from ..upsample import upsample
from .pictures import sample
from .plain import OVERLAP, TILE, blended_tiles
from .report import Figure, Report
from .timing import paired

OUTPUTS = (2048, 4096)  # sides
SEAM_SIDE = 1024  # of the output that seams are measured on, in float32
SEAM_TILE = 128  # of the input there, of the blended ones, and of the area of the strips


def bench_tiling(
    device: torch.device, chain: Chain, *, rounds: int = 3, on_round: Callable[[int], None] = lambda done: None
) -> list[Report]:
    """Runs the suite with the upsampler of the chain's first stage.

    Args:
        device: where.
        chain: whose network is tiled.
        rounds: paired repeats.
        on_round: progress, called with the rounds done.
    """
    network = chain.to(device).stage(1).upsampler
    scale = int(network.scale)
    name = str(resolve_dtype("auto", device)).removeprefix("torch.")
    rows = [["output", "blended tiles, s", "exact strips, s", "faster"]]
    figures: list[Figure] = []
    for side in OUTPUTS:
        image = sample(side // scale, side // scale).to(device)
        blended, exact = paired(
            {
                "blended tiles": lambda image=image: blended_tiles(_plain(network, device, "auto"), image, scale),
                "exact strips": lambda image=image, side=side: upsample(image, (side, side), network),
            },
            rounds,
            device,
            on_round,
        )
        rows.append([f"{side}²", f"{blended.seconds:.2f}", f"{exact.seconds:.2f}", f"{exact.ratio:.2f}x"])
        figures.append(Figure(f"{side}², exact strips", exact.seconds, "s", "lower"))
        figures.append(Figure(f"{side}²: faster than blended tiles", exact.ratio, "x", "higher"))
    errors = _seams(device, network, scale)
    figures += [Figure(f"seam error, {name}", error, "1/255", "lower") for name, error in errors.items()]
    shown = "; ".join(f"{name} {error:.2g}" for name, error in errors.items())
    notes = [
        f"blended: {TILE} pixels of the input with {OVERLAP} of overlap, as ComfyUI's Upscale Image (using Model)",
        f"largest difference from the whole image in float32, tiles of {SEAM_TILE}, in units of 1/255: {shown}",
    ]
    return [Report(f"tiles, first stage's upsampler, {name}, medians of {rounds} paired rounds", rows, notes, figures)]


def _plain(network: torch.nn.Module, device: torch.device, dtype: str) -> Callable[[Tensor], Tensor]:
    def run(crop: Tensor) -> Tensor:
        with torch.inference_mode(), autocast(device, resolve_dtype(dtype, device)):
            return network(crop.contiguous(memory_format=torch.channels_last)).float().clamp(0, 1)

    return run


def _seams(device: torch.device, network: torch.nn.Module, scale: int) -> dict[str, float]:
    image = sample(SEAM_SIDE // scale, SEAM_SIDE // scale).to(device)
    size = (SEAM_SIDE, SEAM_SIDE)
    run = _plain(network, device, "fp32")
    whole, blended = run(image), blended_tiles(run, image, scale, SEAM_TILE, OVERLAP)
    exact = upsample(image, size, network, tile=SEAM_TILE, dtype="fp32")
    pairs = {"blended tiles": blended, "exact strips": exact}
    return {name: 255 * float((result - whole).abs().max()) for name, result in pairs.items()}
