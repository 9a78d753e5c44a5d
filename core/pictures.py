"""Picture files in and out, with their depth, colour profile and EXIF: reading, and the names for writing."""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

from .picture_format import Picture, PictureError, PictureWarning, find_pictures, reason
from .picture_output import check_output, write_atomic, write_picture
from .png16 import decode_png16, is_png16
from .tiff16 import COMPRESSION, EXTRA, FORMAT, PLANAR, SIGNED, UNSPECIFIED, decode_tiff16, is_signed_tiff

__all__ = [
    "Picture",
    "PictureError",
    "PictureWarning",
    "check_output",
    "find_pictures",
    "read_picture",
    "write_atomic",
    "write_picture",
]

_ORIENTATION, _EXIF_IFD, _GPS_IFD = 0x0112, 0x8769, 0x8825
# Tags of the main directory that describe the photograph; the others describe the file they were in.
_KEPT_TAGS = (0x010D, 0x010E, 0x010F, 0x0110, 0x011A, 0x011B, 0x0128, 0x0131, 0x0132, 0x013B, 0x013C, 0x8298)
_MODES_16 = ("I;16", "I;16L", "I;16B", "I;16N")
_BITS, _PHOTOMETRIC, _FILL_ORDER, _WHITE_IS_ZERO = 258, 262, 266, 0
_PPM_HEAD = re.compile(rb"P[36](?:(?:\s|#[^\r\n]*[\r\n])+(\d+)){3}")  # width, height and, last, the value of white
_AV1_HEAD = re.compile(rb"av1C\x81.(.)", re.DOTALL)  # its second bit is high_bitdepth (AV1-ISOBMFF, 2.3.3)
_JPEG_2000_HEAD = re.compile(rb"\xff\x4f\xff\x51.{38}(.)", re.DOTALL)  # Ssiz of the first component (T.800, A.5.1)
_SIGNED = "pictures of signed values are not supported"
WARNING_FILTERS = threading.RLock()  # all threads have one list of them: whoever changes it is alone


def read_picture(path: str | Path) -> Picture:
    """Read a picture file.

    The EXIF orientation is applied. Palettes become RGB, transparent colours an alpha channel, CMYK is
    converted through its profile to sRGB; 16-bit PNG and TIFF keep their depth, grey TIFF of 12 bits becomes
    16. Of several frames the first is taken. May be called from several threads, which then take turns.

    Args:
        path: a file of any format that Pillow reads.

    Returns:
        The picture.

    Raises:
        PictureError: no such file, not a picture, damaged, of a kind that cannot be used (floating point, signed
            values), or of more pixels than Pillow's limit against decompression bombs.

    Warns:
        PictureWarning: something of the file was left out (further frames, depth beyond 8 bits, EXIF, samples that
            are neither colour nor alpha).
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise PictureError(f"{path}: {reason(error)}") from error
    if not data:
        raise PictureError(f"{path}: the file is empty")
    try:
        with WARNING_FILTERS, warnings.catch_warnings():
            # Pillow warns of its own accord at half the size that it refuses, and of odd metadata. Only it is
            # silenced: other threads' warnings go on.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            picture, notes = _decode(data)
    except UnidentifiedImageError as error:
        # Pillow does not know signed values of several samples a pixel
        what = _SIGNED if is_signed_tiff(data) else "not a picture in a format that is known here"
        raise PictureError(f"{path}: {what}") from error
    except Image.DecompressionBombError as error:
        raise PictureError(f"{path}: too large ({reason(error)})") from error
    except Exception as error:  # decoders raise nearly everything on damaged files: SyntaxError, KeyError, …
        raise PictureError(f"{path}: cannot be read ({reason(error)})") from error
    for note in notes:
        warnings.warn(f"{path}: {note}", PictureWarning, stacklevel=2)
    return picture


def _decode(data: bytes) -> tuple[Picture, list[str]]:
    notes: list[str] = []
    with Image.open(io.BytesIO(data)) as file:
        frames = getattr(file, "n_frames", 1)
        if frames > 1 and file.format != "MPO":  # a camera's MPO is one photograph with previews
            notes.append(f"the first of {frames} frames is used")
        file.seek(0)
        tiff = decode_tiff16(data) if file.format == "TIFF" else None
        if tiff is None:
            _check_tiff(file)
            file.load()
        if UNSPECIFIED in _tiff_tags(file).get(EXTRA, ()):
            notes.append("samples that are neither colour nor alpha are left out")
        icc = file.info.get("icc_profile") or None
        orientation, exif = _exif(file, notes)
        if is_png16(data):
            samples, top = decode_png16(data), 65535
        elif tiff is not None:
            (samples, orientation), top = tiff, 65535
        else:
            if file.format == "PNG":
                _scale_key(file, data[24])
            samples, top, icc = _samples(file, icc)
            if top == 255 and _is_deep(file, data):
                notes.append(f"this kind of {file.format} of more than 8 bits is read with 8")
    samples = _turned(samples, orientation)
    grey = samples.shape[2] < 3
    if samples.shape[2] == 2:  # networks see RGB, alpha is the fourth channel
        samples = samples[:, :, [0, 0, 0, 1]]
    image = torch.from_numpy(np.ascontiguousarray(samples.transpose(2, 0, 1), np.float32))
    image = image.div_(float(top)).unsqueeze(0)
    return Picture(image, 16 if top == 65535 else 8, grey, icc, exif), notes


def _is_deep(file: Image.Image, data: bytes) -> bool:
    """Whether a file of a format that Pillow may read with less holds more than 8 bits a sample."""
    match file.format:
        case "PPM":
            head = _PPM_HEAD.match(data)
            return head is not None and int(head[1]) > 255
        case "AVIF":
            return any(head[1][0] & 0x40 for head in _AV1_HEAD.finditer(data))
        case "JPEG2000":
            head = _JPEG_2000_HEAD.search(data)
            return head is not None and (head[1][0] & 0x7F) >= 8  # stored less 1, the sign above it
    return max(_tiff_tags(file).get(_BITS, ()), default=8) > 8


def _tiff_tags(file: Image.Image) -> Mapping[int, Any]:
    return getattr(file, "tag_v2", {})


def _check_tiff(file: Image.Image) -> None:
    """Check that Pillow does not misread a file, which is a TIFF or another."""
    tags = _tiff_tags(file)
    if SIGNED in tags.get(FORMAT, ()):
        raise ValueError(_SIGNED)
    if tags.get(PLANAR) == 2 and tags.get(COMPRESSION, 1) == 1:
        # Of each plane Pillow knows which colour it is and no more: it is right with bytes, and where 0 is black.
        bits, kind = max(tags.get(_BITS, (1,))), tags.get(_PHOTOMETRIC)
        if bits not in (1, 8) or kind == _WHITE_IS_ZERO or tags.get(_FILL_ORDER, 1) != 1:
            planes = f"planes of {bits} bits a sample, not compressed, of photometric interpretation {kind}"
            raise ValueError(f"pictures in {planes} are not supported")


def _scale_key(file: Image.Image, bits: int) -> None:
    """Give the transparent grey of a PNG the depth of its samples, which Pillow has made 8 bits.

    Of a key only the lowest bits count (PNG, 11.3.1.1), so one that has been scaled already stays as it is.
    """
    key, top = file.info.get("transparency"), 2**bits - 1
    if file.mode == "L" and isinstance(key, int):
        file.info["transparency"] = (key & top) * (255 // top)


def _samples(file: Image.Image, icc: bytes | None) -> tuple[NDArray[np.uint8] | NDArray[np.uint16], int, bytes | None]:
    """What Pillow decoded as `[H, W, C]`, the value of white, and the profile that still holds."""
    if file.mode in _MODES_16 or (file.mode == "I" and file.format in ("PNG", "PPM")):
        values = np.asarray(file).clip(0, 65535).astype(np.uint16)
        return (_grey_of_tiff(file, values) if file.format == "TIFF" else values)[:, :, None], 65535, icc
    if file.mode in ("I", "F"):
        raise ValueError(f"pictures of {'floating-point' if file.mode == 'F' else '32-bit'} values are not supported")
    if file.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        file, icc = _to_rgb(file, icc), None
    elif file.mode == "1":
        file = file.convert("L")
    alpha = file.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in file.info
    grey = file.mode in ("L", "LA", "La")
    file = file.convert(("LA" if alpha else "L") if grey else ("RGBA" if alpha else "RGB"))
    values = np.asarray(file)
    return values.reshape(values.shape[0], values.shape[1], -1), 255, icc


def _grey_of_tiff(file: Image.Image, values: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Samples of 12 or 16 bits, which Pillow leaves as they are stored, with black at 0 and white at 65535."""
    tags = _tiff_tags(file)
    top = 2 ** tags[_BITS][0] - 1
    if top < 65535:
        values = ((values.astype(np.uint32) * 65535 + top // 2) // top).astype(np.uint16)
    return 65535 - values if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else values


def _to_rgb(file: Image.Image, icc: bytes | None) -> Image.Image:
    if icc:
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            converted = ImageCms.profileToProfile(file, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, ImportError):
            converted = None  # a profile of another colour space: as if there were none
        if converted is not None:
            return converted
    return file.convert("RGB")


def _exif(file: Image.Image, notes: list[str]) -> tuple[int, bytes | None]:
    """The orientation still to be applied, and the rest of the EXIF data."""
    try:
        source = file.getexif()
        orientation = source.get(_ORIENTATION, 1)
        kept = Image.Exif()
        for tag in _KEPT_TAGS:
            if tag in source:
                kept[tag] = source[tag]
        directories = [(tag, source.get_ifd(tag)) for tag in (_EXIF_IFD, _GPS_IFD)]
        for tag, values in directories:
            if values:
                kept[tag] = dict(values)
        block = kept.tobytes() if len(kept) else None
    except Exception as error:  # damaged metadata must not cost the picture
        notes.append(f"EXIF data left out ({reason(error)})")
        return 1, None
    return orientation if orientation in range(1, 9) else 1, block


def _turned(samples: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Apply an EXIF orientation (Exif 2.32, tag 274) to `[H, W, C]`."""
    if orientation >= 5:  # rows are columns
        samples = samples.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return samples
