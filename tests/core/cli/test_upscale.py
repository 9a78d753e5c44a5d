from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from progressive_upsampling.core import picture_output
from progressive_upsampling.core.chain import Chain
from progressive_upsampling.core.cli import models, upscale
from progressive_upsampling.core.pictures import read_picture, write_picture
from progressive_upsampling.core.resample import METHODS, resample

from .conftest import files


def levels(image: torch.Tensor) -> torch.Tensor:
    return (image.clamp(0, 1) * 255 + 0.5).floor() / 255


def test_the_command_gives_what_the_chain_gives(run, picture, chain_file, tmp_path):
    options = ["--scale", "3", "--detail", "0.5", "--steps", "2", "--strength", "0.8", "--seed", "7", "--skip", "0.3"]
    out = tmp_path / "out.png"
    status, _, err = run("upscale", picture, out, "--model", chain_file, *options, "--dtype", "fp32")
    assert status == 0 and "47x33 to 141x99" in err
    chain = Chain.from_pretrained(chain_file)
    with torch.no_grad():
        chosen = {"detail": 0.5, "steps": 2, "strength": 0.8, "seed": 7, "skip": 0.3}
        expected = chain(read_picture(picture).image, 3, dtype="fp32", **chosen)
    assert (read_picture(out).image - levels(expected)).abs().max() <= 1.01 / 255
    assert (read_picture(out).image != levels(expected)).float().mean() < 0.001


def test_the_seed_changes_the_picture_and_nothing_else_does(run, picture, chain_file, tmp_path):
    results = []
    for seed, tile in ((1, "auto"), (1, "48"), (2, "auto")):
        out = tmp_path / f"{seed}{tile}.png"
        options = ["--detail", "1", "--steps", "1", "--seed", seed, "--tile", tile, "--dtype", "fp32", "--scale", "2"]
        assert run("upscale", picture, out, "--model", chain_file, *options)[0] == 0
        results.append(read_picture(out).image)
    assert (results[0] - results[1]).abs().max() <= 1.01 / 255
    assert (results[0] - results[2]).abs().max() > 2 / 255


def test_a_grey_picture_limits_where_detail_is_added(run, picture, chain_file, tmp_path):
    mask = torch.zeros(1, 3, 20, 30)
    mask[..., :15] = 1
    write_picture(tmp_path / "mask.png", mask)
    options = ["--model", chain_file, "--scale", "3", "--detail", "0.9", "--steps", "1", "--dtype", "fp32"]
    out = tmp_path / "out.png"
    assert run("upscale", picture, out, *options, "--detail-mask", tmp_path / "mask.png")[0] == 0
    chain = Chain.from_pretrained(chain_file)
    with torch.no_grad():
        image = read_picture(picture).image
        expected = chain(image, 3, detail=0.9, detail_mask=mask[:, :1], steps=1, dtype="fp32")
    assert (read_picture(out).image - levels(expected)).abs().max() <= 1.01 / 255
    assert run("upscale", picture, tmp_path / "all.png", *options)[0] == 0
    assert (read_picture(out).image - read_picture(tmp_path / "all.png").image).abs().max() > 2 / 255


def test_a_missing_mask_is_said_before_anything_runs(run, picture, tmp_path):
    status, _, err = run("upscale", picture, tmp_path / "out.png", "--detail-mask", tmp_path / "none.png")
    assert status == 1 and "none.png" in err
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize("method", METHODS)
def test_plain_methods_need_no_model(run, picture, tmp_path, method):
    out = tmp_path / "out.png"
    assert run("upscale", picture, out, "--model", method, "--size", "101x67")[0] == 0
    expected = resample(read_picture(picture).image, (67, 101), method)
    assert torch.equal(read_picture(out).image, levels(expected))


def test_a_single_network_enlarges_by_its_own_factor(run, picture, network_file, tmp_path):
    assert run("upscale", picture, tmp_path / "a.png", "--model", network_file)[0] == 0
    assert read_picture(tmp_path / "a.png").image.shape[-2:] == (99, 141)


def test_a_single_network_reaches_other_factors(run, picture, network_file, tmp_path):
    assert run("upscale", picture, tmp_path / "a.png", "--model", network_file, "--scale", "4.5")[0] == 0
    assert read_picture(tmp_path / "a.png").image.shape[-2:] == (148, 212)


def test_a_chain_enlarges_eightfold_by_default(run, picture, chain_file, tmp_path):
    assert run("upscale", picture, tmp_path / "a.png", "--model", chain_file)[0] == 0
    assert read_picture(tmp_path / "a.png").image.shape[-2:] == (264, 376)


@pytest.mark.parametrize("size", [(1, 1), (3, 700)])
def test_extreme_pictures_work(run, chain_file, tmp_path, size):
    write_picture(tmp_path / "in.png", torch.rand(1, 3, *size))
    assert run("upscale", tmp_path / "in.png", tmp_path / "out.png", "--model", chain_file, "--scale", "2")[0] == 0
    assert read_picture(tmp_path / "out.png").image.shape[-2:] == (2 * size[0], 2 * size[1])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_format_is_written(run, chain_file, tmp_path, suffix, channels):
    write_picture(tmp_path / "in.png", torch.rand(1, channels, 9, 14))
    out = tmp_path / f"out{suffix}"
    assert run("upscale", tmp_path / "in.png", out, "--model", chain_file, "--scale", "2")[0] == 0
    expected = {".jpg": min(channels, 3), ".webp": max(channels, 3)}.get(suffix, channels)
    assert read_picture(out).image.shape == (1, expected, 18, 28)


def test_16_bits_profile_and_orientation_are_kept(run, chain_file, tmp_path):
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    Image.fromarray(np.zeros((10, 20, 3), np.uint8)).save(tmp_path / "in.jpg", exif=exif, icc_profile=profile)
    assert run("upscale", tmp_path / "in.jpg", tmp_path / "out.png", "--model", chain_file, "--scale", "2")[0] == 0
    out = read_picture(tmp_path / "out.png")
    assert out.image.shape[-2:] == (40, 20) and out.icc == profile and out.exif and b"Maker" in out.exif
    write_picture(tmp_path / "deep.png", torch.rand(1, 3, 8, 8), bits=16)
    assert run("upscale", tmp_path / "deep.png", tmp_path / "deep2.tif", "--model", chain_file, "--scale", "2")[0] == 0
    assert read_picture(tmp_path / "deep2.tif").bits == 16


def test_what_a_format_cannot_hold_is_said(run, picture, tmp_path):
    write_picture(tmp_path / "rgba.png", torch.rand(1, 4, 8, 8))
    status, _, err = run("upscale", tmp_path / "rgba.png", tmp_path / "out.jpg", "--model", "bicubic")
    assert status == 0 and "warning" in err and "white" in err


def test_stages_are_saved(run, picture, chain_file, tmp_path):
    stages = tmp_path / "new" / "stages"
    out = tmp_path / "out.png"
    assert run("upscale", picture, out, "--model", chain_file, "--scale", "3", "--save-stages", stages)[0] == 0
    assert files(stages) == ["photo_stage1_94x66.png", "photo_stage2_141x99.png"]
    assert (stages / "photo_stage2_141x99.png").read_bytes() == out.read_bytes()


@pytest.mark.parametrize("taken", ["INPUT", "OUTPUT", "--compare", "link"])
def test_no_stage_takes_the_place_of_anything_named(run, picture, chain_file, tmp_path, taken):
    source, stages = tmp_path / "in" / "photo_stage1_8x8.png", tmp_path / "in"
    write_picture(source, torch.rand(1, 3, 4, 4))
    stage = stages / "photo_stage1_8x8_stage1_8x8.png"
    out, options = tmp_path / "out.png", []
    if taken == "INPUT":  # the one stage of a picture called so gets its own name
        source, stage = source.rename(stages / "photo.png"), source
        stage.symlink_to(source)
    elif taken == "OUTPUT":
        out = stage
    elif taken == "--compare":
        options = ["--compare", stage]
    else:
        out = stages / "link.png"
        stage.symlink_to(out)
    before = {name: (stages / name).read_bytes() for name in files(stages) if (stages / name).exists()}
    options += ["--model", chain_file, "--scale", "2", "--save-stages", stages]
    status, _, err = run("upscale", source, out, *options)
    assert status == 1 and stage.name in err and "--save-stages" in err
    assert {name: (stages / name).read_bytes() for name in files(stages) if (stages / name).exists()} == before


def test_a_comparison_sheet_is_written(run, picture, chain_file, tmp_path):
    sheet = tmp_path / "sheet.png"
    assert (
        run("upscale", picture, tmp_path / "out.png", "--model", chain_file, "--scale", "2", "--compare", sheet)[0] == 0
    )
    assert read_picture(sheet).image.shape[-1] > 3 * 400


def test_quiet_is_quiet(run, picture, tmp_path):
    assert run("upscale", picture, tmp_path / "out.png", "--model", "bicubic", "--quiet") == (0, "", "")


BAD = {
    "scale 0": (["--scale", "0"], "scale"),
    "scale -1": (["--scale", "-1"], "scale"),
    "scale 1e9": (["--scale", "1e9"], "scale"),
    "scale nan": (["--scale", "nan"], "scale"),
    "size 0": (["--size", "0x10"], "size"),
    "size huge": (["--size", "10x9999999"], "size"),
    "size too wide": (["--size", "200000x5"], "--size: expected WxH, each in 1..131072, got 200000x5\n"),
    "size negative": (["--size", "10x-3"], "size"),
    "detail": (["--detail", "2"], "detail"),
    "strength": (["--strength", "-1"], "strength"),
    "skip": (["--skip", "1.5"], "skip"),
    "seed": (["--seed", "-1"], "seed"),
    "device": (["--device", "abacus"], "--device"),
    "meta device": (["--device", "meta"], "--device"),
    "no such model": (["--model", "nothing"], "nothing"),
    "sheet folder": (["--compare", "/nowhere/at/all/sheet.png"], "sheet.png"),
    "sheet format": (["--compare", "sheet.xyz"], "sheet.xyz"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_option_is_one_line_and_leaves_nothing(run, picture, chain_file, tmp_path, case):
    options, named = BAD[case]
    if "--model" not in options:
        options = [*options, "--model", str(chain_file)]
    before = files(tmp_path)
    stages = tmp_path / "stages"
    status, out, err = run("upscale", picture, tmp_path / "out.png", "--save-stages", stages, *options)
    assert status == 1 and out == "" and err.count("\n") == 1
    assert err.startswith("progressive-upsampling: error:") and named in err
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "content"),
    [("text.png", b"hello"), ("empty.png", b""), ("missing.png", None), ("cut.png", "cut")],
)
def test_a_bad_picture_is_one_line_and_leaves_nothing(run, picture, chain_file, tmp_path, name, content):
    path = picture.with_name(name)
    if content is not None:
        path.write_bytes(picture.read_bytes()[:200] if content == "cut" else content)
    before = files(tmp_path)
    status, _, err = run("upscale", path, tmp_path / "out.png", "--model", chain_file)
    assert status == 1 and err.count("\n") == 1 and name in err
    assert files(tmp_path) == before


def test_a_bad_checkpoint_is_one_line_and_leaves_nothing(run, picture, chain_file, tmp_path):
    (tmp_path / "cut.safetensors").write_bytes(chain_file.read_bytes()[:-1000])
    (tmp_path / "model.pth").write_bytes(b"\x80\x02}q\x00.")
    (tmp_path / "folder.safetensors").mkdir()
    before = files(tmp_path)
    for name in ("cut.safetensors", "model.pth", "folder.safetensors"):
        status, _, err = run("upscale", picture, tmp_path / "out.png", "--model", tmp_path / name)
        assert status == 1 and err.count("\n") == 1 and name in err
    assert files(tmp_path) == before


@pytest.mark.parametrize("name", ["out.gif", "out", "in", "no/folder/out.png"])
def test_an_output_that_cannot_be_written_is_said_before_the_model_is_loaded(run, picture, tmp_path, monkeypatch, name):

    monkeypatch.setattr(upscale, "load_model", lambda *_: pytest.fail("the model was loaded"))
    status, _, err = run("upscale", picture, tmp_path / name)
    assert status == 1 and err.count("\n") == 1 and name in err


def test_a_read_only_output_folder_is_said_before_the_model_is_loaded(run, picture, tmp_path, monkeypatch):

    monkeypatch.setattr(upscale, "load_model", lambda *_: pytest.fail("the model was loaded"))
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    if os.access(folder, os.W_OK):  # the administrator writes anywhere, except where the system refuses
        folder = Path("/proc")
        if not folder.is_dir():
            pytest.skip("nowhere on this machine is read-only to this user")
    status, _, err = run("upscale", picture, folder / "out.png")
    assert status == 1 and "cannot be written" in err and err.count("\n") == 1
    status, _, err = run("upscale", picture.parent, folder / "new")
    assert status == 1 and err.count("\n") == 1


def test_the_input_is_never_overwritten(run, picture, tmp_path):
    before = picture.read_bytes()
    for source, target in ((picture, picture), (picture.parent, picture.parent)):
        status, _, err = run("upscale", source, target, "--model", "bicubic", "--scale", "2")
        assert status == 1 and "INPUT" in err
    assert picture.read_bytes() == before


@pytest.mark.parametrize("broken", [KeyboardInterrupt, MemoryError])
def test_a_run_that_is_cut_short_leaves_nothing(run, picture, chain_file, tmp_path, monkeypatch, broken):
    stages_of = Chain.stages_of

    def cut_short(self, *args, **kwargs):
        def on_step(done: float, total: float, preview: object) -> None:
            if done > total / 2:
                raise broken

        return stages_of(self, *args, **{**kwargs, "on_step": on_step})

    monkeypatch.setattr(models.Chain, "stages_of", cut_short)
    before = files(tmp_path)
    options = ["--model", chain_file, "--save-stages", tmp_path / "stages", "--compare", tmp_path / "sheet.png"]
    status, _, err = run("upscale", picture, tmp_path / "out.png", *options)
    assert status == (130 if broken is KeyboardInterrupt else 1) and err.count("\n") == 1
    assert files(tmp_path) == before


def test_a_picture_too_large_for_its_format_is_said_before_the_model_is_loaded(run, tmp_path, monkeypatch):

    monkeypatch.setattr(upscale, "load_model", lambda *_: pytest.fail("the model was loaded"))
    write_picture(tmp_path / "wide.png", torch.rand(1, 3, 2, 3000))
    status, _, err = run("upscale", tmp_path / "wide.png", tmp_path / "out.webp", "--scale", "8")
    assert status == 1 and "16383" in err
    monkeypatch.setattr(picture_output, "LARGEST_TIFF", 2 * 3000 * 6)
    write_picture(tmp_path / "deep.png", torch.rand(1, 3, 2, 3000), bits=16)
    status, _, err = run("upscale", tmp_path / "deep.png", tmp_path / "out.tif", "--scale", "2")
    assert status == 1 and "6000x4 pixels of 6 bytes" in err


def test_a_result_that_is_too_large_is_said_as_width_and_height(run, tmp_path):
    write_picture(tmp_path / "wide.png", torch.rand(1, 3, 2, 3000))
    status, _, err = run("upscale", tmp_path / "wide.png", tmp_path / "out.png", "--scale", "64", "--model", "bicubic")
    assert status == 1 and "at most 131072 pixels a side, got 192000x128\n" in err


@pytest.mark.parametrize("below", [".", "stages"])
def test_a_file_where_stages_would_go_is_no_folder(run, picture, tmp_path, monkeypatch, below):
    monkeypatch.setattr(upscale, "load_model", lambda *_: pytest.fail("the model was loaded"))
    (tmp_path / "notes.txt").write_text("kept")
    before = files(tmp_path)
    status, _, err = run("upscale", picture.parent, tmp_path / "new", "--save-stages", tmp_path / "notes.txt" / below)
    assert status == 1 and f"{tmp_path / 'notes.txt'}: expected a folder as --save-stages, got a file\n" in err
    assert files(tmp_path) == before


@pytest.mark.parametrize("taken", ["in/photo.png", "out.png", "mask.png"])
def test_a_sheet_takes_no_other_picture_s_place(run, picture, tmp_path, taken):
    write_picture(tmp_path / "mask.png", torch.rand(1, 1, 5, 6))
    kept = {path: path.read_bytes() for path in (picture, tmp_path / "mask.png")}
    sheet = tmp_path / "in" / ".." / taken  # the same file by another name
    options = ["--model", "bicubic", "--detail-mask", tmp_path / "mask.png", "--compare", sheet]
    status, _, err = run("upscale", picture, tmp_path / "out.png", *options)
    assert status == 1 and "--compare is" in err and err.count("\n") == 1
    assert {path: path.read_bytes() for path in kept} == kept and not (tmp_path / "out.png").exists()


def test_the_mask_is_never_overwritten(run, picture, tmp_path):
    write_picture(tmp_path / "mask.png", torch.rand(1, 1, 5, 6))
    status, _, err = run("upscale", picture, tmp_path / "mask.png", "--detail-mask", tmp_path / "mask.png")
    assert status == 1 and "OUTPUT is --detail-mask" in err


def test_options_without_effect_are_said(run, picture, network_file, chain_file, tmp_path):
    options = ["--scale", "2", "--detail", "1", "--steps", "2"]
    status, _, err = run("upscale", picture, tmp_path / "out.png", "--model", network_file, *options)
    assert status == 0 and "--detail, --steps without effect: edsr_x3 is no chain" in err
    status, _, err = run("upscale", picture, tmp_path / "out.png", "--model", chain_file, *options)
    assert status == 0 and "without effect" not in err
