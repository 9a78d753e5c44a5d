from __future__ import annotations

from pathlib import Path

import pytest

from progressive_upsampling.core.train.loop import Trainer
from progressive_upsampling.core.train.picture_files import picture_files
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
