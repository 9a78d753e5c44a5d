"""Depths that Pillow leaves half done: what a file means by its numbers, and what of it is lost."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image, features

from progressive_upsampling.core.pictures import PictureWarning, read_picture

VALUES = np.array([[0, 1, 1024, 2047], [2048, 3000, 4094, 4095]], np.uint16)  # of 12 bits


def tiff(width: int, height: int, bits: int, photometric: int, data: bytes, orientation: int = 1) -> bytes:
    """A grey TIFF file of one strip, not compressed; every tag as a LONG."""
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 274: orientation, 277: 1, 278: height}
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in {**tags, 279: len(data)}.items()]
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + b"\0" * 4
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory


def twelve_bits(values: np.ndarray) -> bytes:
    """Rows of an even number of 12-bit samples, two in three bytes."""
    a, b = values.reshape(-1, 2).T
    return np.stack([a >> 4, (a & 15) << 4 | b >> 8, b & 255], axis=1).astype(np.uint8).tobytes()


def grey_png(width: int, bits: int, row: bytes, key: int) -> bytes:
    """A grey PNG file of one row, one grey of which is transparent."""
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, 1, bits, 0, 0, 0, 0)),
        (b"tRNS", struct.pack(">H", key)),
        (b"IDAT", zlib.compress(b"\0" + row)),
        (b"IEND", b""),
    )
    made = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(made)


@pytest.mark.parametrize("orientation", [1, 6])
def test_16_bit_tiff_whose_zero_is_white_is_no_negative(tmp_path, orientation):
    (tmp_path / "x.tif").write_bytes(tiff(4, 2, 16, 0, (65535 - VALUES).astype("<u2").tobytes(), orientation))
    picture = read_picture(tmp_path / "x.tif")
    stored = VALUES if orientation == 1 else np.rot90(VALUES, -1)
    assert picture.bits == 16 and picture.grey
    assert torch.equal(picture.image[0, 0], torch.from_numpy(stored.astype(np.float32)) / 65535)


def test_12_bit_tiff_is_as_light_as_it_is_meant(tmp_path):
    (tmp_path / "x.tif").write_bytes(tiff(4, 2, 12, 1, twelve_bits(VALUES)))
    picture = read_picture(tmp_path / "x.tif")
    assert picture.bits == 16 and picture.grey
    assert (picture.image[0, 0] - torch.from_numpy(VALUES.astype(np.float32)) / 4095).abs().max() < 0.51 / 65535


@pytest.mark.parametrize(
    ("bits", "row", "key"),
    [(1, 0b01000001, 1), (2, 0b00011011, 0), (2, 0b00011011, 1), (2, 0b00011011, 3), (4, 0x7F, 7), (4, 0x7F, 0xF0F)],
)
def test_the_transparent_grey_of_a_png_of_few_bits_is_found(tmp_path, bits, row, key):
    (tmp_path / "x.png").write_bytes(grey_png(8 // bits, bits, bytes([row]), key))
    top = 2**bits - 1
    greys = [row >> shift & top for shift in range(8 - bits, -1, -bits)]
    picture = read_picture(tmp_path / "x.png")
    assert picture.grey
    assert picture.image[0, 0, 0].tolist() == pytest.approx([grey / top for grey in greys])
    assert picture.image[0, 3, 0].tolist() == [float(grey != key & top) for grey in greys]


@pytest.mark.parametrize(
    "head", [b"P6\n2 1\n65535\n", b"P6 2\n# by hand\n1 # 10 bits\n1023 ", b"P3 2 1 256 "], ids=["16", "10", "plain"]
)
def test_colour_of_more_than_8_bits_in_a_ppm_file_is_said_to_be_lost(tmp_path, head):
    samples = b"0 1 2 256 128 3" if head.startswith(b"P3") else np.arange(6, dtype=">u2").tobytes()
    (tmp_path / "x.ppm").write_bytes(head + samples)
    with pytest.warns(PictureWarning, match="PPM of more than 8 bits is read with 8"):
        assert read_picture(tmp_path / "x.ppm").bits == 8


@pytest.mark.parametrize("head", [b"P6 2 1 255 ", b"P6 2 1 # 65535\n15 ", b"P5 2 3 65535 "])
def test_of_other_ppm_files_nothing_is_lost_and_nothing_said(tmp_path, head):
    (tmp_path / "x.ppm").write_bytes(head + bytes(range(12 if head.startswith(b"P5") else 6)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_picture(tmp_path / "x.ppm")


def coded(kind: str, deep: bool) -> bytes:
    """A picture in a format that Pillow reads with 8 bits but cannot write with more, its head changed to say so."""
    file, values = io.BytesIO(), np.random.default_rng(0).integers(0, 256, (32, 40, 3), np.uint8)
    Image.fromarray(values).save(file, kind)
    data = bytearray(file.getvalue())
    if kind == "JPEG2000":
        first = data.index(b"\xff\x51") + 40
        data[first : first + 9 : 3] = bytes([11 if deep else 7]) * 3  # the depth of each component, less 1
    elif deep:  # as a second image's head is, an alpha channel's for one
        data += struct.pack(">I", 20) + b"freeav1C\x81\x0c\x40\x00\0\0\0\0"
    return bytes(data)


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000"])
def test_depth_of_modern_formats_is_said_to_be_lost(tmp_path, kind):
    if not features.check({"AVIF": "avif", "JPEG2000": "jpg_2000"}[kind]):
        pytest.skip(f"this Pillow has no {kind}")
    (tmp_path / "x.bin").write_bytes(coded(kind, deep=True))
    with pytest.warns(PictureWarning, match=f"{kind} of more than 8 bits is read with 8"):
        assert read_picture(tmp_path / "x.bin").bits == 8
    (tmp_path / "x.bin").write_bytes(coded(kind, deep=False))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_picture(tmp_path / "x.bin")


def test_grey_jpeg_2000_keeps_16_bits(tmp_path):
    if not features.check("jpg_2000"):
        pytest.skip("this Pillow has no JPEG 2000")
    values = np.arange(32 * 40, dtype=np.uint16).reshape(32, 40) * 50
    Image.fromarray(values).save(tmp_path / "x.jp2")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = read_picture(tmp_path / "x.jp2")
    assert picture.bits == 16
    np.testing.assert_array_equal((picture.image[0, 0] * 65535).round().numpy(), values)


def test_reading_in_several_threads_leaves_warnings_as_they_were(tmp_path):
    frames = [Image.new("RGB", (300, 300), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(read_picture, [tmp_path / "x.gif"] * 80))
        assert list(warnings.filters) == before
    assert [one.category for one in said] == [PictureWarning] * 80


def test_what_pillow_warns_of_is_not_said(tmp_path, monkeypatch):
    Image.new("RGB", (12, 10), "red").save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(tmp_path / "x.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_picture(tmp_path / "x.png")
