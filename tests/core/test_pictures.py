from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from progressive_upsampling.core.pictures import (
    Picture,
    PictureError,
    PictureWarning,
    find_pictures,
    read_picture,
    write_picture,
)

SIZES = [(33, 47), (1, 1), (257, 129), (3, 700)]
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LOSSLESS = [".png", ".tif", ".tiff"]


def noise(height: int, width: int, channels: int, top: int = 255) -> torch.Tensor:
    """An image whose values are exactly those of `top + 1` levels."""
    generator = torch.Generator().manual_seed(height * 1000 + width)
    return torch.randint(0, top + 1, (1, channels, height, width), generator=generator).float() / top


def exif_block(orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif[0x0112] = orientation
    exif[0x8769] = {0xA002: 47, 0xA003: 33, 0x9286: b"ASCII\0\0\0comment"}
    exif[0x8825] = {1: "N"}
    return exif.tobytes()


def empty_folder(folder: Path) -> bool:
    return not list(folder.iterdir())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("suffix", LOSSLESS)
def test_lossless_formats_return_what_was_written(tmp_path, size, bits, channels, suffix):
    image = noise(*size, channels, 2**bits - 1)
    path = tmp_path / f"x{suffix}"
    write_picture(path, image, bits=bits)
    back = read_picture(path)
    assert torch.equal(back.image, image)
    assert (back.bits, back.grey) == (bits, channels == 1)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp"])
def test_lossy_formats_return_nearly_what_was_written(tmp_path, suffix):
    smooth = torch.linspace(0, 1, 64).view(1, 1, 1, 64).expand(1, 3, 48, 64).contiguous()
    write_picture(tmp_path / f"x{suffix}", smooth)
    assert (read_picture(tmp_path / f"x{suffix}").image - smooth).abs().max() < 4 / 255


def test_webp_alpha_is_exact(tmp_path):
    image = noise(33, 47, 4)
    write_picture(tmp_path / "x.webp", image)
    assert torch.equal(read_picture(tmp_path / "x.webp").image[:, 3], image[:, 3])


def test_jpeg_keeps_colour_at_full_resolution(tmp_path):
    write_picture(tmp_path / "x.jpg", noise(33, 47, 3))
    with Image.open(tmp_path / "x.jpg") as file:
        assert {layer[1:3] for layer in file.layer} == {(1, 1)}


def test_values_are_clipped_and_rounded_half_up(tmp_path):
    values = torch.tensor([-1.0, 0.0, 0.5, 99.4, 99.5, 100.5, 254.5, 255.0, 300.0]) / 255
    write_picture(tmp_path / "x.png", values.view(1, 1, 1, -1))
    expected = [0, 0, 1, 99, 100, 101, 255, 255, 255]
    assert np.asarray(Image.open(tmp_path / "x.png")).ravel().tolist() == expected


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("bits", [8, 16])
def test_profile_and_exif_survive(tmp_path, suffix, bits):
    like = Picture(noise(4, 4, 3), bits, False, SRGB, exif_block())
    write_picture(tmp_path / f"x{suffix}", noise(66, 94, 3, 2**bits - 1), like)
    back = read_picture(tmp_path / f"x{suffix}")
    assert back.icc == SRGB and back.bits == bits
    exif = Image.Exif()
    exif.load(back.exif or b"")
    assert exif[0x010F] == "Maker" and exif.get_ifd(0x8825)[1] == "N"
    assert exif.get_ifd(0x8769)[0x9286] == b"ASCII\0\0\0comment"


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_profile_and_exif_survive_in_lossy_formats(tmp_path, suffix):
    write_picture(tmp_path / f"x{suffix}", noise(66, 94, 3), Picture(noise(4, 4, 3), 8, False, SRGB, exif_block()))
    back = read_picture(tmp_path / f"x{suffix}")
    assert back.icc == SRGB and back.exif and b"Maker" in back.exif


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_exif_names_the_size_of_the_new_picture(tmp_path, suffix):
    write_picture(tmp_path / f"x{suffix}", noise(66, 94, 3), Picture(noise(33, 47, 3), exif=exif_block()))
    with Image.open(tmp_path / f"x{suffix}") as file:
        details = file.getexif().get_ifd(0x8769)
    assert (details[0xA002], details[0xA003]) == (94, 66)


def test_a_profile_of_another_colour_space_is_left_out_and_said(tmp_path):
    grey_profile = SRGB[:16] + b"GRAY" + SRGB[20:]
    like = Picture(noise(4, 4, 1), grey=True, icc=grey_profile)
    with pytest.warns(PictureWarning, match="the colour profile is for 'GRAY'"):
        write_picture(tmp_path / "colour.png", noise(4, 4, 3), like)
    write_picture(tmp_path / "grey.png", noise(4, 4, 1), like)
    assert read_picture(tmp_path / "colour.png").icc is None
    assert read_picture(tmp_path / "grey.png").icc == grey_profile


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "PNG 16", "TIFF 16"])
def test_orientation_is_applied_once(tmp_path, orientation, kind):
    upright = np.zeros((24, 40), np.uint8)
    upright[:8, :8], upright[:8, -8:] = 255, 128  # top left white, top right grey
    # How a camera stores a picture that needs this orientation to be upright.
    undo = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: np.transpose,
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).T,
        8: lambda a: np.rot90(a, -1),
    }
    stored = np.ascontiguousarray(np.repeat(undo[orientation](upright)[:, :, None], 3, axis=2))
    suffix = "." + kind.split()[0].lower()
    path = tmp_path / f"x{suffix}"
    if kind.endswith("16"):
        from progressive_upsampling.core import png16, tiff16

        encode = png16.encode_png16 if kind.startswith("PNG") else tiff16.encode_tiff16
        path.write_bytes(encode(stored.astype(np.uint16) * 257, None, exif_block(orientation)))
    else:
        Image.fromarray(stored).save(path, exif=exif_block(orientation), **({"quality": 98} if kind == "JPEG" else {}))
    picture = read_picture(path)
    assert picture.image.shape == (1, 3, 24, 40)
    assert (picture.image[0, 0] - torch.from_numpy(upright) / 255).abs().max() < 0.03
    out = tmp_path / f"y{suffix}"
    write_picture(out, picture.image, picture)
    again = read_picture(out)
    assert again.image.shape == (1, 3, 24, 40) and again.exif and b"Maker" in again.exif


def saved(tmp_path: Path, image: Image.Image, name: str, **options: object) -> Picture:
    image.save(tmp_path / name, **options)
    return read_picture(tmp_path / name)


def test_palette_becomes_rgb(tmp_path):
    colour = Image.fromarray(np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8))
    picture = saved(tmp_path, colour.quantize(4), "p.png")
    assert picture.image.shape == (1, 3, 1, 2)
    assert picture.image[0, :, 0, 0].tolist() == [1, 0, 0]


def test_palette_with_transparency_becomes_rgba(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 0), 1)
    picture = saved(tmp_path, image, "p.png", transparency=1)
    assert picture.image.shape == (1, 4, 1, 2)
    assert picture.image[0, 3, 0].tolist() == [1, 0]


def test_black_and_white_becomes_grey(tmp_path):
    picture = saved(tmp_path, Image.fromarray(np.array([[True, False]])), "b.png")
    assert picture.grey and picture.image[0, 0, 0].tolist() == [1, 0]


def test_cmyk_becomes_rgb(tmp_path):
    picture = saved(tmp_path, Image.new("CMYK", (5, 3), (0, 255, 255, 0)), "c.tif")
    assert picture.image.shape == (1, 3, 3, 5)
    assert picture.image[0, :, 0, 0].tolist() == pytest.approx([1, 0, 0], abs=0.02)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.filterwarnings("ignore:.*grey with alpha as RGBA")
def test_grey_with_alpha_stays_that(tmp_path, suffix, bits):
    values = np.stack([np.arange(24), np.arange(24)[::-1] * 9], -1).astype(np.uint8).reshape(4, 6, 2)
    Image.fromarray(values).save(tmp_path / "la.png")
    picture = read_picture(tmp_path / "la.png")
    assert picture.grey and picture.image.shape == (1, 4, 4, 6)
    assert torch.equal(picture.image[:, 0], picture.image[:, 2])
    out = tmp_path / f"out{suffix}"
    if suffix == ".webp" and bits == 16:
        return
    write_picture(out, picture.image, picture, bits=bits)
    back = read_picture(out)
    assert back.image.shape == (1, 4, 4, 6)
    assert (back.image - picture.image).abs().max() < 0.02


def test_16_bit_grey_keeps_its_depth(tmp_path):
    values = np.arange(0, 60000, 1000, dtype=np.uint16).reshape(6, 10)
    for name in ("g.png", "g.tif"):
        picture = saved(tmp_path, Image.fromarray(values), name)
        assert picture.bits == 16 and picture.grey
        assert torch.equal(picture.image[0, 0], torch.from_numpy(values.astype(np.float32)) / 65535)


def test_16_bit_in_an_8_bit_format_is_said(tmp_path):
    with pytest.warns(PictureWarning, match="8 bits"):
        write_picture(tmp_path / "x.jpg", noise(4, 4, 3, 65535), bits=16)


def test_alpha_in_a_jpeg_is_laid_on_white_and_said(tmp_path):
    image = torch.zeros(1, 4, 16, 16)
    image[:, 3, :, :8] = 1
    with pytest.warns(PictureWarning, match="white"):
        write_picture(tmp_path / "x.jpg", image)
    back = read_picture(tmp_path / "x.jpg").image
    assert back[..., :8].max() < 0.05 and back[..., 8:].min() > 0.95


@pytest.mark.parametrize("name", ["a.gif", "a.tif", "a.webp"])
def test_of_several_frames_the_first_is_used_and_said(tmp_path, name):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if name.endswith("webp") else {}
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
    with pytest.warns(PictureWarning, match="first of 2 frames"):
        picture = read_picture(tmp_path / name)
    assert picture.image[0, :3, 0, 0].tolist() == [1, 0, 0]


def jpeg_bytes() -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(out, "JPEG")
    return out.getvalue()


def png16_bytes() -> bytes:
    from progressive_upsampling.core.png16 import encode_png16

    return encode_png16(np.random.default_rng(0).integers(0, 65535, (33, 47, 3), np.uint16))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("text.png", b"this is no picture\n"),
        ("empty.png", b""),
        ("cut.jpg", jpeg_bytes()[:-2000]),
        ("cut16.png", png16_bytes()[:-2000]),
        ("flipped16.png", png16_bytes()[:900] + b"\0" + png16_bytes()[901:]),
        ("header.png", png16_bytes()[:30]),
        ("header.tif", b"II*\0\x08\0\0\0\xff\xff"),
    ],
)
def test_what_is_no_picture_is_one_clear_line(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(PictureError, match=name) as caught:
        read_picture(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing.png", "."])
def test_a_missing_file_or_a_folder_is_one_clear_line(tmp_path, name):
    with pytest.raises(PictureError, match=r"no such file|is a directory|permission"):
        read_picture(tmp_path / name)


def test_floating_point_pictures_are_refused(tmp_path):
    with pytest.raises(PictureError, match="floating-point"):
        saved(tmp_path, Image.fromarray(np.ones((4, 4), np.float32)), "f.tif")


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    write_picture(tmp_path / "x.png", noise(33, 47, 3))
    with pytest.raises(PictureError, match="too large"):
        read_picture(tmp_path / "x.png")


@pytest.mark.parametrize("at", range(6, 60, 6))
@pytest.mark.filterwarnings("ignore::progressive_upsampling.core.pictures.PictureWarning")
def test_damaged_exif_does_not_cost_the_picture(tmp_path, at):
    block = exif_block(6)
    Image.new("RGB", (8, 6), "red").save(tmp_path / "x.jpg", exif=block[:at] + b"\xff" * 6 + block[at + 6 :])
    assert read_picture(tmp_path / "x.jpg").image.shape[1] == 3


def test_exif_that_cannot_be_read_is_left_out_and_said(tmp_path, monkeypatch):
    Image.new("RGB", (8, 6), "red").save(tmp_path / "x.jpg", exif=exif_block())

    def broken(*_: object) -> None:
        raise KeyError("offset")

    monkeypatch.setattr(Image.Image, "getexif", broken)
    with pytest.warns(PictureWarning, match="EXIF"):
        picture = read_picture(tmp_path / "x.jpg")
    assert picture.image.shape == (1, 3, 6, 8) and picture.exif is None


def test_a_folder_lists_its_pictures_by_name(tmp_path):
    for name in ("b.PNG", "a.jpg", "notes.txt", ".hidden.png"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in find_pictures(tmp_path)] == ["a.jpg", "b.PNG"]
    with pytest.raises(PictureError, match="missing"):
        find_pictures(tmp_path / "missing")
