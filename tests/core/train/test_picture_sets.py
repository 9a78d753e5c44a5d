from __future__ import annotations

import logging
from pathlib import Path

import pytest

from progressive_upsampling.core.train.data_config import DataConfig
from progressive_upsampling.core.train.loop import Trainer
from progressive_upsampling.core.train.phase import PhaseConfig
from progressive_upsampling.core.train.picture_sets import open_pictures
from progressive_upsampling.core.train.pictures import PictureFolder, Pictures

from .conftest import noise_picture, save, tiny_config


def opened(data: Path, val: Path | None = None, share: float = 0.0) -> tuple[Pictures, Pictures | None]:
    return open_pictures(data, val, share=share, memory=1 << 20)


@pytest.fixture
def inner(photos) -> Path:
    """A folder for validation inside that of the photos."""
    for name in ("a", "b"):
        save(photos / "val" / f"{name}.png", noise_picture(80, 80))
    return photos / "val"


def test_validation_pictures_inside_the_data_are_not_trained_on_and_counted(photos, inner, caplog):
    with caplog.at_level(logging.WARNING):
        training, validation = opened(photos, inner)
    assert training.names == ["0.png", "1.png", "2.png"] and validation is not None
    assert validation.names == ["a.png", "b.png"]
    assert caplog.messages == ["data: 2 pictures are not trained on, as they are in val"]


def test_they_are_known_by_whatever_path_or_link_they_are_reached(photos, inner, tmp_path, monkeypatch):
    monkeypatch.chdir(photos)
    assert len(opened(Path("."), Path("val/../val"))[0]) == 3
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    (chosen / "one.png").symlink_to(photos / "1.png")
    assert opened(photos, chosen)[0].names == ["0.png", "2.png", "val/a.png", "val/b.png"]


def test_folders_apart_are_taken_as_they_are(photos, held, caplog):
    training, _ = opened(photos, held)
    assert isinstance(training, PictureFolder) and training.fingerprint == PictureFolder(photos, 0).fingerprint
    assert not caplog.messages


def test_both_folders_keep_what_they_decode_within_one_budget(photos, held):
    sizes = [size[0] * size[1] * 3 for folder in (photos, held) for size in PictureFolder(folder, 0).sizes[:1]]
    training, validation = open_pictures(photos, held, share=0, memory=sum(sizes))
    assert validation is not None
    for pictures, index, kept in ((training, 0, True), (validation, 0, True), (training, 1, False)):
        assert (pictures[index] is pictures[index]) is kept


def cut(path: Path) -> Path:
    """Leaves the picture's head."""
    path.write_bytes(path.read_bytes()[:300])
    return path


def test_a_picture_held_back_is_one_that_can_be_decoded(tmp_path, caplog):
    for number in range(8):
        save(tmp_path / "data" / f"{number}.png", noise_picture(80, 80, number))
    _, validation = opened(tmp_path / "data", share=0.1)
    assert validation is not None and len(validation) == 1
    first = validation.names[0]
    cut(tmp_path / "data" / first)
    training, validation = opened(tmp_path / "data", share=0.1)
    assert validation is not None and len(validation) == 1 and validation.names[0] != first
    assert first in training.names and first in caplog.text
    assert validation[0].shape == (80, 80, 3)


def test_two_pictures_of_which_one_is_damaged_hold_none_back(tmp_path):
    for number in range(2):
        save(tmp_path / "data" / f"{number}.png", noise_picture(80, 80, number))
    _, validation = opened(tmp_path / "data", share=0.5)
    assert validation is not None
    cut(tmp_path / "data" / validation.names[0])
    with pytest.raises(ValueError, match="pictures: expected at least 2, to hold one out for validation, got 1"):
        opened(tmp_path / "data", share=0.5)


def test_a_validation_folder_of_damaged_pictures_is_refused_before_the_run(photos, tmp_path):
    for name in ("a.png", "b.png"):
        cut(save(tmp_path / "held" / name, noise_picture(80, 80)))
    with pytest.raises(ValueError, match="val: none of the pictures of held can be decoded"):
        opened(photos, tmp_path / "held")
    save(tmp_path / "held" / "c.png", noise_picture(80, 80))
    assert opened(photos, tmp_path / "held")[1] is not None


def test_of_validation_pictures_that_are_too_small_the_number_is_said(photos, tmp_path, caplog):
    for number, side in enumerate((80, 80, 12)):
        save(tmp_path / "held" / f"{number}.png", noise_picture(side, side))
    Trainer(
        tiny_config(phases=(PhaseConfig(stages=1, steps=1, crop=8, batch=1),)),
        photos,
        tmp_path / "run",
        val=tmp_path / "held",
    )
    assert "phase 1: val: 2 of 3 pictures are measured, the others are too small" in caplog.messages


def test_nothing_left_to_train_on_is_an_error(photos):
    with pytest.raises(ValueError, match="data: expected pictures that are not in val, got 3 that are"):
        opened(photos, photos)


def test_a_trainer_never_sees_them(photos, inner, tmp_path):
    trainer = Trainer(tiny_config(), photos, tmp_path / "run", val=inner)
    assert len(trainer.sampler.pictures) == 3


def test_a_single_picture_is_trained_on_without_validation_and_that_is_said(tmp_path, caplog):
    save(tmp_path / "one" / "a.png", noise_picture(80, 80))
    training, validation = opened(tmp_path / "one", share=0.5)
    assert len(training) == 1 and validation is None
    assert caplog.messages == ["data: there is no validation, as it takes 2 pictures to hold one back, got 1"]


def test_runs_of_any_seed_hold_back_the_same_pictures(tmp_path):
    for number in range(12):
        save(tmp_path / "data" / f"{number}.png", noise_picture(64, 64))
    data = DataConfig(validation=0.4)
    runs = [Trainer(tiny_config(seed=seed, data=data), tmp_path / "data", tmp_path / "run") for seed in range(3)]
    held = [run.validation.names for run in runs if run.validation is not None]
    assert len(held) == 3 and held[0] == held[1] == held[2]
    assert held[0] == opened(tmp_path / "data", share=0.4)[1].names  # as the node does


@pytest.mark.parametrize("seed", range(4))
def test_a_run_holds_back_pictures_that_every_phase_can_use(tmp_path, seed, caplog):
    for number in range(6):
        save(tmp_path / "data" / f"small{number}.png", noise_picture(63, 90))
    save(tmp_path / "data" / "a.png", noise_picture(64, 64))
    config = tiny_config(seed=seed, data=DataConfig(validation=0.5))
    assert Trainer(config, tmp_path / "data", tmp_path / "run").validation is None
    assert "as it takes 2 pictures of at least 64x64 px to hold one back, got 1" in caplog.text
    save(tmp_path / "data" / "b.png", noise_picture(64, 64))
    validation = Trainer(config, tmp_path / "data", tmp_path / "run").validation
    assert validation is not None and len(validation) == 1 and validation.names[0] in ("a.png", "b.png")


@pytest.mark.parametrize("argument", ["data", "val"])
def test_a_folder_that_will_not_do_is_called_by_its_argument(photos, tmp_path, argument):
    with pytest.raises(ValueError, match=f"^{argument}: expected a folder, got .*nowhere"):
        opened(**{"data": photos, "val": None, argument: tmp_path / "nowhere"})
