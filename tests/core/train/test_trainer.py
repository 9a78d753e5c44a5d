from __future__ import annotations

import itertools
import json
import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from progressive_upsampling.core.chain import Chain
from progressive_upsampling.core.checkpoint import CheckpointError, read_checkpoint
from progressive_upsampling.core.metrics import psnr
from progressive_upsampling.core.resample import resample
from progressive_upsampling.core.train import loop, task
from progressive_upsampling.core.train import step as step_module
from progressive_upsampling.core.train.about import About
from progressive_upsampling.core.train.config import LossConfig, PhaseConfig, TrainConfig
from progressive_upsampling.core.train.degrade import matlab_imresize
from progressive_upsampling.core.train.history import read_history
from progressive_upsampling.core.train.loop import MAX_BAD_STEPS, Trainer
from progressive_upsampling.core.train.recipe import read_config
from progressive_upsampling.core.train.run_folder import BEST, CONFIG, CURVES, HISTORY, LAST, SAMPLES, STATE

from .conftest import noise_picture, save, soft_picture, tiny_chain, tiny_config

TIMES = ("seconds", "wait")


def weights(path: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(path).tensors


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def steps_of(run: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in entry.items() if k not in TIMES} for entry in read_history(run / HISTORY)]


def files_of(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def assert_same_run(a: Path, b: Path) -> None:
    for name in (STATE, LAST, BEST):
        assert same(weights(a / name), weights(b / name)), name
    first, second = (read_checkpoint(run / STATE).config for run in (a, b))
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    assert steps_of(a) == steps_of(b)


class Stop(Exception):
    """Whoever watches a run has seen enough."""


def stop_at(step: int):
    def on_step(done: int, total: int, values: dict[str, float]) -> None:
        if done == step:
            raise Stop

    return on_step


@pytest.fixture
def straight(photos, held, tmp_path) -> Path:
    """The run of `tiny_config`, uninterrupted."""
    Trainer(tiny_config(), photos, tmp_path / "straight", val=held).run()
    return tmp_path / "straight"


def test_a_run_leaves_its_files(straight):
    assert sorted(path.name for path in straight.iterdir()) == sorted(
        [STATE, LAST, BEST, HISTORY, CONFIG, CURVES, SAMPLES]
    )
    assert sorted(path.name for path in (straight / SAMPLES).iterdir()) == [f"{n:07}.png" for n in (2, 4, 6)]
    assert [entry["step"] for entry in read_history(straight / HISTORY)] == list(range(6))
    assert read_config(straight / CONFIG) == tiny_config()
    assert Chain.from_pretrained(straight / LAST).config == tiny_chain()


def test_every_step_is_in_the_history_with_all_terms(straight):
    entries = read_history(straight / HISTORY)
    terms = {"output", "upsampler", "refine", "blind", "controller"}
    assert all({"loss", "lr", "gradient", "seconds", "wait"} | terms <= entry.keys() for entry in entries)
    measured = [[key for key in entry if key[0] == "x"] for entry in entries]
    assert measured == [[], measures("x2"), [], measures("x2", "x4"), [], measures("x2", "x4", "x8")]
    assert [entry["phase"] for entry in entries] == [0, 0, 1, 1, 2, 2]


def measures(*factors: str) -> list[str]:
    return [name for factor in factors for name in (factor, f"{factor}_ssim")]


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


def test_the_seed_decides_the_run_and_nothing_else_does(photos, tmp_path):
    config = tiny_config().scaled(3)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        before = torch.random.get_rng_state()
        Trainer(replace(config, seed=seed), photos, tmp_path / name).run()
        assert torch.equal(torch.random.get_rng_state(), before)
        torch.rand(3)
    assert same(weights(tmp_path / "a" / STATE), weights(tmp_path / "b" / STATE))
    assert not same(weights(tmp_path / "a" / STATE), weights(tmp_path / "c" / STATE))


def test_a_stage_takes_over_the_weights_it_is_told_to(photos, tmp_path):
    trainer = Trainer(tiny_config(), photos, tmp_path / "run", on_step=stop_at(2))
    with pytest.raises(Stop):
        trainer.run()
    first, before = trainer.ema.model.stage(1).state_dict(), trainer.ema.model.stage(2).state_dict()
    assert not same(dict(first), dict(before))
    trainer._begin(trainer.config.phases[1])
    for chain in (trainer.model, trainer.ema.model):
        assert same(dict(chain.stage(2).state_dict()), dict(first))
    assert not trainer.stepper.learner.optimizer.state


def test_every_phase_begins_once_with_a_new_optimiser(photos, tmp_path, monkeypatch):
    begun, original = [], Trainer._begin

    def begin(self: Trainer, phase: PhaseConfig) -> None:
        before = self.stepper.learner.optimizer
        original(self, phase)
        assert self.stepper.learner.optimizer is not before
        begun.append((self.step, phase.stages))

    monkeypatch.setattr(Trainer, "_begin", begin)
    Trainer(tiny_config(), photos, tmp_path / "run").run()
    assert begun == [(0, 1), (2, 2), (4, 3)]


def test_the_noise_of_every_step_and_seed_is_its_own(photos, tmp_path, monkeypatch):
    seeds, original = [], task.unrolled_losses

    def losses(*args):
        seeds.append(args[1].seed)
        return original(*args)

    monkeypatch.setattr(task, "unrolled_losses", losses)
    for seed in (0, 1, 2**32 - 1):
        Trainer(tiny_config(seed=seed).scaled(3), photos, tmp_path / str(seed)).run()
    assert len(set(seeds)) == 9


def test_training_works_in_inference_mode_and_leaves_the_start_alone(photos, held, tmp_path):
    with torch.inference_mode():
        init = Chain(tiny_chain())
        before = [parameter.clone() for parameter in init.parameters()]
        config = tiny_config().scaled(3).starting_from(init.config)
        model = Trainer(config, photos, tmp_path / "run", val=held, init=init).run()
        assert all(torch.equal(a, b) for a, b in zip(before, init.parameters(), strict=True))
    moved = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
    assert sum(moved) > len(moved) // 2 and not any(p.is_inference() for p in model.parameters())


def test_training_works_without_gradients_around_it(photos, tmp_path):
    with torch.no_grad():
        Trainer(tiny_config().scaled(3), photos, tmp_path / "run").run()
    assert read_history(tmp_path / "run" / HISTORY)[-1]["gradient"] > 0


def test_a_model_of_another_shape_is_refused(photos, tmp_path):
    with pytest.raises(ValueError, match="init"):
        Trainer(tiny_config(), photos, tmp_path / "run", init=Chain(tiny_chain(1)))


@pytest.mark.parametrize("what", ["data", "val"])
def test_pictures_too_small_for_a_later_phase_are_found_out_before_the_first(photos, tmp_path, what):
    save(tmp_path / "small" / "a.png", noise_picture(31, 31))
    folders = {"data": photos, "val": photos, what: tmp_path / "small"}
    with pytest.raises(ValueError, match=f"{what}: expected pictures of at least"):
        Trainer(tiny_config(), out=tmp_path / "run", **folders)
    assert not (tmp_path / "run").exists()


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


def test_the_best_model_is_kept_and_more_stages_count_for_more(photos, held, tmp_path, monkeypatch):
    scores = iter([30.0, 20.0, 21.0, 20.5])

    def measure(enlarge, pictures, factors, **_: object) -> dict[str, float]:
        return {f"x{factor}": score for score in [next(scores)] for factor in factors}

    monkeypatch.setattr(loop, "validate", measure)
    phases = (PhaseConfig(stages=1, steps=1, crop=4, batch=1), PhaseConfig(stages=2, steps=3, crop=4, batch=1))
    trainer = Trainer(tiny_config(phases=phases, validate_every=1), photos, tmp_path / "run", val=held)
    trainer.run()
    assert (trainer.counters.best, trainer.counters.best_stages, trainer.counters.best_step) == (21.0, 2, 3)
    assert read_checkpoint(tmp_path / "run" / BEST).provenance["steps"] == 3


def test_provenance_says_what_where_and_how_long_but_no_path(photos, tmp_path):
    about = About(recipe="mine", init="default", licence="CC0-1.0")
    Trainer(tiny_config().scaled(3), photos, tmp_path / "run", about=about).run()
    provenance = read_checkpoint(tmp_path / "run" / LAST).provenance
    assert provenance["data"] == ["photos"] and provenance["pictures"] == 3
    assert (provenance["recipe"], provenance["init"], provenance["licence"]) == ("mine", "default", "CC0-1.0")
    assert provenance["steps"] == 3 and provenance["seed"] == 0 and provenance["torch"] == torch.__version__
    assert {"hours", "date", "hardware", "dtype"} <= provenance.keys()
    assert provenance["config"] == json.loads((tmp_path / "run" / CONFIG).read_text())
    assert str(tmp_path) not in json.dumps(provenance)


def test_what_was_said_of_a_run_is_kept_when_it_goes_on(photos, tmp_path):
    about = About(recipe="mine", licence="CC0-1.0")
    with pytest.raises(Stop):
        Trainer(tiny_config(), photos, tmp_path / "run", about=about, on_step=stop_at(1)).run()
    trainer = Trainer(tiny_config(), photos, tmp_path / "run", about=About(licence="MIT"), on_step=stop_at(2))
    with pytest.raises(Stop):
        trainer.run(resume=True)
    assert trainer.about == About(recipe="mine", licence="MIT")


def test_half_precision_that_cannot_learn_is_refused(photos, tmp_path):
    with pytest.raises(ValueError, match="dtype"):
        Trainer(tiny_config(dtype="fp16"), photos, tmp_path / "run")


@pytest.mark.slow
def test_training_lowers_the_loss_and_beats_bicubic_on_what_it_saw(tmp_path):
    save(tmp_path / "data" / "a.png", soft_picture(64, 64))
    phase = PhaseConfig(stages=1, steps=60, crop=16, batch=4, learning_rate=3e-3, warmup=5)
    config = TrainConfig(chain=tiny_chain(1), phases=(phase,), ema=0.9, dtype="fp32", validate_every=0, save_every=0)
    model = Trainer(config, tmp_path / "data", tmp_path / "run").run()
    outputs = [entry["output"] for entry in read_history(tmp_path / "run" / HISTORY)]
    assert sum(outputs[-10:]) < 0.9 * sum(outputs[:10])

    truth = torch.from_numpy(soft_picture(64, 64).copy()).permute(2, 0, 1)[None]
    small = matlab_imresize(truth, scale=0.5).float() / 255
    truth = truth.float() / 255
    learned = psnr(model(small, 2, dtype="fp32"), truth, crop=2)
    bicubic = psnr(resample(small, (64, 64)).clamp(0, 1), truth, crop=2)
    assert learned > bicubic + 0.3


def test_a_loss_config_steers_the_run(photos, tmp_path):
    loss = LossConfig(upsampler=0.0, refine=0.0, blind=0.0, controller=0.0)
    Trainer(tiny_config(loss=loss).scaled(3), photos, tmp_path / "run").run()
    entry = read_history(tmp_path / "run" / HISTORY)[-1]
    assert "output" in entry and not {"upsampler", "refine", "blind", "controller"} & entry.keys()
