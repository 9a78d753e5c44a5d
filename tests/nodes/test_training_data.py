"""Training Data: which pictures, what is told of them, and when they are read again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from progressive_upsampling.core.train.data_config import DataConfig
from progressive_upsampling.nodes.training_data import TrainingData

from .conftest import call

Picture = Callable[..., Tensor]


def fill(folder: Path, count: int, side: int = 20) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (side + number, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def fingerprint(**inputs: Any) -> Any:
    return TrainingData.fingerprint_inputs(**({"folder": "", "validation_folder": ""} | inputs))


def test_a_share_is_held_back_and_both_parts_are_told(tmp_path: Path) -> None:
    data, report = call(TrainingData, folder=str(fill(tmp_path / "deep" / "er", 9).parent), validation_share=0.3)
    training, validation = data.open()
    assert {*training.names, *validation.names} == {f"er/{number}.png" for number in range(9)}
    assert len(training) + len(validation) == 9 and len(validation) >= 1
    lines = report.splitlines()
    assert lines[0].startswith(f"{len(training)} to train on, short sides 2")
    assert lines[1].startswith(f"{len(validation)} to validate with, short side")


def test_a_folder_of_its_own_for_validation_leaves_the_others_whole(tmp_path: Path) -> None:
    train, val = fill(tmp_path / "train", 3), fill(tmp_path / "val", 2, side=30)
    data, report = call(TrainingData, folder=str(train), validation_folder=str(val), validation_share=0.5)
    training, validation = data.open()
    assert (len(training), len(validation)) == (3, 2)
    assert report == "3 to train on, short sides 20 to 22 px\n2 to validate with, short sides 30 to 31 px"


def test_what_is_in_the_folder_for_validation_is_not_trained_on_and_told(tmp_path: Path) -> None:
    val = fill(fill(tmp_path / "all", 3) / "val", 2, side=30)
    data, report = call(TrainingData, folder=str(tmp_path / "all"), validation_folder=str(val))
    assert data.open()[0].names == ["0.png", "1.png", "2.png"] and len(data.open()[1]) == 2
    assert report.splitlines()[2:] == ["2 in both folders, not trained on"]
    with pytest.raises(ValueError, match=r"^folder: expected pictures that are not in validation_folder, got 2 that"):
        call(TrainingData, folder=str(val), validation_folder=str(val))


def test_folders_are_found_from_the_input_folder_on_from_home_and_in_quotes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    fill(tmp_path / "pictures", 3)
    assert len(call(TrainingData, folder="~/pictures", validation_share=0.0)[0].open()[0]) == 3
    fill(Path(folder_paths.get_input_directory()) / "mine" / "faces", 2)
    for name in ("mine/faces", " mine ", "'mine'"):
        assert len(call(TrainingData, folder=name, validation_share=0.0)[0].open()[0]) == 2
    quoted = f'"{fill(tmp_path / "with space", 1)}"'
    assert len(call(TrainingData, folder=quoted)[0].open()[0]) == 1


def test_a_single_picture_is_trained_on_and_not_held_back(picture: Picture) -> None:
    data, report = call(TrainingData, images=picture(33, 47))
    training, validation = data.open()
    assert (len(training), validation) == (1, None)
    assert report == "1 to train on, short side 33 px\nnone to validate with"


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_batch_of_images_takes_the_place_of_a_folder(picture: Picture, channels: int) -> None:
    images = picture(33, 47, batch=4, channels=channels)
    with torch.inference_mode():
        data, _ = call(TrainingData, images=images.clone(), validation_share=0.0)
    training, validation = data.open()
    assert (len(training), validation) == (4, None)
    expected = images[..., :3].expand(-1, -1, -1, 3).mul(255).round().byte().numpy()
    assert all(np.array_equal(training[number], expected[number]) for number in range(4))


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = fill(tmp_path, 2)
    for number in range(7):
        (folder / f"broken{number}.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("left out without a word")
    _, report = call(TrainingData, folder=str(folder))
    lines = report.splitlines()
    assert lines[2] == "7 left out:"
    assert [f"broken{number}.jpg: cannot be read" in lines[3 + number] for number in range(5)] == [True] * 5
    assert lines[8:] == ["…"]


def test_settings_reach_the_crops(picture: Picture) -> None:
    settings = {"degradation": "realistic", "mixup": 0.2, "cutblur": 0.3, "flips": False, "turns": False}
    data, _ = call(TrainingData, images=picture(), color_jitter=0.1, **settings)
    assert data.config == DataConfig(jitter=0.1, **settings)
    assert call(TrainingData, images=picture())[0].config == DataConfig()


def test_pictures_come_from_one_place(picture: Picture, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="folder, images: expected pictures from one of the two, got neither"):
        call(TrainingData, folder="  ")
    with pytest.raises(ValueError, match="folder, images: expected pictures from one of the two, got both"):
        call(TrainingData, folder=str(tmp_path), images=picture())
    with pytest.raises(ValueError, match="degradation: expected one of"):
        call(TrainingData, images=picture(), degradation="worse")


def test_folders_that_will_not_do_are_named_by_their_input(picture: Picture, tmp_path: Path) -> None:
    full, empty = fill(tmp_path / "full", 2), tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match=r"^folder: expected a folder, by its whole path or inside .*, got 'nowhere'$"):
        call(TrainingData, folder="nowhere")
    with pytest.raises(ValueError, match=r"^validation_folder: expected a folder, .*, got '0\.png'$"):
        call(TrainingData, images=picture(), validation_folder="0.png")
    with pytest.raises(ValueError, match=r"^folder: expected pictures \("):
        call(TrainingData, folder=str(empty))
    with pytest.raises(ValueError, match=r"^validation_folder: expected pictures \("):
        call(TrainingData, folder=str(full), validation_folder=str(empty))


@pytest.mark.parametrize("argument", ["folder", "validation_folder"])
def test_pictures_are_read_again_when_one_has_changed(tmp_path: Path, argument: str) -> None:
    folder = fill(tmp_path, 2)
    marks = [fingerprint(**{argument: str(folder)})]

    def changed() -> bool:
        marks.append(fingerprint(**{argument: str(folder)}))
        return marks[-1] not in marks[:-1]

    assert not changed()
    fill(folder, 3)
    assert changed()
    (folder / "0.png").unlink()
    assert changed()
    Image.new("RGB", (9, 9)).save(folder / "1.png")
    assert changed()
    (folder / "notes.txt").write_text("of no interest")
    assert not changed()
    (folder / "link").symlink_to(fill(tmp_path.with_name(f"{tmp_path.name}_more"), 1))
    assert changed()
    for name in ("config.json", "history.jsonl", "curves.png"):  # a run in the folder, which Train has begun since
        (folder / name).write_text("{}")
    assert not changed()
    missing = fingerprint(**{argument: str(folder / "nowhere")})
    assert missing != fingerprint(**{argument: str(folder / "nowhere")})  # never taken as unchanged


def test_a_folder_that_comes_through_a_link_does_not_make_the_node_run_again(tmp_path: Path) -> None:
    assert fingerprint(folder=None) == fingerprint(folder=None)  # what ComfyUI tells of a link
    marks = [fingerprint(folder=None, validation_folder=str(fill(tmp_path, count))) for count in (2, 3)]
    assert marks[0] != marks[1]


def test_decoded_pictures_are_not_held_by_the_graph(tmp_path: Path) -> None:
    data, _ = call(TrainingData, folder=str(fill(tmp_path, 3)))
    first, second = data.open()[0], data.open()[0]
    assert first is not second
    assert not any(value is first or value is second for value in vars(data).values())
