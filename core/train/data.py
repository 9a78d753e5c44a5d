"""Training crops from a folder of pictures: degraded as the protocol says, flipped and turned.

What a step sees is a function of (seed, step) alone: a resumed run sees the same crops as an uninterrupted one.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..picture_format import READABLE
from ..pictures import PictureError, PictureWarning, read_picture
from .degrade import matlab_imresize

MARGIN = 2  # input pixels around a crop whose degradation saw its border; cut off
CANDIDATES = 3  # positions drawn for a crop; the one with the most gradient energy is taken
_NAMED = 5  # pictures that a report names

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """Crops at every scale, coarse to fine, each [B, 3, h, w] float32 in 0..1: the input, then a target a stage."""

    scales: tuple[Tensor, ...]

    def to(self, device: torch.device) -> Batch:
        """The crops on a device."""
        return Batch(tuple(scale.to(device, non_blocking=True) for scale in self.scales))


class PictureFolder:
    """The pictures under a folder, decoded once and kept as bytes.

    Args:
        folder: searched through all levels.
        memory: bytes of decoded pictures to keep; what does not fit is decoded at each use.

    Attributes:
        paths: the pictures, sorted.
        sizes: (height, width) of each, as its header says.
        skipped: for each file left out, its path and the reason.

    Raises:
        ValueError: no folder, or no readable picture in it.
    """

    def __init__(self, folder: str | Path, memory: int) -> None:
        self.root = Path(folder)
        if not self.root.is_dir():
            raise ValueError(f"data: expected a folder, got {self.root}")
        self.paths: list[Path] = []
        self.sizes: list[tuple[int, int]] = []
        self.skipped: list[str] = []
        for path in sorted(p for p in self.root.rglob("*") if p.suffix.lower() in READABLE and p.is_file()):
            size = self._size_of(path)
            if size is not None:
                self.paths.append(path)
                self.sizes.append(size)
        if not self.paths:
            found = f"none readable under {self.root}"
            raise ValueError(f"data: expected pictures ({', '.join(READABLE)}), found {found}")
        self._memory = memory
        self._kept: dict[int, NDArray[np.uint8]] = {}
        self._damaged: dict[int, PictureError] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Picture `index` as [H, W, 3] uint8.

        Raises:
            PictureError: it cannot be decoded; it is named in the log the first time.
        """
        if index in self._kept:
            return self._kept[index]
        if index in self._damaged:
            raise self._damaged[index]
        try:
            pixels = _pixels(self.paths[index])
        except PictureError as error:
            self._damaged[index] = error
            self._skip(str(error))
            raise
        if pixels.nbytes <= self._memory:
            self._memory -= pixels.nbytes
            self._kept[index] = pixels
        return pixels

    @property
    def bytes(self) -> int:
        """Bytes of all pictures, decoded."""
        return sum(3 * height * width for height, width in self.sizes)

    @property
    def fingerprint(self) -> str:
        """Changes when pictures come, go, or change their name or size."""
        digest = hashlib.sha256()
        for path, size in zip(self.paths, self.sizes, strict=True):
            digest.update(f"{path.relative_to(self.root).as_posix()} {size}\n".encode())
        return digest.hexdigest()[:16]

    def _size_of(self, path: Path) -> tuple[int, int] | None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's own, of size and odd metadata
                with Image.open(path) as picture:
                    return picture.height, picture.width
        except Exception as error:  # decoders raise nearly everything on damaged files
            self._skip(f"{path}: cannot be read ({type(error).__name__})")
            return None

    def _skip(self, reason: str) -> None:
        self.skipped.append(reason)
        log.warning("data: skipping %s", reason)


class CropSampler:
    """Draws batches of crops.

    Args:
        pictures: where from.
        seed: of the run.
    """

    def __init__(self, pictures: PictureFolder, seed: int) -> None:
        self.pictures, self.seed = pictures, seed
        self._fitting: dict[int, list[int]] = {}

    def fitting(self, stages: int, crop: int) -> list[int]:
        """The pictures that are large enough; the others are reported the first time.

        Args:
            stages: the finest crop is 2^stages times the input.
            crop: side of the input in pixels.

        Raises:
            ValueError: there are none.
        """
        side = (crop + 2 * MARGIN) * 2**stages
        if side not in self._fitting:
            sides = [min(size) for size in self.pictures.sizes]
            fitting = [index for index, short in enumerate(sides) if short >= side]
            wanted = f"{side}x{side} px for crops of {crop} px at {stages} stages"
            if not fitting:
                raise ValueError(f"data: expected pictures of at least {wanted}, got at most {max(sides)} px")
            if len(fitting) < len(sides):
                small = [p.name for p, s in zip(self.pictures.paths, sides, strict=True) if s < side]
                names = ", ".join(small[:_NAMED]) + (", …" if len(small) > _NAMED else "")
                log.warning("data: %d of %d pictures are left out, under %s: %s", len(small), len(sides), wanted, names)
            self._fitting[side] = fitting
        return self._fitting[side]

    def batch(self, step: int, *, stages: int, crop: int, batch: int) -> Batch:
        """The crops of one step.

        Args:
            step: of the run.
            stages: the finest crop is 2^stages times the input.
            crop: side of the input in pixels.
            batch: crops.

        Raises:
            ValueError: no picture is large enough, or none of those that are can be decoded.
        """
        rng = np.random.default_rng((self.seed, step))
        side = (crop + 2 * MARGIN) * 2**stages
        fitting = self.fitting(stages, crop)
        share = np.sqrt([float(np.prod(self.pictures.sizes[i])) for i in fitting])
        chosen = rng.choice(fitting, size=batch, p=share / share.sum())
        crops = np.stack([self._crop(self._picture(int(i), fitting), side, rng) for i in chosen])
        finest = torch.from_numpy(crops).permute(0, 3, 1, 2)
        scales = [matlab_imresize(finest, scale=1 / 2**k) for k in range(stages, 0, -1)] + [finest]
        return Batch(tuple(_trim(x, MARGIN * 2**k).float() / 255 for k, x in enumerate(scales)))

    def _picture(self, index: int, fitting: list[int]) -> NDArray[np.uint8]:
        # In place of a damaged picture the next one: the crops stay a function of (seed, step) and the folder.
        start = bisect_left(fitting, index)
        for candidate in fitting[start:] + fitting[:start]:
            try:
                return self.pictures[candidate]
            except PictureError:
                continue
        raise ValueError(f"data: none of the {len(fitting)} pictures that are large enough can be decoded")

    @staticmethod
    def _crop(picture: NDArray[np.uint8], side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
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


def _pixels(path: Path) -> NDArray[np.uint8]:
    """A picture file as [H, W, 3] of 8 bits: grey is repeated, alpha left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PictureWarning)  # frames and EXIF are of no interest here
        image = read_picture(path).image
    rgb = image[0, :3].expand(3, -1, -1)
    return (rgb * 255).round_().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def _trim(image: Tensor, border: int) -> Tensor:
    return image[..., border:-border, border:-border]
