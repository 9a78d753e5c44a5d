"""Inputs that several nodes share, and how they are read."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..core.checks import MAX_SIDE, check_choice, check_map
from ..core.denoise import STEPS
from ..core.layout import bhwc_shape, from_bhwc, map_at, mask_to_map
from ..core.noise import MAX_SEED
from ..core.precision import DTYPES
from ..core.sizes import MAX_SCALE, target_size

CATEGORY = "Progressive Upsampling"
WIDEST = 16384  # pixels that the widgets take
NOISE_SEED = (
    "Which noise is drawn. The same seed gives the same picture, whatever the tile size, the "
    "device or the other images of the batch."
)
Model = io.Custom("PU_MODEL")


def model_input(use: str) -> Any:
    """The optional model; `use` says what its part for the chosen stage is used for."""
    tooltip = f"A progressive model, whose part for the chosen stage {use}."
    return Model.Input("model", optional=True, tooltip=tooltip)


def stage_input() -> Any:
    """Which stage of the chain the node stands in."""
    return io.Int.Input(
        "stage",
        default=1,
        min=1,
        max=16,
        tooltip="Number of the stage, counted from 1. Chooses that stage's weights and noise; a stage beyond "
        "the model's last one uses the last one's weights.",
    )


def scale_inputs(default: float) -> list[Any]:
    """Scale, or an exact size."""
    either = "0 = follow the other side, or the scale when both are 0. The result has exactly this size."
    return [
        io.Float.Input(
            "scale",
            default=default,
            min=0.05,
            max=float(MAX_SCALE),
            step=0.05,
            tooltip="Size of the result in multiples of the input's size. Used while width and height are 0.",
        ),
        io.Int.Input("width", default=0, min=0, max=WIDEST, tooltip=f"Width in pixels. {either}"),
        io.Int.Input("height", default=0, min=0, max=WIDEST, tooltip=f"Height in pixels. {either}"),
    ]


def seed_input(tooltip: str = NOISE_SEED) -> Any:
    """The seed of what is random, the noise if nothing else is said."""
    return io.Int.Input("seed", default=0, min=0, max=MAX_SEED, control_after_generate=True, tooltip=tooltip)


def strength_input() -> Any:
    """Multiplier on the noise."""
    return io.Float.Input(
        "strength",
        default=1.0,
        min=0.0,
        max=4.0,
        step=0.05,
        tooltip="Multiplier on the noise: 0 = no noise, 1 = as trained, more = freer texture.",
    )


def refinement_inputs() -> list[Any]:
    """How much texture to add, and in how many steps."""
    return [
        io.Float.Input(
            "detail",
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.05,
            display_mode=io.NumberDisplay.slider,
            tooltip="0 = the estimate of least error, a little soft; 1 = fully refined from the noise, "
            "with more texture and more error; between them a blend. Above 0 it costs `steps` more "
            "evaluations.",
        ),
        io.Combo.Input(
            "steps",
            options=[str(steps) for steps in STEPS],
            default="1",
            tooltip="Evaluations of the network for the refined part. 1 is what the bundled model does best; more are "
            "for models trained for them, and time grows in proportion. Without detail they are not run.",
        ),
    ]


def steps_of(steps: str) -> int:
    """The evaluations that the input `steps` asks for.

    Raises:
        ValueError: it is none of its options.
    """
    check_choice(steps, "steps", [str(count) for count in STEPS])
    return int(steps)


def detail_mask_input() -> Any:
    """Where detail is added."""
    return io.Mask.Input(
        "detail_mask",
        optional=True,
        tooltip="Limits where detail is added: detail is multiplied by it at every pixel. White (1) = all of it, black "
        "(0) = exactly what detail 0 gives. Another size is brought to the image's.",
    )


LONGEST_NAME = 200  # bytes, of the 255 that file systems have; the rest is for numbers and suffixes
COMMUNITY_TILES = " The tiles of an upscale_model overlap and are blended."


def machine_inputs(tiles: str = "") -> list[Any]:
    """What changes time and memory and not the picture; `tiles` ends the tooltip of the tile."""
    return [
        io.Int.Input(
            "tile",
            default=0,
            min=0,
            max=8192,
            step=64,
            tooltip="Side of a tile in pixels of the node's input; 0 = choose. Smaller needs less memory, "
            "and on a GPU more time. Tiles leave no seams: in fp32 the picture is the same for every tile size."
            + tiles,
        ),
        precision_input(),
    ]


def precision_input(**options: Any) -> Any:
    """The number format that networks compute in."""
    return io.Combo.Input(
        "precision",
        options=list(DTYPES),
        default="auto",
        tooltip="Number format inside the networks. auto = bf16 or fp16 where the hardware is fast in "
        "it; fp32 = slowest and exact.",
        **options,
    )


def wanted_size(before: tuple[int, int], scale: float, width: int, height: int) -> tuple[int, int]:
    """(height, width) that a node's `scale`, `width` and `height` ask for.

    Args:
        before: (height, width) of the node's input.
        scale: used while both sides are 0.
        width, height: pixels; one of them 0 keeps the aspect ratio.

    Raises:
        ValueError: the result would have a side out of range.
    """
    H, W = before
    if not width and not height:
        return target_size(H, W, scale, None)
    size = (height or max(round(H * width / W), 1), width or max(round(W * height / H), 1))
    if max(size) > MAX_SIDE:
        name, given = ("width", width) if width else ("height", height)
        raise ValueError(f"{name}: expected at most {MAX_SIDE} pixels a side, got {given}, which makes {size}")
    return target_size(H, W, None, size)


def inside(folder: str | Path, name: str, argument: str) -> Path:
    """The path of a name in a folder, subfolders allowed, also those that are links to elsewhere.

    Args:
        folder: that it must not lead out of.
        name: as a user gives it.
        argument: name for the error.

    Raises:
        ValueError: it is empty, leads out of the folder, or has characters that file names cannot have.
    """
    base, stem = Path(os.path.abspath(folder)), name.strip().replace("\\", "/")
    target = Path(os.path.abspath(base / stem))
    if not stem or stem.endswith("/") or not target.is_relative_to(base) or target == base:
        raise ValueError(f"{argument}: expected a name inside {base}, got {name!r}")
    longest = max(len(os.fsencode(part)) for part in stem.split("/"))
    if longest > LONGEST_NAME:
        raise ValueError(f"{argument}: expected names of at most {LONGEST_NAME} bytes, got one of {longest}")
    bad = re.search(r'[<>:"|?*\x00-\x1f]', stem)
    if bad:
        raise ValueError(f"{argument}: expected a file name, got {name!r} with {bad.group()!r}")
    return target


def images_of(value: Tensor, images: slice, batch: int, name: str) -> Tensor:
    """Some images of an IMAGE, as core has them.

    Args:
        value: `[B, H, W, C]`.
        images: which.
        batch: number of images that the node works on.
        name: of the input, for the errors.

    Returns:
        `[b, C, H, W]`.

    Raises:
        TypeError, ValueError: it is no such image, or of another number of images.
    """
    if bhwc_shape(value, name)[0] != batch:
        raise ValueError(f"{name}: expected a batch of {batch} images, got {value.shape[0]}")
    return from_bhwc(value[images], name)


def map_of(value: Tensor, images: slice, batch: int, name: str) -> Tensor:
    """The map of some images, as a MASK gives it: one without batch, or of one, is that of every image.

    Args:
        value: `[H', W']` or `[B, H', W']`.
        images: which.
        batch: number of images that the node works on.
        name: of the input, for the errors.

    Returns:
        `[b or 1, 1, H', W']`.

    Raises:
        TypeError, ValueError: it is no such mask, or of another number of images.
    """
    if isinstance(value, Tensor) and value.ndim == 3 and value.shape[0] != 1:
        if value.shape[0] != batch:
            raise ValueError(f"{name}: expected one, or one for each of {batch} images, got {value.shape[0]}")
        value = value[images]
    return mask_to_map(value, name)


def unit_map_of(value: Tensor, images: slice, batch: int, name: str) -> Tensor:
    """`map_of` for a multiplier, 0..1; masks that were added to or sharpened leave that range."""
    return map_of(value, images, batch, name).clamp(0, 1)


def sigma_of(value: Tensor, images: slice, batch: int, name: str, image: Tensor) -> Tensor:
    """`map_of` for a sigma map, at the size of the image that the noise is in.

    Returns:
        `[b or 1, 1, H, W]`, >= 0.
    """
    sigma = map_at(map_of(value, images, batch, name), (image.shape[-2], image.shape[-1]))
    check_map(sigma, image, name)
    return sigma
