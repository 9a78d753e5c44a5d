"""Where training pictures come from: a folder, a batch of images, or a part of either."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..checks import check_image, check_integer, check_number
from ..picture_format import READABLE
from ..pictures import WARNING_FILTERS, PictureError, PictureWarning, read_picture
from .picture_files import picture_files

log = logging.getLogger(__name__)


class Pictures(Protocol):
    """A fixed sequence of 8-bit RGB pictures of any sizes."""

    @property
    def name(self) -> str:
        """Of the whole, for a model's provenance; without a path."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """A short name of each picture, for reports; all different."""
        ...

    @property
    def sizes(self) -> Sequence[tuple[int, int]]:
        """The two sides of each picture, known without decoding it; which is the height, only decoding tells."""
        ...

    @property
    def skipped(self) -> Sequence[str]:
        """For each picture that cannot be read, its name and the reason; grows as pictures are decoded."""
        ...

    @property
    def bytes(self) -> int:
        """Bytes of all pictures, decoded."""
        ...

    @property
    def marks(self) -> Sequence[str]:
        """For each picture what changes when it becomes another one."""
        ...

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that tell one set of pictures from another."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> NDArray[np.uint8]:
        """Picture `index` as [H, W, 3] uint8, not to be written to.

        Raises:
            PictureError: it cannot be decoded.
        """
        ...


class Budget:
    """Memory for decoded pictures, which several folders may share.

    Args:
        size: bytes.

    Attributes:
        left: bytes that are not taken.
    """

    def __init__(self, size: int) -> None:
        self.left = size

    def take(self, size: int) -> bool:
        """Takes as many bytes if they are left, and says whether they were."""
        fits = size <= self.left
        self.left -= size if fits else 0
        return fits


class PictureFolder:
    """The pictures under a folder, decoded once and kept as bytes. May be read by several threads.

    Args:
        folder: searched through all levels, see `picture_files`.
        memory: bytes of decoded pictures to keep, its own or a shared budget; what does not fit is decoded at each use.
        argument: what messages call the folder.

    Attributes:
        root: the folder.
        paths: the pictures, sorted.
        names: the same, relative to the folder; bytes that are no text are written as such.
        sizes: (height, width) of each, as its header says.
        skipped: for each file left out, its path and the reason.

    Raises:
        ValueError: no folder, or no readable picture in it.
    """

    def __init__(self, folder: str | Path, memory: int | Budget, argument: str = "data") -> None:
        self.root, self._argument = Path(folder), argument
        if not self.root.is_dir():
            raise ValueError(f"{argument}: expected a folder, got {self.root}")
        self.paths: list[Path] = []
        self.sizes: list[tuple[int, int]] = []
        self.skipped: list[str] = []
        for path in picture_files(self.root):
            size = self._size_of(path)
            if size is not None:
                self.paths.append(path)
                self.sizes.append(size)
        if not self.paths:
            found = f"none readable under {self.root}"
            raise ValueError(f"{argument}: expected pictures ({', '.join(READABLE)}), found {found}")
        self.names = [_printable(path.relative_to(self.root).as_posix()) for path in self.paths]
        self._budget = memory if isinstance(memory, Budget) else Budget(memory)
        self._kept: dict[int, NDArray[np.uint8]] = {}
        self._damaged: dict[int, PictureError] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Picture `index` as [H, W, 3] uint8.

        Raises:
            PictureError: it cannot be decoded; it is named in the log the first time.
        """
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        with WARNING_FILTERS:  # the trainer validates while its reader draws crops, and decoding silences warnings
            if index in self._kept:  # another thread was first
                return self._kept[index]
            if index in self._damaged:
                raise self._damaged[index]
            return self._decode(index)

    @property
    def name(self) -> str:
        """The folder's own name."""
        return _printable(self.root.resolve().name)

    @property
    def bytes(self) -> int:
        """Bytes of all pictures, decoded."""
        return _bytes(self.sizes)

    @property
    def marks(self) -> Sequence[str]:
        """The name and size of each."""
        return [f"{name} {size}\n" for name, size in zip(self.names, self.sizes, strict=True)]

    @property
    def fingerprint(self) -> str:
        """Changes when pictures come, go, or change their name or size."""
        return _digest(*self.marks)

    def _decode(self, index: int) -> NDArray[np.uint8]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", PictureWarning)  # frames and EXIF are of no interest here
                pixels = _pixels(read_picture(self.paths[index]).image[0])
            if sorted(pixels.shape[:2]) != sorted(self.sizes[index]):  # a camera's turn changes their order
                found, known = (f"{min(sides)}x{max(sides)} px" for sides in (pixels.shape[:2], self.sizes[index]))
                raise PictureError(f"{self.paths[index]}: has {found}, and had {known} when the folder was searched")
        except PictureError as error:
            self._damaged[index] = error
            self._skip(str(error))
            raise
        if self._budget.take(pixels.nbytes):
            self._kept[index] = pixels
        return pixels

    def _size_of(self, path: Path) -> tuple[int, int] | None:
        try:
            with WARNING_FILTERS, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's own, of size and odd metadata
                with Image.open(path) as picture:
                    return picture.height, picture.width
        except Exception as error:  # decoders raise nearly everything on damaged files
            self._skip(f"{path}: cannot be read ({type(error).__name__})")
            return None

    def _skip(self, reason: str) -> None:
        reason = _printable(reason)
        self.skipped.append(reason)
        log.warning("%s: skipping %s", self._argument, reason)


class PictureBatch:
    """Images that are in memory already, as pictures of 8 bits.

    Args:
        images: `[B, C, H, W]`, C of 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA), 0..1, or several of these
            of any sizes. Grey is repeated, alpha left out, what is outside 0..1 clamped.

    Attributes:
        name: "images".
        names: "image 1" and so on.
        sizes: (height, width) of each.
        skipped: empty.
        marks: of the pixels of each.
        fingerprint: changes with any pixel.

    Raises:
        TypeError, ValueError: not such images, or none.
    """

    def __init__(self, images: Tensor | Sequence[Tensor]) -> None:
        self._pixels: list[NDArray[np.uint8]] = []
        for number, image in enumerate([images] if isinstance(images, Tensor) else images):
            check_image(image, "images" if isinstance(images, Tensor) else f"images[{number}]", channels=(1, 2, 3, 4))
            self._pixels += [_pixels(single) for single in image.detach().cpu()]
        if not self._pixels:
            raise ValueError("images: expected at least one, got none")
        self.name = "images"
        self.names = [f"image {number}" for number in range(1, len(self._pixels) + 1)]
        self.sizes = [(pixels.shape[0], pixels.shape[1]) for pixels in self._pixels]
        self.skipped: list[str] = []
        self.marks = [_digest(str(pixels.shape), pixels.tobytes()) for pixels in self._pixels]
        self.fingerprint = _digest(*self.marks)

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Picture `index` as [H, W, 3] uint8."""
        return self._pixels[index]

    @property
    def bytes(self) -> int:
        """Bytes of all pictures."""
        return _bytes(self.sizes)


class Subset:
    """Some of other pictures. What is decoded is kept by these, within their budget.

    Args:
        pictures: the whole; its name and what it skipped are the subset's too.
        indices: of those taken, in this order.

    Attributes:
        names, sizes, marks: of those taken.
    """

    def __init__(self, pictures: Pictures, indices: Sequence[int]) -> None:
        self.pictures, self.indices = pictures, list(indices)
        self.names = [pictures.names[index] for index in self.indices]
        self.sizes = [pictures.sizes[index] for index in self.indices]
        marks = pictures.marks
        self.marks = [marks[index] for index in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Picture `index` as [H, W, 3] uint8.

        Raises:
            PictureError: it cannot be decoded.
        """
        return self.pictures[self.indices[index]]

    @property
    def name(self) -> str:
        """Of the whole."""
        return self.pictures.name

    @property
    def skipped(self) -> Sequence[str]:
        """Of the whole."""
        return self.pictures.skipped

    @property
    def bytes(self) -> int:
        """Bytes of those taken, decoded."""
        return _bytes(self.sizes)

    @property
    def fingerprint(self) -> str:
        """Changes with what is taken, whatever else the whole has."""
        return _digest(*self.marks)


def split(pictures: Pictures, share: float, seed: int, side: int = 0) -> tuple[Subset, Subset]:
    """Splits pictures in two, by picture.

    Each goes where a hash of its name and the seed says, so that it stays on its side when others come or go. The
    share is met on average; at least one picture is on either side, which may be one that the hash had elsewhere.
    Small pictures are all trained on, and do not count; nor do damaged ones that would be held out first, so that one
    is there to be measured.

    Args:
        pictures: at least two that are not small.
        share: part of them to be held out for validation, above 0 and below 1.
        seed: of the split.
        side: pixels that the short side of a picture must have, so that it is not small.

    Returns:
        (for training, for validation).

    Raises:
        TypeError, ValueError: a bad share or seed; fewer than two pictures that are not small.
    """
    check_number(share, "share", above=0)
    if share >= 1:
        raise ValueError(f"share: expected a number above 0 and below 1, got {share:g}")
    check_integer(seed, "seed")
    large = [index for index, size in enumerate(pictures.sizes) if min(size) >= side]
    places = {index: int(_digest(f"{seed} {pictures.names[index]}"), 16) / 2**64 for index in large}
    large.sort(key=places.__getitem__)
    while large and not decodable(pictures, large[0]):
        large.pop(0)
    if len(large) < 2:
        wanted = f"at least 2 of {side}x{side} px or more" if side else "at least 2"
        raise ValueError(f"pictures: expected {wanted}, to hold one out for validation, got {len(large)}")
    held = min(max(sum(places[index] < share for index in large), 1), len(large) - 1)
    chosen = set(large[:held])
    return Subset(pictures, [i for i in range(len(pictures)) if i not in chosen]), Subset(pictures, sorted(chosen))


def decodable(pictures: Pictures, index: int) -> bool:
    """Whether picture `index` can be decoded."""
    try:
        pictures[index]
    except PictureError:
        return False
    return True


def _pixels(image: Tensor) -> NDArray[np.uint8]:
    """`[C, H, W]` in 0..1 as [H, W, 3] of 8 bits: grey is repeated, alpha left out."""
    rgb = image[:3] if image.shape[0] >= 3 else image[:1].expand(3, -1, -1)
    return (rgb.float() * 255).round_().clamp_(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def _bytes(sizes: Sequence[tuple[int, int]]) -> int:
    return sum(3 * height * width for height, width in sizes)


def _printable(text: str) -> str:
    """Text with escapes in the place of what a file system has in its names and no text can hold."""
    return text.encode(errors="backslashreplace").decode()


def _digest(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()[:16]
