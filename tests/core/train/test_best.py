"""The best model of a run that goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from progressive_upsampling.core.checkpoint import read_checkpoint, write_checkpoint
from progressive_upsampling.core.train import loop
from progressive_upsampling.core.train.config import PhaseConfig
from progressive_upsampling.core.train.loop import Trainer
from progressive_upsampling.core.train.run_folder import BEST, STATE

from .conftest import save, soft_picture, tiny_chain, tiny_config
from .runs import Stop, stop_at

STEPS = 5


@pytest.fixture
def go(photos, tmp_path, monkeypatch):
    """A function that takes one step more of a run, or several, measured on a folder where every model scores so."""
    phase = PhaseConfig(stages=1, steps=STEPS, crop=4, batch=1, warmup=0)
    config = tiny_config(chain=tiny_chain(1), phases=(phase,), validate_every=1)
    monkeypatch.setattr(loop, "validate", lambda enlarge, pictures, *_, **__: {"x2": float(pictures.name)})

    def run(score: int | None, steps: int = 1) -> Trainer:
        val = (
            None if score is None else save(tmp_path / str(score) / f"{score}.png", soft_picture(50, 50, score)).parent
        )
        trainer = Trainer(config, photos, tmp_path / "run", val=val)
        last = trainer_step(tmp_path) + steps
        trainer.on_step = stop_at(last)
        if last > STEPS:
            trainer.run(resume=True)
        else:
            with pytest.raises(Stop):
                trainer.run(resume=True)
        return trainer

    return run


def trainer_step(tmp_path: Path) -> int:
    state = tmp_path / "run" / STATE
    return read_checkpoint(state).config["step"] if state.exists() else 0


def test_it_is_forgotten_where_the_rest_is_measured_on_other_pictures(go, tmp_path, caplog):
    go(40)
    trainer = go(20)
    assert "val: the pictures are not those that the run was measured on" in caplog.text
    assert (trainer.counters.best, trainer.counters.best_step) == (20.0, 2)
    assert read_checkpoint(tmp_path / "run" / BEST).provenance["steps"] == 2


def test_it_is_kept_with_the_same_pictures_and_while_there_are_none(go, tmp_path, caplog):
    for score in (40, 40, None, 40):
        assert go(score).counters.best_step == 1
    assert not caplog.messages and read_checkpoint(tmp_path / "run" / BEST).provenance["steps"] == 1
    assert go(20).counters.best_step == 5  # those measured before are remembered all the while


def test_that_of_a_finished_run_is_left_as_it_is(go, caplog):
    go(40, STEPS)
    assert go(20).counters.best == 40.0 and not caplog.messages


def test_a_state_that_does_not_know_its_pictures_goes_on_with_its_best(go, tmp_path, caplog):
    go(40)
    state = read_checkpoint(tmp_path / "run" / STATE)
    del state.config["validation"]
    write_checkpoint(
        tmp_path / "run" / STATE, state.tensors, kind=state.kind, config=state.config, provenance=state.provenance
    )
    assert go(20).counters.best == 40.0 and not caplog.messages
    assert go(30).counters.best == 30.0
