from __future__ import annotations

from pathlib import Path

import pytest

from progressive_upsampling.core.train.loop import Trainer
from progressive_upsampling.core.train.picture_files import picture_files
from progressive_upsampling.core.train.picture_sets import open_pictures
from progressive_upsampling.core.train.pictures import PictureFolder
from progressive_upsampling.core.train.run_folder import CONFIG, HISTORY

from .conftest import noise_picture, save, tiny_config


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in picture_files(folder)]


@pytest.mark.parametrize("where", [".", "run", "old/run"])
def test_a_run_does_not_learn_from_its_own_pictures(photos, where):
    before = PictureFolder(photos, 0).fingerprint
    Trainer(tiny_config().scaled(3), photos, photos / where).run()
    assert len(list(photos.rglob("*.png"))) == 6  # with curves and two sheets
    assert PictureFolder(photos, 0).fingerprint == before


def test_pictures_with_the_names_of_a_runs_are_pictures_where_there_is_none(tmp_path):
    for name in ("curves.png", "samples/a.png", "run/extra/b.png"):
        save(tmp_path / name, noise_picture(9, 9))
    for name in (CONFIG, HISTORY):
        (tmp_path / "run" / name).write_text("{}")
    assert names(tmp_path) == ["curves.png", "run/extra/b.png", "samples/a.png"]


def test_links_to_folders_are_followed_once_and_never_in_circles(tmp_path):
    data, other = tmp_path / "data", tmp_path / "other"
    for path in (data / "a.png", data / "z" / "b.png", other / "deep" / "c.png"):
        save(path, noise_picture(9, 9))
    before = names(data)
    for name, target in {"again": data / "z", "link": other, "same": other / "deep", "up": tmp_path}.items():
        (data / name).symlink_to(target)
    (other / "deep" / "back").symlink_to(data)
    (data / "gone").symlink_to(tmp_path / "nowhere")
    (data / "one.png").symlink_to(other / "deep" / "c.png")
    assert before == ["a.png", "z/b.png"]
    assert names(data) == ["a.png", "link/deep/c.png", "z/b.png"]
    assert PictureFolder(data, 0).names == names(data)


def test_a_file_that_is_there_itself_and_by_links_comes_once_by_its_own_name(tmp_path):
    data, other = tmp_path / "data", tmp_path / "other"
    for path in (data / "z" / "b.png", data / "z" / "c.png", other / "d.png"):
        save(path, noise_picture(9, 9))
    (data / "all").mkdir()
    for name, target in {
        "all/b.png": data / "z" / "b.png",
        "c.jpg": data / "all" / "c.png",
        "all/c.png": data / "z" / "c.png",
        "all/d.png": other / "d.png",
        "all/e.png": other / "d.png",
    }.items():
        (data / name).symlink_to(target)
    assert names(data) == ["all/d.png", "z/b.png", "z/c.png"]


def test_no_picture_is_trained_on_and_held_back_by_a_link(tmp_path):
    (tmp_path / "data" / "all").mkdir(parents=True)
    for number in range(20):
        path = save(tmp_path / "data" / "flowers" / f"{number}.png", noise_picture(9, 9, number))
        (tmp_path / "data" / "all" / path.name).symlink_to(path)
    training, held = open_pictures(tmp_path / "data", None, share=0.5, memory=0)
    assert held is not None and len(training) + len(held) == 20
    assert not {Path(name).name for name in training.names} & {Path(name).name for name in held.names}


def test_the_order_is_that_of_the_paths(tmp_path):
    for name in ("b.png", "B.png", "a b/x.png", "a/x.png", "a.png", ".hidden/c.JPG"):
        save(tmp_path / name, noise_picture(9, 9))
    expected = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert picture_files(tmp_path) == expected and len(expected) == 6
