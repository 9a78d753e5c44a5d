from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from progressive_upsampling.core.tiff16 import decode_tiff16, encode_tiff16

SIZES = [(33, 47), (1, 1), (257, 129), (3, 700)]


def random(height: int, width: int, channels: int) -> np.ndarray:
    return np.random.default_rng(height + width).integers(0, 65536, (height, width, channels), np.uint16)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [3, 4])
def test_decoding_undoes_encoding(size, channels):
    samples = random(*size, channels)
    decoded = decode_tiff16(encode_tiff16(samples))
    assert decoded is not None and np.array_equal(decoded[0], samples) and decoded[1] == 1


@pytest.mark.parametrize("channels", [3, 4])
def test_other_readers_agree(channels):
    tifffile = pytest.importorskip("tifffile")  # comes with scikit-image
    samples = random(33, 47, channels)
    assert np.array_equal(tifffile.imread(io.BytesIO(encode_tiff16(samples))), samples)
    with tifffile.TiffFile(io.BytesIO(encode_tiff16(samples))) as file:
        assert list(file.pages[0].extrasamples) == [2] * (channels - 3)  # alpha that is not premultiplied


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zlib"},
        {"compression": "zlib", "predictor": True},
        {"tile": (16, 32)},
        {"rowsperstrip": 5},
    ],
)
def test_files_of_other_writers_are_decoded(channels, order, options):
    tifffile = pytest.importorskip("tifffile")
    samples = random(33, 47, channels)
    extra = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
    out = io.BytesIO()
    tifffile.imwrite(out, samples, photometric="rgb", byteorder=order, **options, **extra)
    decoded = decode_tiff16(out.getvalue())
    assert decoded is not None and np.array_equal(decoded[0], samples)


def test_files_of_other_kinds_are_left_to_pillow():
    for image in (
        Image.new("RGB", (4, 4)),
        Image.new("L", (4, 4)),
        Image.fromarray(np.zeros((4, 4), np.uint16)),
    ):
        out = io.BytesIO()
        image.save(out, "TIFF")
        assert decode_tiff16(out.getvalue()) is None
    assert decode_tiff16(b"\x89PNG") is None


@pytest.mark.parametrize(
    ("dtype", "shape", "options"),
    [
        (np.int16, (33, 47, 3), {}),
        (np.float16, (33, 47, 3), {}),
        (np.uint16, (33, 47, 3), {"tile": (16, 32), "compression": "zlib", "predictor": True}),
        (np.uint16, (33, 47, 4), {"extrasamples": ["assocalpha"]}),
        (np.uint16, (33, 47, 4), {"photometric": "separated"}),
    ],
    ids=["signed", "float", "predicted tiles", "premultiplied", "CMYK"],
)
def test_files_of_16_bits_that_are_no_plain_rgb_are_left_to_pillow(dtype, shape, options):
    tifffile = pytest.importorskip("tifffile")
    out = io.BytesIO()
    tifffile.imwrite(out, np.zeros(shape, dtype), **{"photometric": "rgb", **options})
    assert decode_tiff16(out.getvalue()) is None


def test_a_truncated_directory_is_refused():
    data = encode_tiff16(random(9, 9, 3))
    (at,) = struct.unpack_from("<I", data, 4)
    with pytest.raises((ValueError, OSError)):
        decode_tiff16(data[: at + 30])


def test_a_shape_that_is_no_picture_is_refused():
    with pytest.raises(ValueError, match="samples"):
        encode_tiff16(np.zeros((4, 4), np.uint16))
