"""PNG files with 16 bits a sample, which Pillow reduces to 8: decoder and encoder over zlib and numpy.

Source: Portable Network Graphics (PNG) Specification, Third Edition (W3C 2025), sections 5 to 11.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # colour type -> samples a pixel
_COLOUR_TYPES = {channels: kind for kind, channels in _CHANNELS.items()}
# First column and row, then column and row steps, of the seven Adam7 passes (section 8.1).
_ADAM7 = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
)  # fmt: skip
_ENCODE_ROWS = 128


def is_png16(data: bytes) -> bool:
    """Whether these bytes begin a PNG file of 16 bits a sample."""
    return len(data) > 25 and data.startswith(SIGNATURE) and data[12:16] == b"IHDR" and data[24] == 16


def decode_png16(data: bytes) -> NDArray[np.uint16]:
    """Decode a 16-bit PNG file, interlaced or not.

    Args:
        data: the whole file.

    Returns:
        `[H, W, C]` uint16, C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA. A transparent colour (tRNS)
        becomes an alpha channel.

    Raises:
        ValueError: not a 16-bit PNG file, or a damaged one.
    """
    header, key, compressed = b"", b"", []
    for kind, body in _chunks(data):
        if kind == b"IHDR":
            header = body
        elif kind == b"tRNS":
            key = body
        elif kind == b"IDAT":
            compressed.append(body)
    if len(header) != 13:
        raise ValueError("PNG header missing or damaged")
    width, height, bits, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", header)
    if bits != 16 or colour not in _CHANNELS or compression or filtering or interlace > 1:
        raise ValueError(f"not a 16-bit PNG: bits {bits}, colour type {colour}, interlace {interlace}")
    if width == 0 or height == 0:
        raise ValueError(f"PNG of zero size: {width}x{height}")
    samples = _pixels(b"".join(compressed), width, height, _CHANNELS[colour], bool(interlace))
    if len(key) == 2 * samples.shape[2] and samples.shape[2] in (1, 3):
        opaque = (samples != np.frombuffer(key, ">u2")).any(axis=2, keepdims=True)
        samples = np.concatenate([samples, opaque.astype(np.uint16) * np.uint16(65535)], axis=2)
    return samples


def encode_png16(samples: NDArray[np.uint16], icc: bytes | None = None, exif: bytes | None = None) -> bytes:
    """Encode a 16-bit PNG file.

    Args:
        samples: `[H, W, C]` uint16, C as in `decode_png16`.
        icc: an ICC profile to embed.
        exif: an EXIF block to embed (a leading `Exif\\0\\0` is dropped, as PNG wants).

    Returns:
        The whole file.

    Raises:
        ValueError: a shape that PNG cannot hold.
    """
    if samples.ndim != 3 or samples.shape[2] not in _COLOUR_TYPES or 0 in samples.shape:
        raise ValueError(f"samples: expected [H, W, 1 to 4], got {samples.shape}")
    height, width, channels = samples.shape
    header = struct.pack(">IIBBBBB", width, height, 16, _COLOUR_TYPES[channels], 0, 0, 0)
    out = [SIGNATURE, _chunk(b"IHDR", header)]
    if icc:
        out.append(_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc)))
    if exif:
        out.append(_chunk(b"eXIf", exif.removeprefix(b"Exif\0\0")))
    out.append(_chunk(b"IDAT", _compress(samples)))
    out.append(_chunk(b"IEND", b""))
    return b"".join(out)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    if not data.startswith(SIGNATURE):
        raise ValueError("not a PNG file")
    at = len(SIGNATURE)
    while True:
        if at + 12 > len(data):
            raise ValueError("PNG file is truncated")
        length, kind = struct.unpack_from(">I4s", data, at)
        if at + 12 + length > len(data):
            raise ValueError("PNG file is truncated")
        body = data[at + 8 : at + 8 + length]
        (checksum,) = struct.unpack_from(">I", data, at + 8 + length)
        if zlib.crc32(body, zlib.crc32(kind)) != checksum:
            raise ValueError(f"PNG chunk {kind.decode('latin-1')} is damaged (checksum differs)")
        if kind == b"IEND":
            return
        yield kind, body
        at += 12 + length


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))


def _pixels(compressed: bytes, width: int, height: int, channels: int, interlaced: bool) -> NDArray[np.uint16]:
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    grids = [(x, y, dx, dy, -(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes]
    grids = [grid for grid in grids if grid[4] > 0 and grid[5] > 0]
    expected = sum(rows * (1 + 2 * channels * columns) for *_, columns, rows in grids)
    try:
        # Bounded: a few bytes of zlib can otherwise unpack to gigabytes.
        raw = zlib.decompressobj().decompress(compressed, expected)
    except zlib.error as error:
        raise ValueError(f"PNG pixel data is damaged ({error})") from error
    if len(raw) != expected:
        raise ValueError(f"PNG pixel data is truncated: expected {expected} bytes, got {len(raw)}")
    samples = np.empty((height, width, channels), np.uint16)
    at = 0
    for x, y, dx, dy, columns, rows in grids:
        size = rows * (1 + 2 * channels * columns)
        lines = np.frombuffer(raw, np.uint8, size, at).reshape(rows, -1)
        at += size
        unfiltered = _unfilter(lines, columns, 2 * channels)
        samples[y::dy, x::dx] = unfiltered.view(">u2").reshape(rows, columns, channels)
    return samples


def _unfilter(lines: NDArray[np.uint8], columns: int, pixel: int) -> NDArray[np.uint8]:
    """Undo the five row filters (section 9) along anti-diagonals.

    A pixel needs its left, upper and upper left neighbours only, so all pixels of an anti-diagonal are
    independent of each other and numpy does a whole one at once.

    Args:
        lines: `[rows, 1 + columns * pixel]`, the filter type before each row.
        columns: pixels a row.
        pixel: bytes a pixel.

    Returns:
        `[rows, columns * pixel]` uint8.
    """
    rows = lines.shape[0]
    filters = lines[:, :1]
    if filters.max() > 4:
        raise ValueError(f"PNG row filter: expected 0 to 4, got {filters.max()}")
    # One zero row above and one zero pixel to the left of every row stand for the outside.
    padded = np.zeros((rows + 1, columns + 1, pixel), np.uint8)
    padded[1:, 1:] = lines[:, 1:].reshape(rows, columns, pixel)
    flat = padded.reshape(-1, pixel)
    for diagonal in range(rows + columns - 1):
        first, last = max(0, diagonal - columns + 1), min(rows - 1, diagonal)
        start = first * columns + columns + diagonal + 2  # pixel (first, diagonal - first) of the padded grid
        here = slice(start, start + (last - first) * columns + 1, columns)
        left, above, corner = (
            flat[here.start - back : here.stop - back : columns].astype(np.int16)
            for back in (1, columns + 1, columns + 2)
        )
        guess = np.choose(
            filters[first : last + 1],
            [np.zeros_like(left), left, above, (left + above) >> 1, _paeth(left, above, corner)],
        )
        flat[here] += guess.astype(np.uint8)
    return np.ascontiguousarray(padded[1:, 1:]).reshape(rows, columns * pixel)


def _paeth(left: NDArray[np.int16], above: NDArray[np.int16], corner: NDArray[np.int16]) -> NDArray[np.int16]:
    """The Paeth predictor (section 9.4)."""
    to_left, to_above = np.abs(above - corner), np.abs(left - corner)
    to_corner = np.abs(left + above - 2 * corner)
    return np.where(
        (to_left <= to_above) & (to_left <= to_corner), left, np.where(to_above <= to_corner, above, corner)
    )


def _compress(samples: NDArray[np.uint16]) -> bytes:
    """Filter each row by the smallest sum of absolute differences (section 12.7), then deflate."""
    height, width, channels = samples.shape
    packer = zlib.compressobj(6)
    out: list[bytes] = []
    previous = np.zeros((1, width, 2 * channels), np.int16)
    for top in range(0, height, _ENCODE_ROWS):  # in bands: the five candidates are 16-bit copies
        band = np.ascontiguousarray(samples[top : top + _ENCODE_ROWS].astype(">u2"))
        here = band.view(np.uint8).reshape(band.shape[0], width, 2 * channels).astype(np.int16)
        above = np.concatenate([previous, here[:-1]])
        left, corner = _shifted(here), _shifted(above)
        guesses = (0, left, above, (left + above) >> 1, _paeth(left, above, corner))
        candidates = np.stack([(here - guess).astype(np.uint8) for guess in guesses])
        cost = np.abs(candidates.view(np.int8).astype(np.int16)).sum(axis=(2, 3), dtype=np.int64)
        best = cost.argmin(axis=0)
        chosen = candidates[best, np.arange(len(best))].reshape(len(best), -1)
        out.append(packer.compress(np.concatenate([best[:, None].astype(np.uint8), chosen], axis=1).tobytes()))
        previous = here[-1:]
    out.append(packer.flush())
    return b"".join(out)


def _shifted(rows: NDArray[np.int16]) -> NDArray[np.int16]:
    """The left neighbour of every pixel, 0 outside."""
    moved = np.zeros_like(rows)
    moved[:, 1:] = rows[:, :-1]
    return moved
