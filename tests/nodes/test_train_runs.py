"""Train as a run: cancelled, resumed, named, shown while it goes on, and its memory given back."""

from __future__ import annotations

import gc
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.model_management as management
import pytest
import torch
from torch import Tensor

from progressive_upsampling.core.chain import Chain
from progressive_upsampling.core.checkpoint import CheckpointError, read_checkpoint
from progressive_upsampling.core.metrics import psnr
from progressive_upsampling.core.pictures import write_picture
from progressive_upsampling.core.train import loop, validate
from progressive_upsampling.core.train.degrade import matlab_imresize
from progressive_upsampling.core.train.loop import Trainer
from progressive_upsampling.core.train.recipe import read_config
from progressive_upsampling.nodes import _runtime, _training_run
from progressive_upsampling.nodes.load_model import LoadModel
from progressive_upsampling.nodes.training_data import TrainingData

from .conftest import call
from .training import Picture, cancel_at, same, weights


@pytest.mark.parametrize("step", [1, 3])
def test_a_cancelled_run_goes_on_as_if_nothing_had_happened(
    step: int, train: Callable[..., tuple[Any, ...]], runs: Path, hook: Any, caplog: pytest.LogCaptureFixture
) -> None:
    whole, _, samples, folder = train(run_name="whole")
    hook(cancel_at(step))
    with torch.inference_mode(), pytest.raises(management.InterruptProcessingException):
        train(run_name="sub/cut")
    assert f"stopped after {step} of 4 steps; to go on: resume on, run_name sub/cut" in caplog.text
    assert read_checkpoint(runs / "sub" / "cut" / "state.safetensors").config["step"] == step
    hook(None)
    with torch.inference_mode():
        resumed = train(run_name="sub/cut", resume=True)
    assert same(weights(whole), weights(resumed[0]))
    assert torch.equal(samples, resumed[2])
    assert Path(resumed[3]) == runs / "sub" / "cut"
    losses = [
        [json.loads(line)["loss"] for line in (Path(path) / "history.jsonl").read_text().splitlines()]
        for path in (folder, resumed[3])
    ]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("number", [1, 4], ids=["before the first step", "in the run"])
def test_cancel_takes_effect_between_the_pictures_of_a_validation(
    number: int, train: Callable[..., tuple[Any, ...]], picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, _ = call(TrainingData, images=picture(66, 71, batch=4), validation_share=0.5)
    assert len(data.open()[1]) == 3
    measured, real = 0, validate.subject

    def subject(*arguments: Any) -> Any:
        nonlocal measured
        measured += 1
        if measured == number:  # the first of three pictures, both times
            management.interrupt_current_processing()
        return real(*arguments)

    monkeypatch.setattr(validate, "subject", subject)
    with pytest.raises(management.InterruptProcessingException):
        train(data=data)
    assert measured == number


def test_cancel_does_not_wait_for_a_preview(
    train: Callable[..., tuple[Any, ...]], hook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, real = 0, _training_run.Glimpse.sheet

    def sheet(*arguments: Any) -> Tensor:
        nonlocal shown
        shown += 1
        return real(*arguments)

    monkeypatch.setattr(_training_run, "PREVIEW_SECONDS", 0.0)
    monkeypatch.setattr(_training_run, "PREVIEW_SHARE", 1e9)
    monkeypatch.setattr(_training_run.Glimpse, "sheet", sheet)
    hook(cancel_at(3))
    with pytest.raises(management.InterruptProcessingException):
        train()
    assert shown == 3  # before the first step, and after the two before the click


def test_a_finished_run_is_not_run_again(
    train: Callable[..., tuple[Any, ...]], hook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train()
    heard: list[float] = []
    hook(lambda value, *_, **__: heard.append(value))
    for name in ("samples", "_validate", "train_step"):
        monkeypatch.setattr(Trainer, name, lambda *_: pytest.fail("done again"))
    monkeypatch.setattr(_training_run, "validate", lambda *_, **__: pytest.fail("measured again"))
    second = train(resume=True)
    assert heard == [0, 4]
    assert same(weights(first[0]), weights(second[0]))
    assert torch.equal(first[2], second[2])


@pytest.mark.slow
def test_a_new_run_never_touches_another(train: Callable[..., tuple[Any, ...]], runs: Path) -> None:
    folders = [Path(train(run_name="mine", seed=seed)[3]) for seed in (1, 2, 3)]
    assert folders == [runs / "mine", runs / "mine_2", runs / "mine_3"]
    assert read_config(folders[0] / "config.json").seed == 1
    assert Path(train(run_name="other", resume=True)[3]) == runs / "other"


def test_other_settings_do_not_go_on_with_a_run(train: Callable[..., tuple[Any, ...]]) -> None:
    train()
    with pytest.raises(
        CheckpointError, match=r"^resume: .*different: seed; go on with the settings .*or switch resume"
    ):
        train(resume=True, seed=1)


@pytest.mark.parametrize("name", ["", "..", "../up", "/tmp/run", "what?"])
def test_run_names_that_lead_astray_are_refused(name: str, train: Callable[..., tuple[Any, ...]], runs: Path) -> None:
    with pytest.raises(ValueError, match="run_name: expected"):
        train(run_name=name)
    assert not runs.exists()


def test_the_best_model_is_kept_if_asked_for(
    train: Callable[..., tuple[Any, ...]], picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = [1.0, 3.0, 2.0, 2.5] * 2
    monkeypatch.setattr(loop, "score", lambda *_: scores.pop(0))
    said: list[str] = []
    monkeypatch.setattr(_runtime, "say", said.append)
    last, _, _, folder = train(validate_every=1)
    with torch.inference_mode():
        best, *_ = train(validate_every=1, keep="best_psnr")
    assert not any(parameter.is_inference() for parameter in best.parameters())
    head, figures = said[-1].splitlines()
    assert head.endswith(", kept that of step 2")
    second = json.loads((Path(folder) / "history.jsonl").read_text().splitlines()[1])
    assert figures.endswith(f" → {second['x2']:.2f} dB")
    stored = Chain.from_pretrained(Path(folder) / "best.safetensors")
    assert (last.provenance["steps"], best.provenance["steps"]) == (4, 2)
    assert same(weights(best), weights(stored))
    assert not same(weights(last), weights(best))
    single = call(TrainingData, images=picture(66, 71))[0]
    with pytest.raises(ValueError, match="keep: expected last where there are no pictures to validate with, got best"):
        train(data=single, keep="best_psnr")
    with pytest.raises(ValueError, match="squeezenet: expected a file"):
        train(keep="best_pd")


def test_the_models_of_runs_are_offered_as_long_as_they_are_there(
    train: Callable[..., tuple[Any, ...]], runs: Path
) -> None:
    model, *_ = train(run_name="sub/offered")

    def offered() -> set[str]:
        (port,) = LoadModel.GET_SCHEMA().inputs
        return {name for name in port.options if "offered" in name}

    assert offered() == {"output/sub/offered/last.safetensors", "output/sub/offered/best.safetensors"}
    (loaded,) = call(LoadModel, model_name="output/sub/offered/last.safetensors")
    assert same(weights(loaded), weights(model))
    with pytest.raises(CheckpointError, match="no such model"):
        call(LoadModel, model_name="output/sub/offered/state.safetensors")
    shutil.rmtree(runs)  # as people tidy up their output
    assert offered() == set()
    with pytest.raises(CheckpointError, match="no such model"):
        call(LoadModel, model_name="output/sub/offered/last.safetensors")


def test_pictures_too_small_for_a_run_are_not_held_back(train: Callable[..., tuple[Any, ...]], tmp_path: Path) -> None:
    for number in range(6):
        write_picture(tmp_path / f"{number}.png", torch.rand(1, 3, 14 if number else 66, 71))
    data, report = call(TrainingData, folder=str(tmp_path), validation_share=0.5)
    assert "to validate with" in report
    folder = Path(train(data=data, steps=1)[3])
    assert not (folder / "best.safetensors").exists()  # the one that is large enough is trained on


def test_too_little_memory_is_explained_and_given_back(
    train: Callable[..., tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise management.OOM_EXCEPTION("CUDA out of memory. Tried to allocate 2 GiB.\nGPU 0 has more to say")

    given: list[bool] = []
    monkeypatch.setattr(management, "soft_empty_cache", lambda *_: given.append(no_trainer()))
    monkeypatch.setattr(Trainer, "train_step", fail)
    told = r"^batch 2, crop 8, accumulate 1: too much .* lower batch, crop or stages \(CUDA .* 2 GiB\.\)$"
    with pytest.raises(management.OOM_EXCEPTION, match=told):
        train()
    assert given[-1]


def no_trainer() -> bool:
    """Whether no trainer is alive."""
    return not any(type(thing) is Trainer for thing in gc.get_objects())


@pytest.mark.parametrize("cancelled", [False, True])
def test_nothing_of_a_run_stays_in_memory(
    cancelled: bool, train: Callable[..., tuple[Any, ...]], hook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[bool] = []
    monkeypatch.setattr(management, "soft_empty_cache", lambda *_: given.append(no_trainer()))
    if cancelled:
        hook(cancel_at(2))
        with pytest.raises(management.InterruptProcessingException):
            train()
    else:
        train()
    assert given[-1]


def test_other_models_leave_the_device_first(train: Callable[..., tuple[Any, ...]], chain: Chain) -> None:
    _runtime.load([chain], 0)
    train()
    known = management.loaded if hasattr(management, "loaded") else management.current_loaded_models
    assert len(known) == 0


def test_the_bar_moves_by_steps_and_previews_by_time(
    train: Callable[..., tuple[Any, ...]], hook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[tuple[float, float, Any]] = []
    hook(lambda value, total, preview, **_: heard.append((value, total, preview)))
    train(steps=6)
    assert [report[:2] for report in heard] == [*((step, 6) for step in range(7)), (6, 6)]
    assert [preview is not None for *_, preview in heard] == [True, *[False] * 6, True]  # the last is the samples
    heard.clear()
    monkeypatch.setattr(_training_run, "PREVIEW_SECONDS", 0.0)
    monkeypatch.setattr(_training_run, "PREVIEW_SHARE", 1e9)
    samples = train(steps=6)[2]
    assert all(preview is not None for *_, preview in heard)
    kind, shown, _ = heard[-1][2]
    assert (kind, shown.mode, shown.size) == ("JPEG", "RGB", (samples.shape[2], samples.shape[1]))


@pytest.mark.slow
def test_previews_take_no_more_than_their_share_of_the_time(
    train: Callable[..., tuple[Any, ...]], hook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, spent = 0.0, 0.0
    real = _training_run.Glimpse.sheet

    def sheet(*arguments: Any) -> Tensor:
        nonlocal now, spent
        now, spent = now + 2.0, spent + 2.0  # as on a slow CPU
        return real(*arguments)

    def step(value: float, *_: Any, **__: Any) -> None:
        nonlocal now
        now += 1.0

    monkeypatch.setattr(_training_run.Glimpse, "sheet", sheet)
    monkeypatch.setattr(_training_run.time, "monotonic", lambda: now)
    hook(step)
    train(steps=200, validate_every=0, batch=1)
    during = spent - 2.0  # without the one before the first step
    assert 3 * 2.0 <= during <= 1.1 * _training_run.PREVIEW_SHARE * now


def test_the_node_tells_how_far_it_is_and_what_was_measured(
    train: Callable[..., tuple[Any, ...]], data: Any, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(_runtime, "say", said.append)
    monkeypatch.setattr(_training_run, "TEXT_SECONDS", 0.0)
    model, *_ = train()
    first, second, one, two, *_, last, result = said
    assert (first, second) == ("getting ready", "measuring the model as it is on 1 pictures")
    assert one.startswith("step 1 of 4\noutput 0.")
    assert re.fullmatch(
        r"step 2 of 4, \d\.\d\d s each, 0:0\d left\noutput 0\.\d{4}, ×2 \d\d\.\d\d → \d\d\.\d\d dB", two
    )
    head, measured = result.splitlines()
    assert re.fullmatch(r"training: 4 steps in 0:0\d", head)
    assert last.endswith(f", {measured}")
    image = data.source[data.open()[1].indices[0]]
    assert measured.startswith(f"×2 {_psnr(chain, image):.2f} → {_psnr(model, image):.2f} dB")


def test_figures_of_other_scales_are_not_compared(
    train: Callable[..., tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(_runtime, "say", said.append)
    monkeypatch.setattr(_training_run, "TEXT_SECONDS", 0.0)
    train(stages=2, validate_every=1)
    _, _, *steps, _ = said
    for step in steps[:2]:  # of the first phase, with one stage
        assert re.search(r", ×2 \d\d\.\d\d dB$", step)
    for step in steps[2:]:
        assert re.search(r", ×2 \d\d\.\d\d → \d\d\.\d\d dB, ×4 \d\d\.\d\d → \d\d\.\d\d dB$", step)


def _psnr(model: Chain, picture: Any) -> float:
    """Of the picture, by the protocol of the benchmarks."""
    truth = torch.from_numpy(picture).movedim(-1, 0)[None]
    truth = truth[..., : truth.shape[2] // 2 * 2, : truth.shape[3] // 2 * 2]
    small = matlab_imresize(truth, scale=0.5).float() / 255
    return float(psnr(model(small, scale=2, dtype="fp32"), truth.float() / 255, crop=2))


def test_a_run_that_goes_on_with_other_pictures_says_so(
    train: Callable[..., tuple[Any, ...]], picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(_runtime, "say", said.append)
    train(run_name="mine")
    train(run_name="mine", resume=True)
    assert "not those that the run was started with" not in said[-1]
    other = call(TrainingData, images=picture(96, 96, batch=3, seed=7))[0]
    train(run_name="mine", resume=True, data=other)
    assert said[-1].endswith("the pictures are not those that the run was started with")
