from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from progressive_upsampling.core.chain import Chain
from progressive_upsampling.core.checkpoint import read_checkpoint
from progressive_upsampling.core.metrics import psnr
from progressive_upsampling.core.resample import resample
from progressive_upsampling.core.train import loop, task
from progressive_upsampling.core.train.about import About
from progressive_upsampling.core.train.config import LossConfig, PhaseConfig, TrainConfig
from progressive_upsampling.core.train.degrade import matlab_imresize
from progressive_upsampling.core.train.history import read_history
from progressive_upsampling.core.train.loop import Trainer
from progressive_upsampling.core.train.recipe import read_config
from progressive_upsampling.core.train.run_folder import BEST, CONFIG, CURVES, HISTORY, LAST, SAMPLES, STATE

from .conftest import noise_picture, save, soft_picture, tiny_chain, tiny_config
from .runs import Stop, same, stop_at, weights


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
