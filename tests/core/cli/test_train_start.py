"""What a run starts from, and how it goes on."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from progressive_upsampling.core.chain import Chain, ChainConfig
from progressive_upsampling.core.checkpoint import read_checkpoint
from progressive_upsampling.core.cli import train
from progressive_upsampling.core.config import to_dict
from progressive_upsampling.core.train import task
from progressive_upsampling.core.train.config import LossConfig, PhaseConfig, TrainConfig
from progressive_upsampling.core.train.recipe import read_config
from progressive_upsampling.core.upsamplers import load_upsampler

from .conftest import same, weights


def test_a_config_names_what_it_starts_from_and_an_option_what_else(run, config, photos, tmp_path, chain_file):
    init = shutil.copy(chain_file, tmp_path / "mine.safetensors")
    settings = json.loads(config.read_text()) | {"init": str(init)}
    config.write_text(json.dumps(settings))
    options = ["--config", config, "--data", photos, "--steps", "2"]
    assert run("train", *options, "--out", tmp_path / "a")[0] == 0
    assert run("train", *options, "--out", tmp_path / "b", "--init", "birth")[0] == 0
    before, started, born = (
        weights(path) for path in (chain_file, tmp_path / "a/last.safetensors", tmp_path / "b/last.safetensors")
    )
    distance = [max((before[n] - other[n]).abs().max().item() for n in before) for other in (started, born)]
    assert distance[0] < 0.01 < distance[1]
    made = read_config(tmp_path / "a" / "config.json")
    assert made.init == str(init) and read_config(tmp_path / "b" / "config.json").init == ""


@pytest.fixture
def started(run, config, photos, tmp_path, chain_file, monkeypatch):
    """What begins a run, in each of the ways to name the file that it starts from; it is called as a bundled one is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    shutil.copy(chain_file, "mine/default.safetensors")
    settings = json.loads(config.read_text()) | {"init": "mine/default.safetensors"}
    Path("named.json").write_text(json.dumps(settings))
    assert run("train", "--config", "named.json", "--data", photos, "--out", "other")[0] == 0
    return {
        "option": ["--config", config, "--init", "mine/default.safetensors"],
        "config": ["--config", "named.json"],
        "run": ["--config", "other/config.json"],
    }


@pytest.mark.parametrize("way", ["option", "config", "run"])
def test_a_run_killed_before_its_first_save_starts_from_the_same_file_again(
    run, photos, tmp_path, monkeypatch, started, way
):
    with monkeypatch.context() as patch:
        patch.setattr(train.Trainer, "_save", lambda self: None)
        patch.setattr(task, "unrolled_losses", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run("train", *started[way], "--data", photos, "--out", "run")
    assert not Path("run/state.safetensors").exists()
    monkeypatch.chdir(photos)
    assert run("train", "--resume", "--data", photos, "--out", tmp_path / "run")[0] == 0
    assert same(tmp_path / "other/state.safetensors", tmp_path / "run/state.safetensors")


@pytest.mark.parametrize("way", ["option", "config", "run", "resume"])
def test_a_run_with_a_state_goes_on_without_the_file_that_it_started_from(run, photos, tmp_path, started, way):
    first, other = Path("run/config.json"), Path("other/state.safetensors")
    assert run("train", *started["option"], "--data", photos, "--out", "run")[0] == 0
    written = first.read_bytes()
    Path("mine/default.safetensors").unlink()
    again = started.get(way, [])
    status, _, err = run("train", "--resume", *again, "--data", photos, "--out", "run")
    assert (status, err) == (0, "") and same(other, Path("run/state.safetensors")) and first.read_bytes() == written


def test_models_and_state_tell_the_name_of_the_file_that_they_came_from_and_no_path(
    run, photos, held, tmp_path, started
):
    assert run("train", *started["option"], "--data", photos, "--val", held, "--out", "run")[0] == 0
    assert read_config("run/config.json").init == str(tmp_path / "mine/default.safetensors")
    for name in ("last", "best", "state"):
        made = read_checkpoint(f"run/{name}.safetensors")
        assert made.provenance["init"] == "default" and str(tmp_path) not in json.dumps([made.config, made.provenance])


def test_a_bundled_model_is_told_by_its_name_and_shown_when_the_run_goes_on(
    run, config, photos, tmp_path, chain_file, monkeypatch
):
    monkeypatch.setattr(train, "bundled", lambda: ["small"])
    monkeypatch.setattr(train, "resolve", lambda name: chain_file)
    options = ["--data", photos, "--out", tmp_path / "run"]
    assert run("train", "--config", config, "--init", "small", *options)[0] == 0
    assert read_config(tmp_path / "run/config.json").init == "small"
    shown, original = [], train.Trainer

    def trainer(*args, **settings):
        shown.append(settings["init"])
        return original(*args, **settings)

    monkeypatch.setattr(train, "Trainer", trainer)
    assert run("train", "--resume", *options)[0] == 0
    assert isinstance(shown[0], Chain)


def test_a_single_upsampler_starts_from_a_file_of_one(run, photos, tmp_path):
    phase = PhaseConfig(stages=1, steps=2, crop=6, batch=1, warmup=0)
    loss = LossConfig(upsampler=0, refine=0, blind=0, controller=0)
    settings = {"phases": (phase,), "loss": loss, "dtype": "fp32", "validate_every": 0}
    upsampler = {"kind": "fsrcnn", "scale": 3, "d": 4, "s": 2, "m": 1}
    (tmp_path / "c.json").write_text(json.dumps(to_dict(TrainConfig(upsampler=upsampler, **settings))))
    options = ["--config", tmp_path / "c.json", "--data", photos]
    assert run("train", *options, "--out", tmp_path / "a")[0] == 0
    made = tmp_path / "a" / "last.safetensors"
    assert run("train", *options, "--out", tmp_path / "b", "--init", made)[0] == 0
    assert load_upsampler(tmp_path / "b" / "last.safetensors").scale == 3


@pytest.mark.parametrize(
    ("settings", "init", "words"),
    [
        (
            {"upsampler": {"kind": "espcn", "scale": 2}},
            "default",
            "init: expected a model of kind upsampler, .* got default of kind chain",
        ),
        (
            {"upsampler": {"kind": "espcn", "scale": 2}},
            "denoiser",
            "init: expected a model of kind upsampler, .* denoiser of kind denoiser",
        ),
        ({"denoiser": {}}, "espcn_x2", "init: expected a model of kind denoiser, .* got espcn_x2 of kind upsampler"),
        ({"phases": [{"stages": 2, "steps": 1}]}, "espcn_x2", "init: espcn_x2 of kind upsampler is not .* stages 1"),
    ],
)
def test_a_run_of_one_kind_does_not_start_from_another(run, photos, tmp_path, settings, init, words):
    losses = {
        name: 0.0 for name in ("upsampler", "refine", "controller", "blind" if "upsampler" in settings else "output")
    }
    single = {"loss": {**losses, "blind" if "denoiser" in settings else "output": 1.0}} if len(settings) == 1 else {}
    (tmp_path / "one.json").write_text(json.dumps({"phases": [{"stages": 1, "steps": 1}], **single, **settings}))
    options = ["--config", tmp_path / "one.json", "--data", photos, "--init", init, "--out", tmp_path / "run"]
    status, _, err = run("train", *options)
    assert status == 1 and re.search(words, err) and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_chain_in_the_config_that_the_run_does_not_take_is_named(run, config, photos, tmp_path, chain_file):
    settings = json.loads(config.read_text())
    options = ["--data", photos, "--init", chain_file, "--dry-run"]
    for chain, said in ((settings.get("chain"), False), (to_dict(ChainConfig(back_projection=True)), True)):
        (tmp_path / "other.json").write_text(json.dumps(settings | ({"chain": chain} if chain else {})))
        status, _, err = run("train", "--config", tmp_path / "other.json", *options, "--out", tmp_path / "run")
        assert status == 0 and ("config: its chain is not used" in err) is said
