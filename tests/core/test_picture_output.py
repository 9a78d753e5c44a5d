"""Writing picture files: refused before any work, whole or not at all."""

from __future__ import annotations

import contextlib
import os
import struct
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image

from progressive_upsampling.core import picture_output
from progressive_upsampling.core.pictures import (
    Picture,
    PictureError,
    PictureWarning,
    check_output,
    read_picture,
    write_atomic,
    write_picture,
)

from .test_pictures import SRGB, empty_folder, noise


@pytest.mark.parametrize("name", ["x", "x.xyz", "x.gif", "x.safetensors"])
def test_an_unknown_output_format_is_refused_before_and_at_writing(tmp_path, name):
    for write in (
        lambda: check_output(tmp_path / name),
        lambda: write_picture(tmp_path / name, noise(2, 2, 3)),
    ):
        with pytest.raises(PictureError, match="ending in"):
            write()
    assert empty_folder(tmp_path)


def test_an_output_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(PictureError, match="does not exist"):
        check_output(tmp_path / "no" / "x.png")


def test_a_folder_as_output_file_is_refused(tmp_path):
    (tmp_path / "x.png").mkdir()
    with pytest.raises(PictureError, match="folder"):
        check_output(tmp_path / "x.png")


def test_a_read_only_file_is_refused_before_any_work(tmp_path, monkeypatch):
    (tmp_path / "x.png").write_bytes(b"old")
    monkeypatch.setattr(picture_output.os, "access", lambda *_: False)  # the administrator may write any file
    with pytest.raises(PictureError, match="the file is read-only"):
        check_output(tmp_path / "x.png")


def test_a_read_only_folder_is_refused_before_any_work(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o555)
    if os.access(folder, os.W_OK):  # the administrator writes anywhere, except where the system refuses
        folder = Path("/proc")
        if not folder.is_dir():
            pytest.skip("nowhere on this machine is read-only to this user")
    with pytest.raises(PictureError, match="cannot be written"):
        check_output(folder / "x.png")


def test_a_picture_too_large_for_the_format_is_refused_before_any_work(tmp_path):
    check_output(tmp_path / "x.png", (20000, 20000))
    with pytest.raises(PictureError, match="16383"):
        check_output(tmp_path / "x.webp", (8, 20000))


def test_a_picture_too_large_for_tiff_s_offsets_is_refused_before_any_work(tmp_path):
    deep, grey = Picture(torch.zeros(1, 3, 1, 1), 16), Picture(torch.zeros(1, 1, 1, 1), grey=True)
    for name, like in (("x.png", deep), ("x.tif", grey), ("x.tif", grey_with_alpha()), ("x.tif", None)):
        check_output(tmp_path / name, (32768, 32768), like)
    with pytest.raises(PictureError, match=r"TIFF holds at most .* got 32768x32768 pixels of 6 bytes"):
        check_output(tmp_path / "x.tif", (32768, 32768), deep)


def test_a_picture_too_large_for_tiff_is_refused_at_writing(tmp_path, monkeypatch):
    monkeypatch.setattr(picture_output, "LARGEST_TIFF", 99)
    write_picture(tmp_path / "x.tif", noise(11, 3, 3))
    with pytest.raises(PictureError, match=r"TIFF holds at most 99 .* got 2x25 pixels of 2 bytes"):
        write_picture(tmp_path / "y.tif", noise(25, 2, 1), bits=16)
    assert not (tmp_path / "y.tif").exists()


def test_a_number_too_large_for_a_format_is_one_clear_line(tmp_path, monkeypatch):
    def too_large(*_: object) -> None:
        raise struct.error("'I' format requires 0 <= number <= 4294967295")

    monkeypatch.setattr(picture_output, "encode_png16", too_large)
    with pytest.raises(PictureError, match=r"x\.png: cannot be encoded as PNG"):
        write_picture(tmp_path / "x.png", noise(2, 2, 3), bits=16)
    assert empty_folder(tmp_path)


def test_checking_leaves_nothing_behind(tmp_path):
    check_output(tmp_path / "x.png", (8, 8))
    picture_output.check_folder(tmp_path)
    assert empty_folder(tmp_path)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(PictureError, match="missing: the folder cannot be written to"):
        picture_output.check_folder(tmp_path / "missing")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "x.png"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(picture_output.os, "replace", full)
    with pytest.raises(PictureError, match="no space left"):
        write_picture(path, noise(8, 8, 3))
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(picture_output.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "x.json", b"{}")
    assert empty_folder(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX")
def test_written_files_have_the_usual_permissions(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    write_picture(tmp_path / "x.png", noise(2, 2, 3))
    assert (tmp_path / "x.png").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(
    "image", [torch.zeros(2, 3, 4, 4), torch.zeros(1, 5, 4, 4), torch.full((1, 3, 4, 4), torch.nan)]
)
def test_what_is_not_one_image_is_refused(tmp_path, image):
    with pytest.raises(ValueError, match="image"):
        write_picture(tmp_path / "x.png", image)
    assert empty_folder(tmp_path)


def grey_with_alpha(icc: bytes | None = None) -> Picture:
    return Picture(noise(4, 5, 2)[:, [0, 0, 0, 1]], grey=True, icc=icc)


def test_grey_with_alpha_becomes_colour_in_a_16_bit_tiff_and_that_is_said(tmp_path):
    like = grey_with_alpha()
    with pytest.warns(PictureWarning, match="grey with alpha as RGBA"):
        write_picture(tmp_path / "x.tif", like.image, like, bits=16)
    back = read_picture(tmp_path / "x.tif")
    assert not back.grey and (back.image - like.image).abs().max() < 1e-6


@pytest.mark.filterwarnings("ignore:.*laid on white")
def test_grey_with_alpha_becomes_a_grey_jpeg(tmp_path):
    like = grey_with_alpha()
    write_picture(tmp_path / "x.jpg", like.image, like)
    with Image.open(tmp_path / "x.jpg") as file:
        assert file.mode == "L"


@pytest.mark.filterwarnings("ignore:.*laid on white")
def test_alpha_beyond_1_is_opaque_in_a_jpeg(tmp_path):
    write_picture(tmp_path / "x.jpg", torch.tensor([0.5, 0.5, 0.5, 1.5]).view(1, 4, 1, 1).expand(-1, -1, 8, 8))
    assert (read_picture(tmp_path / "x.jpg").image * 255 - 128).abs().max() < 1.5


@pytest.mark.parametrize(
    ("name", "bits", "kept"),
    [("x.png", 8, True), ("x.png", 16, True), ("x.tif", 8, True), ("x.tif", 16, False), ("x.webp", 8, False)],
)
@pytest.mark.filterwarnings("ignore:.*grey with alpha as RGBA")
def test_a_profile_that_a_file_cannot_hold_is_said_to_be_left_out(tmp_path, name, bits, kept):
    like = grey_with_alpha(SRGB[:16] + b"GRAY" + SRGB[20:])
    with contextlib.nullcontext() if kept else pytest.warns(PictureWarning, match="is for 'GRAY', not 'RGB': left out"):
        write_picture(tmp_path / name, like.image, like, bits=bits)
    assert read_picture(tmp_path / name).icc == (like.icc if kept else None)


def exif_with_comment(length: int) -> bytes:
    exif = Image.Exif()
    exif[0x8769] = {0x9286: b"ASCII\0\0\0" + b"x" * length}  # a user's comment
    return exif.tobytes()


@pytest.mark.parametrize(("suffix", "kept"), [(".jpg", False), (".png", True), (".webp", True), (".tif", True)])
def test_exif_that_a_format_cannot_hold_does_not_cost_the_picture(tmp_path, suffix, kept):
    like = Picture(torch.rand(1, 3, 4, 5), exif=exif_with_comment(70_000))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        write_picture(tmp_path / f"out{suffix}", like.image, like)
    assert [("EXIF" in str(one.message)) for one in said] == ([] if kept else [True])
    assert (read_picture(tmp_path / f"out{suffix}").exif is not None) == kept


@pytest.mark.parametrize(("length", "kept"), [(65532, True), (65534, False)])
def test_a_jpeg_holds_as_much_exif_as_one_segment(tmp_path, length, kept):
    exif = exif_with_comment(1000 + length - len(exif_with_comment(1000)))
    assert len(exif) == length
    with contextlib.nullcontext() if kept else pytest.warns(PictureWarning, match="this much EXIF data: left out"):
        write_picture(tmp_path / "x.jpg", torch.rand(1, 3, 4, 5), Picture(torch.rand(1, 3, 4, 5), exif=exif))
    assert (read_picture(tmp_path / "x.jpg").exif is not None) == kept
