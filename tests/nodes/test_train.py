"""Train: what comes out, what its settings do, and what it refuses."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from progressive_upsampling.core.chain import Chain
from progressive_upsampling.core.checkpoint import CheckpointError, read_checkpoint
from progressive_upsampling.core.squeezenet import SqueezeNet
from progressive_upsampling.core.train.adversarial import AdversarialConfig
from progressive_upsampling.core.train.config import LossConfig, TrainConfig
from progressive_upsampling.core.train.data_config import DataConfig
from progressive_upsampling.core.train.degradation import RealisticConfig
from progressive_upsampling.core.train.discriminators import DiscriminatorConfig
from progressive_upsampling.core.train.loop import Trainer
from progressive_upsampling.core.train.pictures import PictureBatch, split
from progressive_upsampling.core.train.recipe import read_config
from progressive_upsampling.core.train.strategies import phases_of
from progressive_upsampling.core.train.vgg import LAYERS, random_vgg
from progressive_upsampling.nodes import _training_run
from progressive_upsampling.nodes.progressive_upscale import ProgressiveUpscale
from progressive_upsampling.nodes.save_model import SaveModel
from progressive_upsampling.nodes.training_data import TrainingData
from progressive_upsampling.nodes.training_losses import TrainingLosses

from .conftest import call
from .training import Picture, same, weights


def test_what_comes_out_is_what_the_trainer_makes(
    train: Callable[..., tuple[Any, ...]], chain: Chain, picture: Picture, tmp_path: Path
) -> None:
    before = weights(chain)
    model, curves, samples, folder = train(stages=2, seed=2**32 + 3)
    phases = phases_of("progressive", stages=2, steps=4, weights=2, crop=8, batch=2, learning_rate=1e-3)
    config = TrainConfig(chain=chain.config, phases=phases, seed=3, dtype="fp32", validate_every=2, save_every=200)
    training, validation = split(PictureBatch(picture(66, 71, batch=3).movedim(-1, 1)), 0.1, 0)
    trainer = Trainer(config, training, tmp_path / "run", val=validation, init=chain)
    expected = trainer.run()
    assert same(weights(model), expected.state_dict())
    assert not same(weights(model), before)
    assert same(weights(chain), before)
    assert read_config(Path(folder) / "config.json") == config
    for image in (curves, samples):
        assert image.ndim == 4 and image.shape[-1] == 3
        assert 0 <= image.min() < image.max() <= 1
    torch.testing.assert_close(samples, trainer.samples().movedim(1, -1), atol=0.6 / 255, rtol=0)


def test_a_model_that_learns_from_degraded_pictures_is_not_brought_back_to_them(
    train: Callable[..., tuple[Any, ...]], chain: Chain, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, sheets, asked = picture(66, 71, batch=3), [], []
    measure, glimpse = _training_run.validate, _training_run.Glimpse
    monkeypatch.setattr(_training_run, "validate", lambda *a, **k: asked.append(k["realistic"]) or measure(*a, **k))
    monkeypatch.setattr(_training_run, "Glimpse", lambda *a: asked.append(a[-1]) or glimpse(*a))
    for degradation, expected in (("bicubic", True), ("realistic", False)):
        data, _ = call(TrainingData, images=images, degradation=degradation)
        model, _, samples, _ = train(data=data, steps=1)
        assert chain.config.back_projection and model.config.back_projection is expected
        sheets.append(samples)
    assert not torch.equal(sheets[0][:, :, :256], sheets[1][:, :, :256])  # what the model is given
    assert asked == [None, None, RealisticConfig(), RealisticConfig()]


def test_the_model_is_ready_for_other_nodes_and_known_by_its_origin(
    train: Callable[..., tuple[Any, ...]], chain: Chain, picture: Picture, model_folder: Path
) -> None:
    tiny = copy.deepcopy(chain)
    tiny.provenance = {"name": "tiny"}
    with torch.inference_mode():  # as ComfyUI runs nodes
        model, *_ = train(model=tiny)
        image, _ = call(ProgressiveUpscale, image=picture(), model=model, scale=2.0)
        again, *_ = train(model=model, run_name="again")
    assert image.shape == (1, 42, 68, 3)
    for one in (model, again):
        assert not one.training
        assert not any(p.requires_grad or p.is_inference() for p in one.parameters())
    assert not same(weights(model), weights(again))
    (path,) = call(SaveModel, model=model)
    known = read_checkpoint(path).provenance
    assert (known["steps"], known["pictures"], known["data"]) == (4, 2, ["images"])
    assert (known["recipe"], known["init"]) == ("progressive", "tiny")


def test_inference_mode_changes_nothing(train: Callable[..., tuple[Any, ...]]) -> None:
    plain = train()[0]
    with torch.inference_mode():
        inside = train()[0]
    assert same(weights(plain), weights(inside))


def test_without_losses_those_of_the_node_as_it_stands_count(train: Callable[..., tuple[Any, ...]]) -> None:
    alone = train()
    connected = train(losses=call(TrainingLosses)[0])
    other = train(losses=call(TrainingLosses, pixel="l2", ssim=0.1)[0])
    assert same(weights(alone[0]), weights(connected[0]))
    assert not same(weights(alone[0]), weights(other[0]))
    config = read_config(Path(other[3]) / "config.json")
    assert config.loss == LossConfig(pixel="l2", ssim=0.1)


def test_without_a_model_the_bundled_one_is_trained(
    train: Callable[..., tuple[Any, ...]], default_chain: Chain
) -> None:
    ours, named = train(model=None), train(model=default_chain)
    assert same(weights(ours[0]), weights(named[0]))


def test_adversarial_training_starts_where_it_is_told(train: Callable[..., tuple[Any, ...]], runs: Path) -> None:
    (losses,) = call(TrainingLosses, adversarial=0.005, feature_matching=0.01, adversarial_start=0.5)
    folder = Path(train(losses=losses, crop=24)[3])
    config = read_config(folder / "config.json")
    assert [(phase.adversarial, phase.steps) for phase in config.phases] == [(False, 2), (True, 2)]
    entries = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert ["adversarial" in entry for entry in entries] == [False, False, True, True]


def test_the_trunks_of_the_chosen_files_are_used(
    train: Callable[..., tuple[Any, ...]], chain: Chain, model_folder: Path
) -> None:
    network = random_vgg(seed=1, depth=3)
    layers = zip(network.layers, network.convolutions, strict=True)
    vgg = {f"features.{LAYERS[name]}.{part}": v for name, c in layers for part, v in c.named_parameters()}
    save_file(vgg, model_folder / "vgg.safetensors")
    save_file(SqueezeNet().state_dict(), model_folder / "squeezenet.safetensors")
    chain.save(model_folder / "chain.safetensors")
    (losses,) = call(TrainingLosses, perceptual=0.1, vgg="vgg.safetensors")
    model, _, _, folder = train(losses=losses, squeezenet="squeezenet.safetensors", keep="best_pd")
    assert model.provenance["perceptual_trunk"].startswith("VGG19 from vgg.safetensors (")
    last = json.loads((Path(folder) / "history.jsonl").read_text().splitlines()[-1])
    assert {"x2", "x2_ssim", "x2_pd"} <= last.keys()
    for name in ("chain.safetensors", "nothing.safetensors"):
        with pytest.raises(CheckpointError, match=f"^squeezenet: .*{name}"):
            train(squeezenet=name)


@pytest.mark.slow
def test_every_setting_reaches_the_run(train: Callable[..., tuple[Any, ...]], chain: Chain, picture: Picture) -> None:
    data, _ = call(TrainingData, images=picture(81, 82, batch=2), mixup=0.5, turns=False)
    game = {"gan": "hinge", "discriminator": "unet", "adversarial_start": 0.4}
    (losses,) = call(TrainingLosses, feature_matching=0.1, **game)
    common = {"stages": 2, "steps": 5, "batch": 3, "crop": 24, "learning_rate": 2e-4, "accumulate": 2}
    others = {"earlier_stages": "frozen", "seed": 9, "validate_every": 0, "keep": "best_ssim"}
    _, _, _, folder = train(data=data, losses=losses, **common, **others)
    assert read_config(Path(folder) / "config.json") == TrainConfig(
        chain=chain.config,
        phases=phases_of("progressive", weights=2, earlier="frozen", pixel=0.4, adversarial=True, **common),
        loss=LossConfig(feature_matching=0.1),
        adversarial=AdversarialConfig("hinge", DiscriminatorConfig("unet")),
        data=DataConfig(mixup=0.5, turns=False),
        seed=9,
        dtype="fp32",
        validate_every=0,
        save_every=200,
        select="ssim",
    )
    with pytest.raises(ValueError, match="strategy: expected one of"):
        train(strategy="all")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3599.4, "59:59"), (3600, "1:00:00")]
)
def test_times_are_written_as_clocks_show_them(seconds: float, text: str) -> None:
    assert _training_run.clock(seconds) == text


def test_what_is_something_else_is_refused(train: Callable[..., tuple[Any, ...]], data: Any) -> None:
    with pytest.raises(TypeError, match="data: expected the output of Training Data, got str"):
        train(data="pictures")
    with pytest.raises(TypeError, match="losses: expected the output of Training Losses, got TrainingPictures"):
        train(losses=data)


def test_pictures_too_small_for_the_crops_are_refused(train: Callable[..., tuple[Any, ...]], runs: Path) -> None:
    with pytest.raises(ValueError, match="data: expected pictures of at least 80x80 px for crops of 16 px at factor 4"):
        train(strategy="end_to_end", stages=2, crop=24)
    assert not runs.exists()


def test_the_log_names_no_fault(train: Callable[..., tuple[Any, ...]], caplog: pytest.LogCaptureFixture) -> None:
    train()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
