from __future__ import annotations

import torch
from PIL import Image

from progressive_upsampling.core.model_card import model_card
from progressive_upsampling.core.train.about import About, folders_of, provenance
from progressive_upsampling.core.train.pictures import PictureBatch, PictureFolder, Subset
from progressive_upsampling.core.train.state import Counters

from .conftest import tiny_config


def pictures(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40)).save(path)
    return PictureFolder(folder, memory=0)


def test_pictures_are_counted_by_the_folder_below_the_one_given(tmp_path):
    found = pictures(tmp_path / "all", "T91/a.png", "T91/deep/b.png", "B/c.png", "d.png")
    assert folders_of(found) == {"B": 1, "T91": 2, "all": 1}
    assert folders_of(Subset(found, [0, 1, 3])) == {"B": 1, "T91": 1, "all": 1}
    assert folders_of(pictures(tmp_path / "flat", "a.png", "b.png")) == {}
    assert folders_of(PictureBatch(torch.rand(2, 3, 40, 40))) == {}


def told(tmp_path, counters, validation=None, **about):
    train = pictures(tmp_path / "data", "a.png", "b.png")
    where = (torch.device("cpu"), torch.bfloat16)
    return provenance(About(**about), tiny_config(), counters, train, *where, validation)


def test_a_freshly_trained_model_has_a_whole_card(tmp_path):
    validation = pictures(tmp_path / "val", "c.png")
    counters = Counters(step=3, best=31.5, best_step=2, seconds=90)
    told_of = told(tmp_path, counters, validation, recipe="r", licence="MIT", data_licence="CC0-1.0", command="train")
    card = dict(model_card(told_of)[0])
    needed = {"data", "licence of the data", "validation data", "recipe", "command", "seed", "steps", "time"}
    assert needed | {"hardware", "number format", "torch", "validated", "licence"} <= card.keys()
    assert card["data"] == "data (2 pictures)" and card["validation data"] == "val (1 pictures)"
    assert card["time"] == "2 min" and card["number format"] == "bfloat16"
    assert card["validated"] == "Y-PSNR 31.50 on the validation pictures after 2 steps"
    assert str(tmp_path) not in str(told_of)


def test_without_validation_the_card_says_nothing_of_it(tmp_path):
    found = told(tmp_path, Counters(step=3))
    assert not {"validation", "validated", "folders"} & found.keys()
    assert not {"validated", "validation data"} & dict(model_card(found)[0]).keys()


def test_a_run_that_goes_on_keeps_the_licence_of_its_data():
    kept = About(recipe="mine").completed({"data_licence": "CC0-1.0", "command": "train", "recipe": "other"})
    assert kept == About(recipe="mine", data_licence="CC0-1.0", command="train")
