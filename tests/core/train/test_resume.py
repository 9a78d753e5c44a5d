"""Runs that are stopped, killed or broken off go on as if nothing had been."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from progressive_upsampling.core.checkpoint import CheckpointError, read_checkpoint
from progressive_upsampling.core.train import loop, task
from progressive_upsampling.core.train.history import read_history
from progressive_upsampling.core.train.loop import Trainer
from progressive_upsampling.core.train.run_folder import BEST, HISTORY, LAST, STATE

from .conftest import save, soft_picture, tiny_config
from .runs import Stop, assert_same_run, files_of, same, stop_at, weights


@pytest.mark.parametrize(("dtype", "optimizer"), [("fp32", "adam"), ("bf16", "adam"), ("fp32", "muon")])
def test_a_run_stopped_after_every_step_is_the_run_never_stopped(photos, held, tmp_path, dtype, optimizer):
    config = tiny_config(dtype=dtype, optimizer=optimizer)
    Trainer(config, photos, tmp_path / "a", val=held).run()
    for step in range(1, 6):
        with pytest.raises(Stop):
            Trainer(config, photos, tmp_path / "b", val=held, on_step=stop_at(step)).run(resume=True)
    Trainer(config, photos, tmp_path / "b", val=held).run(resume=True)
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_a_killed_run_goes_on_from_its_last_save(photos, held, straight, tmp_path, monkeypatch):
    run = tmp_path / "killed"
    with monkeypatch.context() as patch:
        save_as_ever = Trainer._save
        patch.setattr(Trainer, "_save", lambda self: None if self.step == 5 else save_as_ever(self))
        with pytest.raises(Stop):  # after step 5, of which only the history knows
            Trainer(tiny_config(), photos, run, val=held, on_step=stop_at(5)).run()
    assert read_checkpoint(run / STATE).config["step"] == 4 and len(read_history(run / HISTORY)) == 5
    Trainer(tiny_config(), photos, run, val=held).run(resume=True)
    assert_same_run(straight, run)


@pytest.mark.parametrize("where", ["forward", "optimizer", "ema"])
def test_a_run_broken_off_inside_a_step_is_never_saved_half(photos, held, straight, tmp_path, monkeypatch, where):
    run = tmp_path / "broken"
    trainer = Trainer(tiny_config(), photos, run, val=held)
    calls = 0

    def breaking(original):
        def call(*args, **options):
            nonlocal calls
            calls += 1
            if calls == 4:
                if where == "optimizer":  # some weights have moved already
                    next(iter(trainer.model.parameters())).data.add_(1.0)
                raise KeyboardInterrupt
            return original(*args, **options)

        return call

    if where == "forward":
        monkeypatch.setattr(task, "unrolled_losses", breaking(task.unrolled_losses))
    elif where == "optimizer":
        monkeypatch.setattr(torch.optim.Adam, "step", breaking(torch.optim.Adam.step))
    else:
        monkeypatch.setattr(loop.EMA, "update", breaking(loop.EMA.update))
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    monkeypatch.undo()
    assert read_checkpoint(run / STATE).config["step"] == (3 if where == "forward" else 2)
    Trainer(tiny_config(), photos, run, val=held).run(resume=True)
    assert_same_run(straight, run)


def test_a_run_stopped_while_it_validates_validates_again(photos, held, straight, tmp_path):
    polled = 0

    def poll() -> None:
        nonlocal polled
        polled += 1
        if polled == 5:
            raise Stop

    run = tmp_path / "stopped"
    with pytest.raises(Stop):
        Trainer(tiny_config(), photos, run, val=held, poll=poll).run()
    assert "x2" not in read_history(run / HISTORY)[-1] and len(read_history(run / HISTORY)) == 4
    Trainer(tiny_config(), photos, run, val=held).run(resume=True)
    assert_same_run(straight, run)


@pytest.mark.parametrize("file", [STATE, LAST])
def test_a_run_that_dies_in_its_last_save_has_its_last_model_after_all(photos, held, straight, tmp_path, file):
    run = tmp_path / "killed"
    trainer = Trainer(tiny_config(), photos, run, val=held)
    with pytest.MonkeyPatch.context() as patch:

        def die(*arguments: object) -> None:
            if trainer.step == 6 and any(value == run / file for value in arguments if isinstance(value, Path)):
                trainer.saved = 6  # a dead process saves nothing on its way out
                raise Stop
            original(*arguments)

        original = loop.save_state if file == STATE else trainer.task.save
        patch.setattr(*((loop, "save_state") if file == STATE else (trainer.task, "save")), die)
        with pytest.raises(Stop):
            trainer.run()
    Trainer(tiny_config(), photos, run, val=held).run(resume=True)
    assert_same_run(straight, run)
    assert read_checkpoint(run / LAST).provenance["steps"] == 6


@pytest.mark.parametrize("step", [4, 6])
def test_what_a_validation_done_again_has_found_is_saved_at_once(photos, held, tmp_path, monkeypatch, step):
    def poll() -> None:
        if trainer.step == step:
            raise Stop

    run = tmp_path / "stopped"
    trainer = Trainer(tiny_config(), photos, run, val=held, poll=poll)
    with pytest.raises(Stop):
        trainer.run()
    state = read_checkpoint(run / STATE).config
    assert (state["step"], state["best_step"]) == (step, step - 2)

    def no_step(self: Trainer, batches: object) -> None:
        raise Stop

    monkeypatch.setattr(Trainer, "train_step", no_step)
    with pytest.raises(Stop) if step < 6 else nullcontext():
        Trainer(tiny_config(), photos, run, val=held).run(resume=True)
    state = read_checkpoint(run / STATE).config
    assert (state["step"], state["best_step"]) == (step, step)
    assert read_checkpoint(run / BEST).provenance["steps"] == step


def test_a_finished_run_is_left_as_it_is(straight, photos, held):
    before = files_of(straight)
    model = Trainer(tiny_config(), photos, straight, val=held).run(resume=True)
    assert files_of(straight) == before
    assert same(dict(model.state_dict()), weights(straight / LAST))


def test_a_run_is_not_written_over(straight, photos):
    before = (straight / STATE).read_bytes()
    with pytest.raises(ValueError, match="holds a run"):
        Trainer(tiny_config(), photos, straight).run()
    assert (straight / STATE).read_bytes() == before


def test_a_changed_config_is_refused(straight, photos, held):
    with pytest.raises(CheckpointError, match="different: clip"):
        Trainer(tiny_config(clip=9.0), photos, straight, val=held).run(resume=True)


def test_changed_pictures_are_reported(straight, photos, held, caplog):
    save(photos / "new.png", soft_picture(66, 66))
    Trainer(tiny_config(), photos, straight, val=held).run(resume=True)
    assert "not those that the run was started with" in caplog.text
