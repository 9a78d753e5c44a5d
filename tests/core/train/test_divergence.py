"""Steps and figures that are not finite: skipped, counted, and the run stopped with the reason."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from progressive_upsampling.core.checkpoint import read_checkpoint
from progressive_upsampling.core.train import loop
from progressive_upsampling.core.train import step as step_module
from progressive_upsampling.core.train.config import PhaseConfig
from progressive_upsampling.core.train.history import read_history
from progressive_upsampling.core.train.loop import MAX_BAD_STEPS, Trainer
from progressive_upsampling.core.train.run_folder import HISTORY, STATE

from .conftest import tiny_chain, tiny_config
from .runs import Stop, stop_at


def spoil(monkeypatch: pytest.MonkeyPatch, bad: set[int], how: str) -> None:
    """Makes the loss, or only its gradient, not finite at the calls named."""
    original, calls = step_module.weighted_sum, iter(range(10_000))

    def total(terms, loss):
        value = original(terms, loss)
        if next(calls) not in bad:
            return value
        # the root's slope at 0 is infinite: a finite loss, and no finite gradient
        return value * math.nan if how == "loss" else value + (0.0 * value).sqrt()

    monkeypatch.setattr(step_module, "weighted_sum", total)


@pytest.mark.parametrize("how", ["loss", "gradient"])
def test_a_step_that_is_not_finite_is_skipped_and_counted(photos, tmp_path, monkeypatch, how, caplog):
    spoil(monkeypatch, {1, 2}, how)
    seen = []

    def on_step(done: int, total: int, values: dict[str, float]) -> None:
        seen.append((trainer.counters.bad_steps, [p.detach().clone() for p in trainer.model.parameters()]))

    phase = PhaseConfig(stages=1, steps=4, crop=4, batch=1, warmup=0)
    config = tiny_config(chain=tiny_chain(1), phases=(phase,))
    trainer = Trainer(config, photos, tmp_path / "run", on_step=on_step)
    trainer.run()
    assert [count for count, _ in seen] == [0, 1, 2, 0] and trainer.ema.updates == 2
    unchanged = [all(map(torch.equal, before, after)) for (_, before), (_, after) in itertools.pairwise(seen)]
    assert unchanged == [True, True, False]
    assert [entry[how] is None for entry in read_history(tmp_path / "run" / HISTORY)] == [False, True, True, False]
    assert "step 1 skipped" in caplog.text


def test_ten_bad_steps_in_a_row_stop_the_run_with_the_reason_and_a_whole_state(photos, tmp_path, monkeypatch):
    spoil(monkeypatch, set(range(1, 5)) | set(range(6, 40)), "loss")
    phase = PhaseConfig(stages=1, steps=30, crop=4, batch=1)
    config = tiny_config(chain=tiny_chain(1), phases=(phase,))
    with pytest.raises(RuntimeError, match=f"{MAX_BAD_STEPS} steps in a row were not finite.*nan"):
        Trainer(config, photos, tmp_path / "run").run()
    assert read_checkpoint(tmp_path / "run" / STATE).config["step"] == 6 + MAX_BAD_STEPS - 1


def test_the_count_of_bad_steps_survives_a_stop(photos, tmp_path, monkeypatch):
    spoil(monkeypatch, set(range(40)), "loss")
    phase = PhaseConfig(stages=1, steps=30, crop=4, batch=1)
    config = tiny_config(chain=tiny_chain(1), phases=(phase,))
    with pytest.raises(Stop):
        Trainer(config, photos, tmp_path / "run", on_step=stop_at(7)).run()
    trainer = Trainer(config, photos, tmp_path / "run")
    with pytest.raises(RuntimeError):
        trainer.run(resume=True)
    assert trainer.step == MAX_BAD_STEPS - 1


@pytest.mark.parametrize("how", ["rate", "weights"])
@pytest.mark.parametrize("measured", [True, False])
def test_a_model_that_has_diverged_is_called_so(photos, held, tmp_path, how, measured):
    def spoil_average(done: int, total: int, values: dict[str, float]) -> None:
        if done == 2:
            for parameter in trainer.ema.model.parameters():
                parameter.data.fill_(1e30)

    rate = 1e8 if how == "rate" else 1e-3
    phase = PhaseConfig(stages=1, steps=40, crop=4, batch=1, learning_rate=rate, warmup=0)
    config = tiny_config(chain=tiny_chain(1), phases=(phase,), validate_every=3)
    run, val = tmp_path / "run", held if measured else None
    trainer = Trainer(config, photos, run, val=val, on_step=spoil_average if how == "weights" else None)
    told = "training stopped at step 3: the model has diverged.*not finite.*lower learning_rate"
    with pytest.raises(RuntimeError, match=told):
        trainer.run()
    assert read_checkpoint(run / STATE).config["step"] == 3 and len(read_history(run / HISTORY)) == 3
    if measured:  # a sheet is not made again
        with pytest.raises(RuntimeError, match=told):
            Trainer(config, photos, run, val=val).run(resume=True)


def test_a_figure_that_is_not_finite_is_never_the_best(photos, held, tmp_path, monkeypatch, caplog):
    scores = iter([math.nan, 30.0, -math.inf, 29.0, math.nan, 31.0])
    monkeypatch.setattr(loop, "validate", lambda *_, **__: {"x2": next(scores)})
    phases = (PhaseConfig(stages=1, steps=4, crop=4, batch=1), PhaseConfig(stages=2, steps=2, crop=4, batch=1))
    trainer = Trainer(tiny_config(phases=phases, validate_every=1, save_every=1), photos, tmp_path / "run", val=held)
    best = []
    trainer.on_step = lambda *_: best.append((trainer.counters.best, trainer.counters.best_step))
    trainer.run()
    assert best == [(None, 0), *[(30.0, 2)] * 4, (31.0, 6)]
    assert [text for text in caplog.messages if "step 3: not taken as the best model: its psnr" in text]
    assert read_checkpoint(tmp_path / "run" / STATE).config["best"] == 31.0
