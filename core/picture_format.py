"""What a picture file holds, which files are pictures, and what can go wrong with them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the terminal's --help must not wait for torch
    from torch import Tensor

READABLE = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".gif",
    ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".avif", ".jp2",
)  # fmt: skip
WRITABLE = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}
LARGEST_SIDE = {"PNG": 2**31 - 1, "JPEG": 65500, "WEBP": 16383, "TIFF": 2**31 - 1}
LARGEST_TIFF = 2**32 - 2**20  # bytes of samples: offsets have 32 bits, and profile and EXIF need room as well
SIXTEEN_BIT = ("PNG", "TIFF")


class PictureError(ValueError):
    """A picture file that cannot be read or written; the message names file and reason in one line."""


class PictureWarning(UserWarning):
    """A picture file was read or written, but not everything of it could be kept."""


@dataclass(frozen=True)
class Picture:
    """One picture as read from a file.

    Attributes:
        image: `[1, C, H, W]` float32, 0..1; C = 1 grey, 3 RGB, 4 RGBA (colour not premultiplied).
        bits: depth of the file's samples, 8 or 16.
        grey: whether the colour is grey; with C = 4 the file held grey and alpha.
        icc: the colour profile that the values belong to, None for none (sRGB is then usual).
        exif: EXIF block without orientation (already applied) and thumbnail, None for none.
    """

    image: Tensor
    bits: int = 8
    grey: bool = False
    icc: bytes | None = None
    exif: bytes | None = None


def find_pictures(folder: str | Path) -> list[Path]:
    """List the pictures of a folder.

    Args:
        folder: the folder; folders within it and hidden files are left out.

    Returns:
        The files whose suffix is in `READABLE`, sorted by name.

    Raises:
        PictureError: not a folder, or one that cannot be read.
    """
    try:
        files = [path for path in Path(folder).iterdir() if path.is_file()]
    except OSError as error:
        raise PictureError(f"{folder}: {reason(error)}") from error
    found = [path for path in files if path.suffix.lower() in READABLE and not path.name.startswith(".")]
    return sorted(found, key=lambda path: path.name)


def output_format(path: str | Path) -> str:
    """The format that a file name asks for.

    Args:
        path: the file to be written.

    Returns:
        One of `WRITABLE`'s values.

    Raises:
        PictureError: a suffix that is not in `WRITABLE`.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in WRITABLE:
        got = f"suffix {suffix!r}" if suffix else "no suffix"
        raise PictureError(f"{path}: expected a name ending in {', '.join(WRITABLE)}, got {got}")
    return WRITABLE[suffix]


def reason(error: BaseException) -> str:
    """One line that says what went wrong, without the path that the caller names.

    Args:
        error: any exception.

    Returns:
        The text of the system for an OSError with a number, else the exception's own first line.
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
