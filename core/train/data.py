"""Training crops from a folder of pictures: degraded as the protocol says, flipped and turned.

What a step sees is a function of (seed, step) alone: a resumed run sees the same crops as an uninterrupted one.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from .degrade import matlab_imresize

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
MARGIN = 2  # input pixels around a crop whose degradation saw its border; cut off
CANDIDATES = 3  # positions drawn for a crop; the one with the most gradient energy is taken

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """Crops at every scale, coarse to fine, each [B, 3, h, w] float32 in 0..1: the input, then a target a stage."""

    scales: tuple[Tensor, ...]


class PictureFolder:
    """The pictures under a folder, decoded once and kept as bytes.

    Args:
        folder: searched through all levels.
        memory: bytes of decoded pictures to keep; what does not fit is decoded at each use.

    Raises:
        ValueError: no folder, or no readable picture in it.
    """

    def __init__(self, folder: str | Path, memory: int) -> None:
        root = Path(folder)
        if not root.is_dir():
            raise ValueError(f"data: expected a folder, got {root}")
        self.paths: list[Path] = []
        self.sizes: list[tuple[int, int]] = []  # height, width
        for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES):
            try:
                with Image.open(path) as picture:
                    width, height = picture.size
            except (OSError, UnidentifiedImageError) as error:
                log.warning("data: skipping %s: %s", path, error)
                continue
            self.paths.append(path)
            self.sizes.append((height, width))
        if not self.paths:
            raise ValueError(f"data: expected pictures ({', '.join(SUFFIXES)}), found none readable under {root}")
        self._memory, self._kept = memory, {}

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        """Picture `index` as [H, W, 3] uint8."""
        if index in self._kept:
            return self._kept[index]
        with Image.open(self.paths[index]) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        if pixels.nbytes <= self._memory:
            self._memory -= pixels.nbytes
            self._kept[index] = pixels
        return pixels


class CropSampler:
    """Draws batches of crops.

    Args:
        pictures: where from.
        seed: of the run.
    """

    def __init__(self, pictures: PictureFolder, seed: int) -> None:
        self.pictures, self.seed = pictures, seed

    def batch(self, step: int, *, stages: int, crop: int, batch: int) -> Batch:
        """The crops of one step.

        Args:
            step: of the run.
            stages: the finest crop is 2^stages times the input.
            crop: side of the input in pixels.
            batch: crops.

        Raises:
            ValueError: no picture is large enough.
        """
        rng = np.random.default_rng((self.seed, step))
        factor = 2**stages
        side = (crop + 2 * MARGIN) * factor
        fitting = [i for i, (h, w) in enumerate(self.pictures.sizes) if min(h, w) >= side]
        if not fitting:
            largest = max(min(size) for size in self.pictures.sizes)
            raise ValueError(f"data: expected pictures of at least {side}x{side} px, got at most {largest} px")
        share = np.sqrt([float(np.prod(self.pictures.sizes[i])) for i in fitting])
        chosen = rng.choice(fitting, size=batch, p=share / share.sum())
        crops = np.stack([self._crop(self.pictures[int(i)], side, rng) for i in chosen])
        finest = torch.from_numpy(crops).permute(0, 3, 1, 2)
        scales = [matlab_imresize(finest, scale=1 / 2**k) for k in range(stages, 0, -1)] + [finest]
        return Batch(tuple(_trim(x, MARGIN * 2**k).float() / 255 for k, x in enumerate(scales)))

    @staticmethod
    def _crop(picture: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
        H, W, _ = picture.shape
        best, most = None, -1.0
        for _ in range(CANDIDATES):
            top, left = int(rng.integers(H - side + 1)), int(rng.integers(W - side + 1))
            crop = picture[top : top + side, left : left + side]
            green = crop[::2, ::2, 1].astype(np.int16)
            energy = float(np.abs(np.diff(green, axis=0)).mean() + np.abs(np.diff(green, axis=1)).mean())
            if energy > most:
                best, most = crop, energy
        if best is None:
            raise ValueError(f"side: expected at most {min(H, W)}, got {side}")
        crop = np.rot90(best, int(rng.integers(4)))
        return np.ascontiguousarray(crop[:, ::-1] if rng.integers(2) else crop)


def _trim(image: Tensor, border: int) -> Tensor:
    return image[..., border:-border, border:-border]
