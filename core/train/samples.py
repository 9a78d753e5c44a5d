"""Sample sheets: pictures as they came in, before the training, now, and as they should be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import check_image, check_integer
from ..metrics import psnr
from ..resample import resample
from ..sheet import arrange, detail_boxes


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture in several versions.

    Attributes:
        name: of the picture.
        versions: label to image `[1, 3, h, w]` in 0..1, the last the truth; others may be smaller.

    Raises:
        TypeError, ValueError: no versions, or not such images.
    """

    name: str
    versions: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        if not self.versions:
            raise ValueError(f"versions: expected at least one of {self.name!r}, got none")
        for label, image in self.versions.items():
            check_image(image, label, channels=(3,))
            if image.shape[0] != 1:
                raise ValueError(f"{label}: expected [1, 3, H, W], got {tuple(image.shape)}")


def sample_sheet(rows: Sequence[Sample], *, side: int = 256) -> Tensor:
    """A sheet with a row for each picture and a column for each version.

    Shown is the place with most detail in the last version. Above each other version stands its Y-PSNR against the
    last, of the whole picture but for a border as wide as the scale, as in validation; above the last, the picture's
    name.

    Args:
        rows: at least one, all with the same labels. Smaller versions are enlarged to the size of the last by
            repeating pixels.
        side: of the place in pixels; a smaller picture is shown whole.

    Returns:
        `[1, 3, H, W]` float32 in 0..1.

    Raises:
        TypeError, ValueError: no rows, other labels in one of them, or a side that is no integer of at least 32.
    """
    check_integer(side, "side", 32)
    if not rows:
        raise ValueError("rows: expected at least one, got none")
    labels = list(rows[0].versions)
    for row in rows:
        if list(row.versions) != labels:
            raise ValueError(f"rows: expected the versions {labels} in each, got {list(row.versions)} in {row.name!r}")
    heading = [(label, torch.ones(1, 3, 1, 1)) for label in labels]
    return arrange([heading, *(_cells(row, side) for row in rows)], column=side)


def _cells(row: Sample, side: int) -> list[tuple[str, Tensor]]:
    """What stands above each version, and the part of it that is shown."""
    images = [image.float().cpu() for image in row.versions.values()]
    H, W = images[-1].shape[-2:]
    scale = max(math.ceil(H / image.shape[2]) for image in images)
    border = scale if scale > 1 and 2 * scale < min(H, W) else 0
    enlarged = [resample(image, (H, W), "nearest") for image in images]
    captions = [_decibels(float(psnr(image, enlarged[-1], crop=border))) for image in enlarged[:-1]]
    top, left, height, width = detail_boxes(enlarged[-1], side, 1)[0]
    shown = [image[..., top : top + height, left : left + width] for image in enlarged]
    return list(zip([*captions, row.name], shown, strict=True))


def _decibels(value: float) -> str:
    return f"{value:.2f} dB" if math.isfinite(value) else "identical"
