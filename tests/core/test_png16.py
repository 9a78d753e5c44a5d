from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from progressive_upsampling.core.png16 import SIGNATURE, decode_png16, encode_png16, is_png16

PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def random(height: int, width: int, channels: int) -> np.ndarray:
    return np.random.default_rng(height + width).integers(0, 65536, (height, width, channels), np.uint16)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def file_of(lines: bytes, width: int, height: int, colour: int, interlace: int = 0, extra: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, interlace))
    return SIGNATURE + header + extra + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def filtered(samples: np.ndarray, filters: list[int]) -> bytes:
    """Rows filtered one byte at a time, straight from the text of the specification."""
    height, _, channels = samples.shape
    pixel = 2 * channels
    rows = samples.astype(">u2").view(np.uint8).reshape(height, -1).astype(int)
    out = bytearray()
    for y in range(height):
        out.append(filters[y])
        for i in range(rows.shape[1]):
            a = rows[y, i - pixel] if i >= pixel else 0
            b = rows[y - 1, i] if y else 0
            c = rows[y - 1, i - pixel] if y and i >= pixel else 0
            p = a + b - c
            paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            out.append((rows[y, i] - (0, a, b, (a + b) // 2, paeth)[filters[y]]) % 256)
    return bytes(out)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(33, 47), (1, 1), (257, 129), (3, 700), (130, 1)])
def test_decoding_undoes_encoding(size, channels):
    samples = random(*size, channels)
    assert np.array_equal(decode_png16(encode_png16(samples)), samples)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=9), st.integers(1, 7), st.sampled_from([1, 2, 3, 4]))
def test_all_row_filters_are_decoded(filters, width, channels):
    samples = random(len(filters), width, channels)
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    data = file_of(filtered(samples, filters), width, len(filters), colour)
    assert np.array_equal(decode_png16(data), samples)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 5), (9, 4), (33, 47)])
def test_interlaced_files_are_decoded(size):
    samples = random(*size, 3)
    parts = [samples[y::dy, x::dx] for x, y, dx, dy in PASSES]
    lines = b"".join(filtered(part, [4] * len(part)) for part in parts if part.size)
    assert np.array_equal(decode_png16(file_of(lines, size[1], size[0], 2, interlace=1)), samples)


def test_a_transparent_colour_becomes_alpha():
    samples = np.array([[[1, 2, 3], [1, 2, 4]]], np.uint16)
    key = chunk(b"tRNS", struct.pack(">HHH", 1, 2, 3))
    decoded = decode_png16(file_of(filtered(samples, [0]), 2, 1, 2, extra=key))
    assert decoded[0, :, 3].tolist() == [0, 65535]


def test_a_transparent_colour_of_another_length_is_ignored():
    samples = random(1, 2, 3)
    data = file_of(filtered(samples, [0]), 2, 1, 2, extra=chunk(b"tRNS", b"\0\1"))
    assert np.array_equal(decode_png16(data), samples)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_other_readers_agree(channels):
    samples = random(33, 47, channels)
    with Image.open(io.BytesIO(encode_png16(samples))) as file:
        values = np.asarray(file)
    if channels == 1:
        assert np.array_equal(values, samples[:, :, 0])
    elif channels > 2:  # Pillow keeps the high byte
        assert np.array_equal(values, (samples >> 8).astype(np.uint8))
    else:
        assert np.array_equal(values[:, :, -1], (samples[:, :, 1] >> 8).astype(np.uint8))


def test_smooth_pictures_become_small():
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint16)[:, None, None] * 100, (256, 256, 3))
    assert len(encode_png16(np.ascontiguousarray(ramp))) < ramp.nbytes / 50


def test_the_row_filters_that_pack_best_are_taken():
    walk = np.random.default_rng(0).integers(-40, 41, (128, 128)).cumsum(1).cumsum(0) % 65536
    samples = walk.astype(np.uint16)[:, :, None]
    assert len(encode_png16(samples)) < 0.95 * len(zlib.compress(samples.astype(">u2").tobytes(), 6))


def test_exif_is_stored_without_the_prefix_of_jpeg():
    assert b"eXIfMM\0*" in encode_png16(random(4, 4, 3), exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0")


def test_only_16_bit_png_files_are_recognised():
    out = io.BytesIO()
    Image.new("RGB", (4, 4)).save(out, "PNG")
    assert not is_png16(out.getvalue()) and not is_png16(b"") and is_png16(encode_png16(random(4, 4, 3)))
    assert not is_png16(encode_png16(random(4, 4, 3))[:20])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"GIF89a", "not a PNG"),
        (encode_png16(random(9, 9, 3))[:-20], "truncated"),
        (file_of(b"\0\0\0", 9, 9, 0), "truncated"),
        (file_of(b"\5\0\0", 1, 1, 0), "row filter"),
        (file_of(b"\0\0\0", 1, 1, 3), "not a 16-bit PNG"),
        (file_of(b"", 0, 1, 0), "zero size"),
    ],
)
def test_damaged_files_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        decode_png16(data)


@pytest.mark.parametrize(("at", "value"), [(10, 1), (11, 1), (12, 2)], ids=["compression", "filtering", "interlace"])
def test_a_method_that_is_not_known_is_refused(at, value):
    data = encode_png16(random(9, 9, 3))
    header = bytearray(data[16:29])
    header[at] = value
    with pytest.raises(ValueError, match="not a 16-bit PNG"):
        decode_png16(SIGNATURE + chunk(b"IHDR", bytes(header)) + data[33:])


def test_a_changed_byte_is_noticed():
    data = bytearray(encode_png16(random(9, 9, 3)))
    data[60] ^= 1
    with pytest.raises(ValueError, match="damaged"):
        decode_png16(bytes(data))


def test_a_zlib_bomb_is_not_unpacked():
    bomb = zlib.compress(b"\0" * 50_000_000)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 0, 0, 0, 0))
    data = SIGNATURE + header + chunk(b"IDAT", bomb) + chunk(b"IEND", b"")
    assert decode_png16(data).shape == (1, 1, 1)
