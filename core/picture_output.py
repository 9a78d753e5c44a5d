"""Writing picture files: whole or not at all, and refused before any work where writing cannot succeed."""

from __future__ import annotations

import io
import os
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from .checks import check_image
from .picture_format import (
    LARGEST_SIDE,
    LARGEST_TIFF,
    SIXTEEN_BIT,
    Picture,
    PictureError,
    PictureWarning,
    output_format,
    reason,
)
from .png16 import encode_png16
from .tiff16 import encode_tiff16
from .whole_file import beside, write_whole

_EXIF_IFD, _EXIF_WIDTH, _EXIF_HEIGHT = 0x8769, 0xA002, 0xA003
_LONGEST_EXIF = 65533  # bytes of a JPEG segment (ISO 10918-1, B.1.1.4)
_BAND = 256  # rows quantised at a time


def check_output(path: str | Path, size: tuple[int, int] | None = None, like: Picture | None = None) -> None:
    """Check that a picture can be written, without leaving anything behind.

    Args:
        path: the file to be written.
        size: height and width of the picture to come, where known.
        like: the picture that it will be made from, where known, as for `write_picture`.

    Raises:
        PictureError: a format that is not written here, a folder that does not exist or cannot be written
            to, or a picture larger than the format can hold.
    """
    kind = output_format(path)
    if size is not None:
        channels = like.image.shape[1] if like and not like.grey else 1  # grey may have alpha: more is not certain
        _check_size(path, kind, size, channels * (like.bits if like else 8) // 8)
    check_target(path)


def check_target(path: str | Path) -> None:
    """Check that a file of any kind can be written, without leaving anything behind.

    Args:
        path: the file to be written.

    Raises:
        PictureError: a folder that does not exist or cannot be written to, or the name of a folder.
    """
    _probe(beside(_target(path)), path)


def check_folder(folder: str | Path) -> None:
    """Check that files can be written to a folder, whatever is in it, without leaving anything behind.

    Args:
        folder: where they will be written.

    Raises:
        PictureError: it does not exist or cannot be written to.
    """
    _probe(beside(Path(folder) / "any"), folder)


def write_picture(path: str | Path, image: Tensor, like: Picture | None = None, *, bits: int | None = None) -> None:
    """Write a picture file; on any failure the folder is left as it was.

    Values are clipped to 0..1 and rounded half up. PNG and TIFF hold 8 or 16 bits a sample, JPEG (quality
    95, 4:4:4) and WebP (quality 95, exact alpha) hold 8. JPEG has no alpha: the picture is laid on white.

    Args:
        path: the file; its suffix chooses the format. An existing file is replaced.
        image: `[1, C, H, W]` or `[C, H, W]`, C = 1, 3 or 4, 0..1.
        like: the picture that the image was made from: its depth, profile and EXIF are kept, and grey
            with alpha is written as such (in TIFF of 16 bits as RGBA).
        bits: 8 or 16 in place of the depth of `like` (8 without one).

    Raises:
        PictureError: as `check_output`, or the file could not be written.
        TypeError, ValueError: not an image, more than one image, or other bits.

    Warns:
        PictureWarning: the format cannot hold the alpha channel, grey with alpha, 16 bits, the colour profile,
            or all the EXIF data.
    """
    kind = output_format(path)
    image = image.unsqueeze(0) if isinstance(image, Tensor) and image.ndim == 3 else image
    check_image(image)
    if image.shape[0] != 1:
        raise ValueError(f"image: expected one image [1, C, H, W], got {tuple(image.shape)}")
    if bits not in (None, 8, 16):
        raise ValueError(f"bits: expected 8 or 16, got {bits!r}")
    depth = bits or (like.bits if like else 8)
    if depth == 16 and kind not in SIXTEEN_BIT:
        warnings.warn(f"{path}: {kind} holds 8 bits a sample, not 16", PictureWarning, stacklevel=2)
        depth = 8
    if image.shape[1] == 4 and kind == "JPEG":
        warnings.warn(f"{path}: JPEG has no alpha: laid on white", PictureWarning, stacklevel=2)
        alpha = image[:, 3:].clamp(0.0, 1.0)
        image = image[:, :3] * alpha + (1.0 - alpha)
        if like and like.grey:
            image = image[:, :1]
    if image.shape[1] == 4 and like and like.grey:
        if kind == "TIFF" and depth == 16:  # Pillow could not read it back
            warnings.warn(f"{path}: {kind} of 16 bits holds grey with alpha as RGBA", PictureWarning, stacklevel=2)
        else:
            image = image[:, [0, 3]]
    _check_size(path, kind, (image.shape[2], image.shape[3]), image.shape[1] * depth // 8)
    try:
        data = _encode(path, _quantise(image, depth), kind, like)
    except (OSError, ValueError, MemoryError, RuntimeError, struct.error) as error:
        raise PictureError(f"{path}: cannot be encoded as {kind} ({reason(error)})") from error
    write_atomic(path, data)


def write_atomic(path: str | Path, data: bytes) -> None:
    """Write a file by way of a temporary one beside it, so that it is there whole or not at all.

    Args:
        path: the file; an existing one is replaced.
        data: its bytes.

    Raises:
        PictureError: the folder does not exist or cannot be written to, or the disk is full.
    """
    target = _target(path)
    try:
        write_whole(target, data)
    except OSError as error:
        raise PictureError(f"{path}: cannot be written ({reason(error)})") from error


def _check_size(path: str | Path, kind: str, size: tuple[int, int], pixel: int) -> None:
    """Refuse a picture of (height, width) and so many bytes a pixel that a format cannot hold."""
    height, width = size
    if max(size) > LARGEST_SIDE[kind]:
        raise PictureError(f"{path}: {kind} holds at most {LARGEST_SIDE[kind]} pixels a side, got {width}x{height}")
    if kind == "TIFF" and height * width * pixel > LARGEST_TIFF:
        got = f"{width}x{height} pixels of {pixel} bytes"
        raise PictureError(f"{path}: {kind} holds at most {LARGEST_TIFF} bytes of pixels, got {got}")


def _probe(file: Path, named: str | Path) -> None:
    """Make a file and take it away; `named` is what an error names."""
    # The only sure way to know: permissions say nothing of read-only file systems.
    try:
        with open(file, "xb"):
            pass
        file.unlink()
    except OSError as error:
        raise PictureError(f"{named}: the folder cannot be written to ({reason(error)})") from error


def _target(path: str | Path) -> Path:
    """The file that would be replaced, through links, if it and its folder are what they should be."""
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise PictureError(f"{path}: expected a file to write, got {'a folder' if target.is_dir() else 'a device'}")
    if target.exists() and not os.access(target, os.W_OK):
        raise PictureError(f"{path}: the file is read-only")
    if not target.parent.is_dir():
        raise PictureError(f"{path}: the folder {target.parent} does not exist")
    return target


def _quantise(image: Tensor, bits: int) -> NDArray[Any]:
    """`[1, C, H, W]` in 0..1 to `[H, W, C]` integers, rounded half up."""
    top, dtype = (65535, np.uint16) if bits == 16 else (255, np.uint8)
    _, C, H, W = image.shape
    out = np.empty((H, W, C), dtype)
    for row in range(0, H, _BAND):  # in bands: the float copies of a large picture are larger than itself
        band = image[0, :, row : row + _BAND].detach().cpu().float().clamp(0.0, 1.0)
        out[row : row + _BAND] = (band * top + 0.5).floor().permute(1, 2, 0).numpy()
    return out


def _encode(path: str | Path, samples: NDArray[Any], kind: str, like: Picture | None) -> bytes:
    height, width, channels = samples.shape
    icc = like.icc if like else None
    space = b"GRAY" if channels < 3 and kind != "WEBP" else b"RGB "
    if icc and icc[16:20] != space:  # what its colours are (ICC.1, 7.2.8)
        own, wanted = (name.decode("latin-1").strip() for name in (icc[16:20], space))
        told = f"{path}: the colour profile is for {own!r}, not {wanted!r}: left out"
        warnings.warn(told, PictureWarning, stacklevel=3)
        icc = None
    exif = _exif_of_size(like.exif, width, height) if like and like.exif else None
    if exif and kind == "JPEG" and len(exif) > _LONGEST_EXIF:
        warnings.warn(f"{path}: JPEG cannot hold this much EXIF data: left out", PictureWarning, stacklevel=3)
        exif = None
    if samples.dtype == np.uint16:
        return (encode_png16 if kind == "PNG" else encode_tiff16)(samples, icc, exif)
    options: dict[str, Any] = {
        "PNG": {},
        "JPEG": {"quality": 95, "subsampling": 0, "optimize": True},
        "WEBP": {"quality": 95, "alpha_quality": 100, "exact": True, "method": 4},
        "TIFF": {},
    }[kind]
    if icc:
        options["icc_profile"] = icc
    if exif:
        options["exif"] = exif
    picture = Image.fromarray(samples[:, :, 0] if channels == 1 else samples)
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def _exif_of_size(block: bytes, width: int, height: int) -> bytes:
    """The EXIF block with the size of the new picture, where it names one."""
    exif = Image.Exif()
    exif.load(block)
    details = dict(exif.get_ifd(_EXIF_IFD))
    for tag, value in ((_EXIF_WIDTH, width), (_EXIF_HEIGHT, height)):
        if tag in details:
            details[tag] = value
    if details:
        exif[_EXIF_IFD] = details
    return exif.tobytes()
