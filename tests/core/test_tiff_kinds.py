"""Kinds of TIFF files that Pillow misreads, or of which it leaves something out without a word."""

from __future__ import annotations

import struct
import warnings

import numpy as np
import pytest

from progressive_upsampling.core.pictures import Picture, PictureError, PictureWarning, read_picture

H, W = 33, 47


def random(channels: int, dtype: type = np.uint16) -> np.ndarray:
    return np.random.default_rng(channels).integers(0, np.iinfo(dtype).max + 1, (H, W, channels), dtype)


def wrote(path, samples: np.ndarray, **options) -> str:
    """A file of these samples, `[H, W, C]`, or `[C, H, W]` where they are to be stored in planes."""
    tifffile = pytest.importorskip("tifffile")  # comes with scikit-image
    tifffile.imwrite(path / "x.tif", samples, **{"photometric": "rgb", **options})
    return str(path / "x.tif")


def read_quietly(path: str) -> Picture:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_picture(path)


def values(picture: Picture, top: int) -> np.ndarray:
    return (picture.image[0].permute(1, 2, 0) * top).round().numpy().astype(np.int64)


def in_planes(samples: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(samples.transpose(2, 0, 1))


def tiff(samples: np.ndarray, photometric: int, tags: dict[int, tuple[int, ...]]) -> bytes:
    """A TIFF file of the planes `[C, H, W]`, not compressed; every tag as LONGs."""
    count, data = len(samples), samples.tobytes()
    size = len(data) // count
    entries: dict[int, tuple[int, ...]] = {
        256: (samples.shape[2],), 257: (samples.shape[1],), 258: (8 * samples.itemsize,) * count, 259: (1,),
        262: (photometric,), 273: tuple(8 + size * i for i in range(count)), 277: (count,), 278: (samples.shape[1],),
        279: (size,) * count, 284: (2,), **tags,
    }  # fmt: skip
    body, fields = b"", b""
    for tag, numbers in sorted(entries.items()):
        packed = struct.pack(f"<{len(numbers)}I", *numbers)
        if len(packed) > 4:
            at = 8 + len(data) + len(body)
            body, packed = body + packed, struct.pack("<I", at)
        fields += struct.pack("<HHI", tag, 4, len(numbers)) + packed
    at = 8 + len(data) + len(body)
    return b"II*\0" + struct.pack("<I", at) + data + body + struct.pack("<H", len(entries)) + fields + b"\0" * 4


# Planes.


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rowsperstrip": 5},
        {"tile": (16, 32)},
        {"compression": "zlib"},
        {"compression": "zlib", "predictor": True, "rowsperstrip": 7},
        {"compression": "zlib", "predictor": True, "tile": (16, 32)},
    ],
)
def test_16_bit_colour_in_planes_keeps_its_depth(tmp_path, channels, order, options):
    samples = random(channels)
    extra = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
    planes = {"planarconfig": "separate", "byteorder": order, **options, **extra}
    picture = read_quietly(wrote(tmp_path, in_planes(samples), **planes))
    assert picture.bits == 16
    np.testing.assert_array_equal(values(picture, 65535), samples)


def test_planes_of_8_bits_are_still_read(tmp_path):
    samples = random(3, np.uint8)
    picture = read_quietly(wrote(tmp_path, in_planes(samples), planarconfig="separate"))
    np.testing.assert_array_equal(values(picture, 255), samples)


def test_16_bit_colour_in_planes_is_turned(tmp_path):
    samples = random(3)
    tags = [(274, "H", 1, 6, True)]
    picture = read_quietly(wrote(tmp_path, in_planes(samples), planarconfig="separate", extratags=tags))
    np.testing.assert_array_equal(values(picture, 65535), np.rot90(samples, -1))


@pytest.mark.parametrize(
    "options",
    [{"extrasamples": ["assocalpha"]}, {"photometric": "separated"}, {"bigtiff": True}],
    ids=["premultiplied", "CMYK", "BigTIFF"],
)
def test_other_planes_of_16_bits_are_refused_by_name(tmp_path, options):
    file = wrote(tmp_path, in_planes(random(3 if "bigtiff" in options else 4)), planarconfig="separate", **options)
    with pytest.raises(PictureError, match="planes of 16 bits a sample, not compressed"):
        read_picture(file)


def test_a_grey_plane_whose_zero_is_white_is_not_read_as_a_negative(tmp_path):
    samples = in_planes(random(1, np.uint8))
    (tmp_path / "x.tif").write_bytes(tiff(samples, 0, {}))
    with pytest.raises(PictureError, match="photometric interpretation 0"):
        read_picture(tmp_path / "x.tif")
    (tmp_path / "x.tif").write_bytes(tiff(samples, 1, {}))
    np.testing.assert_array_equal(values(read_quietly(str(tmp_path / "x.tif")), 255), samples.transpose(1, 2, 0))


@pytest.mark.parametrize("offsets", [(8, 8 + 2 * H * W), (8,) * 4])
def test_planes_that_are_not_all_there_are_refused(tmp_path, offsets):
    (tmp_path / "x.tif").write_bytes(tiff(in_planes(random(3)), 2, {273: offsets}))
    with pytest.raises(PictureError, match="TIFF tag 273: expected values for 3 planes"):
        read_picture(tmp_path / "x.tif")


def test_a_plane_that_is_cut_off_is_refused(tmp_path):
    (tmp_path / "x.tif").write_bytes(tiff(in_planes(random(3)), 2, {273: (8, 8 + 2 * H * W, 10**6)}))
    with pytest.raises(PictureError, match=r"x\.tif: cannot be read"):
        read_picture(tmp_path / "x.tif")


# Signed values.


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32])
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((H, W), {"photometric": "minisblack"}),
        ((H, W), {"photometric": "minisblack", "byteorder": ">"}),
        ((H, W), {"photometric": "minisblack", "bigtiff": True}),
        ((H, W, 3), {}),
        ((H, W, 3), {"byteorder": ">"}),
        ((H, W, 4), {"extrasamples": ["unassalpha"]}),
    ],
)
def test_signed_values_are_refused_by_name(tmp_path, dtype, shape, options):
    file = wrote(tmp_path, np.zeros(shape, dtype), **options)
    with pytest.raises(PictureError, match="pictures of signed values are not supported"):
        read_picture(file)


@pytest.mark.parametrize(
    "data", [b"II*\0", b"MM\0*\0\0\0\x08\0\x05", b"II*\0\x08\0\0\0\x01\0S\x01\x03\0\xff\xff\0\0\xff\xff\0\0"]
)
def test_a_tiff_file_cut_off_in_its_directory_is_no_picture(tmp_path, data):
    (tmp_path / "x.tif").write_bytes(data)
    with pytest.raises(PictureError, match="not a picture"):
        read_picture(tmp_path / "x.tif")


# Further samples.


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib", "predictor": True}])
def test_a_fourth_sample_that_is_not_said_to_be_alpha_is_left_out_and_said_so(tmp_path, dtype, options):
    samples = random(4, dtype)
    file = wrote(tmp_path, samples, extrasamples=["unspecified"], **options)
    with pytest.warns(PictureWarning, match="samples that are neither colour nor alpha are left out"):
        picture = read_picture(file)
    np.testing.assert_array_equal(values(picture, np.iinfo(dtype).max), samples[:, :, :3])


def test_a_fourth_plane_that_is_not_said_to_be_alpha_is_left_out_and_said_so(tmp_path):
    samples = random(4)
    file = wrote(tmp_path, in_planes(samples), planarconfig="separate", extrasamples=["unspecified"])
    with pytest.warns(PictureWarning, match="samples that are neither colour nor alpha are left out"):
        picture = read_picture(file)
    np.testing.assert_array_equal(values(picture, 65535), samples[:, :, :3])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_fourth_sample_that_is_alpha_is_kept(tmp_path, dtype):
    samples = random(4, dtype)
    picture = read_quietly(wrote(tmp_path, samples, extrasamples=["unassalpha"]))
    np.testing.assert_array_equal(values(picture, np.iinfo(dtype).max), samples)


def test_a_fifth_sample_is_left_out_and_said_so(tmp_path):
    samples = random(5, np.uint8)
    file = wrote(tmp_path, samples, extrasamples=["unassalpha", "unspecified"], planarconfig="contig")
    with pytest.warns(PictureWarning, match="samples that are neither colour nor alpha are left out"):
        picture = read_picture(file)
    np.testing.assert_array_equal(values(picture, 255), samples[:, :, :4])
