"""`upscale` of folders: what goes together, what is named, and what goes on."""

from __future__ import annotations

import pytest
import torch

from progressive_upsampling.core.chain import Chain
from progressive_upsampling.core.cli import models, upscale
from progressive_upsampling.core.cli.pipeline import Job, grouped
from progressive_upsampling.core.pictures import PictureError, read_picture, write_picture

from .conftest import files


def test_a_folder_becomes_a_folder_of_png_files(run, picture, chain_file, tmp_path):
    write_picture(picture.with_name("other.jpg"), torch.rand(1, 1, 5, 6))
    picture.with_name("notes.txt").write_text("not a picture")
    out = tmp_path / "a" / "b"
    status, _, err = run("upscale", picture.parent, out, "--model", chain_file, "--scale", "2")
    assert status == 0 and err.count("pixels in") == 2
    assert files(out) == ["other.png", "photo.png"]
    assert run("upscale", picture, tmp_path / "single.png", "--model", chain_file, "--scale", "2")[0] == 0
    assert (tmp_path / "single.png").read_bytes() == (out / "photo.png").read_bytes()


def test_unreadable_pictures_of_a_folder_are_named_and_the_others_done(run, picture, tmp_path):
    picture.with_name("broken.png").write_text("text")
    out = tmp_path / "out"
    status, _, err = run("upscale", picture.parent, out, "--model", "bicubic", "--scale", "2")
    assert status == 1 and "broken.png" in err and "1 of 2" in err
    assert files(out) == ["photo.png"]


def test_two_pictures_of_one_stem_are_refused_before_any_work(run, picture, tmp_path):
    write_picture(picture.with_name("PHOTO.jpg"), torch.rand(1, 3, 5, 6))
    status, _, err = run("upscale", picture.parent, tmp_path / "out", "--model", "bicubic")
    assert status == 1 and "photo.png" in err and "PHOTO.jpg" in err
    assert not (tmp_path / "out").exists()


def test_pictures_without_any_content_in_a_folder_are_an_error(run, tmp_path):
    (tmp_path / "empty").mkdir()
    status, _, err = run("upscale", tmp_path / "empty", tmp_path / "out", "--model", "bicubic")
    assert status == 1 and "no pictures" in err and not (tmp_path / "out").exists()


def test_pictures_of_one_size_go_through_the_model_together(run, chain_file, tmp_path, monkeypatch):
    source = tmp_path / "in"
    source.mkdir()
    for number in range(5):
        write_picture(source / f"{number}.png", torch.rand(1, 3, 12, 9))
    write_picture(source / "wide.png", torch.rand(1, 3, 9, 12))
    write_picture(source / "alpha.png", torch.rand(1, 4, 12, 9))
    forward, batches = Chain.forward, []

    def counted(self, image, *args, **kwargs):
        batches.append(tuple(image.shape))
        return forward(self, image, *args, **kwargs)

    monkeypatch.setattr(models.Chain, "forward", counted)
    options = ["--model", chain_file, "--scale", "2", "--dtype", "fp32"]
    status, _, err = run("upscale", source, tmp_path / "out", *options)
    assert status == 0 and err.count("pixels in") == 7
    assert batches == [(5, 3, 12, 9), (1, 4, 12, 9), (1, 3, 9, 12)]
    for path in source.iterdir():
        assert run("upscale", path, tmp_path / "alone.png", *options)[0] == 0
        alone, together = (read_picture(p).image for p in (tmp_path / "alone.png", tmp_path / "out" / path.name))
        assert (alone - together).abs().max() < 1.5 / 255


def test_groups_hold_a_megapixel_of_results_and_keep_the_order_of_names(tmp_path):
    jobs = []
    for name, size in (("a", (10, 10)), ("b", (20, 10)), ("c", (10, 10)), ("d", (10, 10)), ("e", (10, 10))):
        write_picture(tmp_path / f"{name}.png", torch.rand(1, 3, *size))
        jobs.append(Job(tmp_path / f"{name}.png", tmp_path / f"{name}_large.png"))
    (tmp_path / "f.png").write_text("text")
    jobs.append(Job(tmp_path / "f.png", tmp_path / "f_large.png"))
    groups = grouped(jobs, lambda height, width: 400_000 if (height, width) == (10, 10) else 1)
    assert [[job.source.stem for job in group] for group in groups] == [["a", "c"], ["b"], ["d", "e"], ["f"]]


def test_a_picture_that_cannot_be_written_does_not_stop_the_others(run, chain_file, tmp_path, monkeypatch):
    source = tmp_path / "in"
    source.mkdir()
    for number in range(3):
        write_picture(source / f"{number}.png", torch.rand(1, 3, 6, 5))
    write = upscale.write_picture

    def fail_on_the_second(path, *args):
        if path.name == "1.png":
            raise PictureError(f"{path}: no space left")
        write(path, *args)

    monkeypatch.setattr(upscale, "write_picture", fail_on_the_second)
    status, _, err = run("upscale", source, tmp_path / "out", "--model", "bicubic", "--scale", "2")
    assert status == 1 and "1.png: no space left" in err and "1 of 3" in err
    assert files(tmp_path / "out") == ["0.png", "2.png"]


def test_a_target_that_cannot_be_written_fails_its_own_picture_only(run, tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in "abcd":
        write_picture(source / f"{name}.png", torch.rand(1, 3, 12, 12))
    (out / "b.png").mkdir(parents=True)
    status, _, err = run("upscale", source, out, "--model", "bicubic", "--scale", "2")
    errors = [line for line in err.splitlines() if "error:" in line]
    assert status == 1 and len(errors) == 2
    assert f"{out / 'b.png'}: expected a file to write, got a folder" in errors[0] and "1 of 4" in errors[1]
    assert files(out) == ["a.png", "b.png", "c.png", "d.png"]


def test_a_folder_of_any_name_in_output_is_no_matter_where_nothing_of_that_name_is_written(run, picture, tmp_path):
    for name in ("picture.png", "any", "other.png"):
        (tmp_path / "out" / name).mkdir(parents=True)
    status, _, _ = run("upscale", picture.parent, tmp_path / "out", "--model", "bicubic", "--scale", "2")
    assert status == 0 and files(tmp_path / "out") == ["any", "other.png", "photo.png", "picture.png"]


@pytest.mark.parametrize("link", ["out/photo.png", "in/photo.png"])
def test_no_link_makes_a_result_take_the_place_of_an_input(run, picture, tmp_path, link):
    out = tmp_path / "out"
    out.mkdir()
    write_picture(picture.with_name("second.png"), torch.rand(1, 3, 4, 5))
    kept = picture.read_bytes()
    if link.startswith("in"):
        picture.rename(out / "photo.png")
    (tmp_path / link).symlink_to(picture if link.startswith("out") else out / "photo.png")
    status, _, err = run("upscale", picture.parent, out, "--model", "bicubic", "--scale", "2")
    assert status == 1 and err.count("\n") == 1
    assert f"{out / 'photo.png'}: OUTPUT is {picture} (INPUT) itself" in err
    assert picture.read_bytes() == kept and files(out) == ["photo.png"]


def test_no_link_makes_two_results_one(run, picture, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    write_picture(picture.with_name("second.png"), torch.rand(1, 3, 4, 5))
    (out / "photo.png").symlink_to("second.png")
    status, _, err = run("upscale", picture.parent, out, "--model", "bicubic", "--scale", "2")
    assert status == 1 and "photo.png and second.png would both become second.png" in err
    assert files(out) == ["photo.png"]


@pytest.mark.parametrize("mask", ["out/photo.png", "masks/photo.png"])
def test_no_result_of_a_folder_takes_the_place_of_the_mask(run, picture, tmp_path, mask):
    out = tmp_path / "out"
    for folder in (out, tmp_path / "masks"):
        folder.mkdir()
    write_picture(tmp_path / mask, torch.rand(1, 1, 5, 6))
    kept = (tmp_path / mask).read_bytes()
    if mask.startswith("masks"):
        (out / "photo.png").symlink_to(tmp_path / mask)
    options = ["--model", "bicubic", "--scale", "2", "--detail-mask", tmp_path / mask]
    status, _, err = run("upscale", picture.parent, out, *options)
    assert status == 1 and f"{out / 'photo.png'}: OUTPUT is --detail-mask itself" in err
    assert (tmp_path / mask).read_bytes() == kept


def test_no_stage_takes_the_place_of_another_input(run, picture, chain_file, tmp_path):
    other = picture.with_name("photo_stage1_94x66.png")
    write_picture(other, torch.rand(1, 3, 7, 5))
    before = other.read_bytes()
    options = ["--model", chain_file, "--scale", "2", "--save-stages", picture.parent]
    status, _, err = run("upscale", picture.parent, tmp_path / "out", *options)
    assert status == 1 and other.name in err and "1 of 2" in err
    assert other.read_bytes() == before and files(tmp_path / "out") == [other.name]


def test_a_picture_that_memory_does_not_hold_is_named_and_the_others_are_done(run, tmp_path, monkeypatch):
    source = tmp_path / "in"
    source.mkdir()
    for number in range(4):
        write_picture(source / f"{number}.png", torch.full((1, 3, 6, 5), 0.2 * number))
    stages = models.Model.stages

    def short_of_memory(self, image, *args, **kwargs):
        if image.shape[0] > 1 or 0.3 < image.mean() < 0.5:  # the batch, and one of its pictures
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory")
        return stages(self, image, *args, **kwargs)

    monkeypatch.setattr(models.Model, "stages", short_of_memory)
    status, _, err = run("upscale", source, tmp_path / "out", "--model", "bicubic", "--scale", "2")
    assert status == 1 and "2.png: not enough memory" in err and "1 of 4" in err
    assert files(tmp_path / "out") == ["0.png", "1.png", "3.png"]


def test_a_fault_of_the_code_is_not_taken_for_want_of_memory(run, picture, tmp_path, monkeypatch):
    def broken(*_args, **_kwargs):
        raise RuntimeError("sizes do not match")

    monkeypatch.setattr(models.Model, "stages", broken)
    status, _, err = run("upscale", picture.parent, tmp_path / "out", "--model", "bicubic")
    assert status == 1 and "sizes do not match" in err
