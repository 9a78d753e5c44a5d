"""TIFF files with 16 bits a sample, of which Pillow itself reads and writes grey ones only.

The samples of an RGB row lie side by side, so they are also a grey row of three times the width; or each in a
plane of its own, which is a grey picture as it is. The compression works on bytes and does not care: the
directory is rewritten to say so, and Pillow (libtiff) does the rest, in both directions. Source: TIFF
Revision 6.0 (Adobe 1992), sections 2, 14 and 18.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WIDTH, BITS, COMPRESSION, PHOTOMETRIC = 256, 258, 259, 262
ORIENTATION, SAMPLES, PLANAR, PREDICTOR, TILE_WIDTH, EXTRA, FORMAT = 274, 277, 284, 317, 322, 338, 339
UNSPECIFIED, UNSIGNED, SIGNED = 0, 1, 2  # of EXTRA the first, of FORMAT the others
_PIECES = (273, 279, 324, 325)  # where strips and tiles begin, and their bytes: of a plane after the other
_SHORT, _LONG = 3, 4
_SIZES = {1: 1, 2: 1, _SHORT: 2, _LONG: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_OLD_JPEG, _JPEG = 6, 7
_UNASSOCIATED_ALPHA = 2
_GREY, _RGB = 1, 2


@dataclass
class _Directory:
    """The first directory of a TIFF file: byte order and the raw entries by tag."""

    order: str
    entries: dict[int, bytes]

    def values(self, data: bytes, tag: int, default: int) -> tuple[int, ...]:
        """The SHORT or LONG values of a tag."""
        if tag not in self.entries:
            return (default,)
        kind, count = struct.unpack_from(self.order + "HI", self.entries[tag], 2)
        if kind not in (_SHORT, _LONG):
            raise ValueError(f"TIFF tag {tag}: expected type SHORT or LONG, got {kind}")
        layout = f"{self.order}{count}{'H' if kind == _SHORT else 'I'}"
        if count * _SIZES[kind] <= 4:
            return struct.unpack_from(layout, self.entries[tag], 8)
        return struct.unpack_from(layout, data, *struct.unpack_from(self.order + "I", self.entries[tag], 8))

    def set(self, tag: int, kind: int, value: int) -> None:
        """Give a tag one value."""
        layout = "HHIHxx" if kind == _SHORT else "HHII"
        self.entries[tag] = struct.pack(self.order + layout, tag, kind, 1, value)

    def plane(self, data: bytes, number: int, planes: int) -> _Directory:
        """That of one of several planes, with all else that this one says."""
        entries = dict(self.entries)
        for tag in _PIECES:
            if tag not in entries:
                continue
            kind, count, at = struct.unpack_from(self.order + "HII", entries[tag], 2)
            size = count // planes * _SIZES.get(kind, 0)
            if size == 0 or count % planes:
                raise ValueError(f"TIFF tag {tag}: expected values for {planes} planes, got {count}")
            at += number * size
            held = data[at : at + size].ljust(4, b"\0") if size <= 4 else struct.pack(self.order + "I", at)
            entries[tag] = struct.pack(self.order + "HHI", tag, kind, count // planes) + held
        return _Directory(self.order, entries)


def decode_tiff16(data: bytes) -> tuple[NDArray[np.uint16], int] | None:
    """Decode the first picture of a 16-bit RGB or RGBA TIFF file at its full depth.

    Args:
        data: the whole file.

    Returns:
        `[H, W, C]` uint16, C = 3 RGB or 4 RGBA, as stored, and its orientation (1 to 8); a fourth sample that
        is not said to be alpha is left out. None where this is another kind of file (8 bits, grey,
        premultiplied alpha, BigTIFF, …), which Pillow reads as well as can be.

    Raises:
        ValueError, OSError: a damaged file.
    """
    directory = _read_directory(data)
    if directory is None or not _is_plain_rgb16(data, directory):
        return None
    samples = directory.values(data, SAMPLES, 1)[0]
    orientation = directory.values(data, ORIENTATION, 1)[0]
    colours = 3 if directory.values(data, EXTRA, _UNASSOCIATED_ALPHA)[0] == UNSPECIFIED else samples
    if directory.values(data, PLANAR, 1)[0] == 2:
        planes = [_decode_grey(data, directory.plane(data, number, samples)) for number in range(colours)]
        return np.stack(planes, axis=2), orientation
    predicted = directory.values(data, PREDICTOR, 1)[0] == 2
    directory.entries.pop(PREDICTOR, None)
    for tag in (WIDTH, TILE_WIDTH):
        if tag in directory.entries:
            directory.set(tag, _LONG, directory.values(data, tag, 0)[0] * samples)
    flat = _decode_grey(data, directory)
    rows = flat.reshape(flat.shape[0], -1, samples)[:, :, :colours]
    return np.cumsum(rows, axis=1, dtype=np.uint16) if predicted else rows, orientation


def is_signed_tiff(data: bytes) -> bool:
    """Whether this is a TIFF file, not BigTIFF, of signed integers; False of one that is damaged."""
    try:
        directory = _read_directory(data)
        return directory is not None and SIGNED in directory.values(data, FORMAT, UNSIGNED)
    except (ValueError, struct.error):
        return False


def encode_tiff16(samples: NDArray[np.uint16], icc: bytes | None = None, exif: bytes | None = None) -> bytes:
    """Encode a 16-bit TIFF file, not compressed.

    Args:
        samples: `[H, W, C]` uint16, C = 1 grey, 3 RGB, 4 RGBA.
        icc: an ICC profile to embed.
        exif: an EXIF block to embed.

    Returns:
        The whole file.

    Raises:
        ValueError: a shape that is no picture.
    """
    if samples.ndim != 3 or samples.shape[2] not in (1, 3, 4) or 0 in samples.shape:
        raise ValueError(f"samples: expected [H, W, 1, 3 or 4], got {samples.shape}")
    height, width, channels = samples.shape
    out = io.BytesIO()
    grey = Image.fromarray(np.ascontiguousarray(samples).reshape(height, width * channels))
    grey.save(out, "TIFF", **({"icc_profile": icc} if icc else {}), **({"exif": exif} if exif else {}))
    data = out.getvalue()
    directory = _read_directory(data)
    if directory is None:
        raise ValueError(f"samples: {width}x{height} is too large for a TIFF file")
    if channels == 1:
        return data
    directory.set(WIDTH, _LONG, width)
    directory.set(SAMPLES, _SHORT, channels)
    directory.set(PHOTOMETRIC, _SHORT, _RGB)
    if channels == 4:
        directory.set(EXTRA, _SHORT, _UNASSOCIATED_ALPHA)
    # One depth for each sample: too long for the entry, so it points behind the file.
    data += b"\0" * (len(data) % 2)
    directory.entries[BITS] = struct.pack(directory.order + "HHII", BITS, _SHORT, channels, len(data))
    data += struct.pack(f"{directory.order}{channels}H", *[16] * channels)
    return _with_directory(data, directory)


def _decode_grey(data: bytes, directory: _Directory) -> NDArray[np.uint16]:
    """The samples of a file as those of a grey picture, `[H, W]`; the directory is changed to one."""
    directory.set(BITS, _SHORT, 16)
    directory.set(SAMPLES, _SHORT, 1)
    directory.set(PHOTOMETRIC, _SHORT, _GREY)
    for tag in (PLANAR, EXTRA, FORMAT, ORIENTATION):  # Pillow would turn the grey picture
        directory.entries.pop(tag, None)
    with Image.open(io.BytesIO(_with_directory(data, directory))) as grey:
        return np.asarray(grey).astype(np.uint16)


def _is_plain_rgb16(data: bytes, directory: _Directory) -> bool:
    samples = directory.values(data, SAMPLES, 1)[0]
    predictor, planar = directory.values(data, PREDICTOR, 1)[0], directory.values(data, PLANAR, 1)[0]
    fourth = directory.values(data, EXTRA, _UNASSOCIATED_ALPHA)[0]
    return (
        samples in (3, 4)
        and directory.values(data, PHOTOMETRIC, _GREY)[0] == _RGB
        and set(directory.values(data, BITS, 1)) == {16}
        and set(directory.values(data, FORMAT, 1)) == {UNSIGNED}
        and planar in (1, 2)
        and directory.values(data, COMPRESSION, 1)[0] not in (_OLD_JPEG, _JPEG)
        # In tiles the differences start anew in every tile; those of a plane are undone by libtiff.
        and (predictor == 1 or (predictor == 2 and (planar == 2 or TILE_WIDTH not in directory.entries)))
        and (samples == 3 or fourth in (UNSPECIFIED, _UNASSOCIATED_ALPHA))
    )


def _read_directory(data: bytes) -> _Directory | None:
    """The first directory, None if these bytes are no classic TIFF file."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        return None
    try:
        (at,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, at)
        raw = [data[at + 2 + 12 * i : at + 14 + 12 * i] for i in range(count)]
        entries = {struct.unpack(order + "H10x", entry)[0]: entry for entry in raw}
    except struct.error as error:
        raise ValueError("TIFF file is truncated") from error
    return _Directory(order, entries)


def _with_directory(data: bytes, directory: _Directory) -> bytes:
    """The same file with another first (and last) directory, which is appended."""
    data += b"\0" * (len(data) % 2)  # a directory begins on a word boundary
    entries = [directory.entries[tag] for tag in sorted(directory.entries)]
    tail = struct.pack(directory.order + "H", len(entries)) + b"".join(entries) + b"\0\0\0\0"
    return data[:4] + struct.pack(directory.order + "I", len(data)) + data[8:] + tail
