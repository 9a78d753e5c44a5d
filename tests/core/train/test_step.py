from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from progressive_upsampling.core.checkpoint import read_checkpoint
from progressive_upsampling.core.train import loop, setup, step
from progressive_upsampling.core.train.adversarial import AdversarialConfig
from progressive_upsampling.core.train.config import LossConfig, PhaseConfig
from progressive_upsampling.core.train.discriminators import DiscriminatorConfig
from progressive_upsampling.core.train.history import read_history
from progressive_upsampling.core.train.learner import Learner, rate_of
from progressive_upsampling.core.train.loop import Trainer
from progressive_upsampling.core.train.run_folder import HISTORY, LAST, STATE
from progressive_upsampling.core.train.setup import loss_scaler

from .conftest import tiny_config
from .runs import Stop, stop_at

CPU = torch.device("cpu")
PHASE = PhaseConfig(stages=2, steps=3, crop=6, batch=6, learning_rate=1e-3, warmup=0, noisy=0.5)


def one_phase(**changes: object):
    return tiny_config(phases=(replace(PHASE, **changes),), validate_every=0)


def tensors(run) -> dict[str, torch.Tensor]:
    return read_checkpoint(run / LAST).tensors


def gradient_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    """The gradient of the first step."""
    with setup.learning():
        trainer._begin(trainer.config.phases[0])
        trainer.stepper.gradient(trainer.batches_of(0), trainer.config.phases[0], 0, 0)
    return {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("parts", [2, 3, 6, 4])  # 6 crops in 4 parts are 2, 2, 1, 1
def test_accumulation_changes_nothing_but_the_rounding(photos, tmp_path, parts):
    whole, other = (
        gradient_of(Trainer(one_phase(accumulate=accumulate), photos, tmp_path / "run")) for accumulate in (1, parts)
    )
    assert whole.keys() == other.keys() and len(whole) > 50
    for name, value in whole.items():
        assert torch.allclose(value, other[name], rtol=1e-3, atol=1e-7), name


def test_accumulated_steps_are_reported_as_whole_ones(photos, tmp_path):
    for name, accumulate in (("whole", 1), ("parts", 3)):
        Trainer(one_phase(accumulate=accumulate), photos, tmp_path / name).run()
    first, second = (read_history(tmp_path / name / HISTORY) for name in ("whole", "parts"))
    for a, b in zip(first, second, strict=True):
        names = a.keys() - {"seconds", "wait"}
        assert names == b.keys() - {"seconds", "wait"}
        assert all(a[name] == pytest.approx(b[name], rel=1e-3, abs=1e-5) for name in names)


def test_more_parts_than_crops_are_refused(photos, tmp_path):
    with pytest.raises(ValueError, match="accumulate: expected at most the batch of 6, got 7"):
        one_phase(accumulate=7)
    with pytest.raises(ValueError, match=r"phase 1: batch: expected at least 8 crops for 4 processes"):
        Trainer(one_phase(accumulate=2), photos, tmp_path / "run", world=loop.World(0, 4))


@pytest.mark.parametrize(("rate", "moves"), [(0.0, 0.0), (0.1, 0.1), (1.0, 1.0)])
def test_earlier_stages_are_frozen_slowed_or_joint(photos, tmp_path, rate, moves):
    trainer = Trainer(one_phase(steps=1, rates={"stages.0.*": rate}), photos, tmp_path / "run")
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    trainer.run()
    # Adam's first step is the learning rate wherever there is a gradient
    for name, value in trainer.model.named_parameters():
        step = (value - before[name]).abs().max().item()
        expected = 1e-3 * (moves if name.startswith("stages.0.") else 1.0)
        assert step <= expected * 1.01 + 1e-9, name
    first = max(
        (value - before[name]).abs().max().item() for name, value in trainer.model.stage(1).named_parameters("stages.0")
    )
    assert first == pytest.approx(1e-3 * moves, rel=0.05)


def test_the_last_pattern_that_matches_counts():
    rates = {"*": 0.0, "stages.*.denoiser.*": 0.5, "*.bias": 2.0}
    assert rate_of("stages.1.denoiser.unet.head.weight", rates) == 0.5
    assert rate_of("stages.1.denoiser.unet.head.bias", rates) == 2.0
    assert rate_of("stages.1.upsampler.head.weight", rates) == 0.0
    assert rate_of("stages.1.upsampler.head.weight", {}) == 1.0


@pytest.mark.parametrize("rates", [{"stage.*": 0.0}, {"*": 0.0}])
def test_patterns_that_fit_nothing_or_freeze_everything_are_refused_at_once(photos, tmp_path, rates):
    with pytest.raises(ValueError, match="rates: expected"):
        Trainer(one_phase(rates=rates), photos, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "loss"),
    [
        ({"rates": {"*": 0.0, "*.controller.*": 1.0}}, LossConfig(controller=0)),
        ({"rates": {"*": 0.0, "*.denoiser.*": 1.0}, "noisy": 0.0, "stages": 1}, LossConfig(output=0)),
        # the steps that draw one stage would have nothing
        ({"rates": {"stages.0.*": 0.0}, "sampled": True}, LossConfig()),
    ],
)
def test_a_phase_in_which_no_term_reaches_what_is_trained_is_refused_before_the_first_step(
    photos, tmp_path, changes, loss
):
    config = tiny_config(phases=(PHASE, replace(PHASE, **changes)), loss=loss)
    with pytest.raises(ValueError, match="phase 2: rates, loss: expected a trained part"):
        Trainer(config, photos, tmp_path / "run")


@pytest.mark.parametrize("term", ["refine", "blind", "controller", "ssim", "adversarial"])
def test_frozen_parts_are_no_hindrance_where_one_term_reaches_what_is_trained(photos, tmp_path, term):
    part = {"controller": "controller", "ssim": "upsampler", "adversarial": "weights"}.get(term, "denoiser")
    phase = replace(PHASE, stages=1, crop=16, rates={"*": 0.0, f"*.{part}.*": 1.0}, adversarial=term == "adversarial")
    none = dict.fromkeys(("output", "upsampler", "refine", "blind", "controller"), 0.0)
    judge = AdversarialConfig(discriminator=DiscriminatorConfig("unet", width=4))
    config = tiny_config(phases=(phase,), loss=LossConfig(**{**none, term: 1.0}), adversarial=judge)
    trainer = Trainer(config, photos, tmp_path / "run")
    assert all(parameter.requires_grad for parameter in trainer.model.parameters())


def test_a_sampled_phase_runs_every_number_of_stages_and_the_step_decides(photos, tmp_path, monkeypatch):
    config = one_phase(stages=3, steps=12, crop=4, batch=1, sampled=True)
    depths, original = [], loop.CropSampler.batch

    def batch(self, step: int, **settings):
        depths.append(len(settings["factors"]))
        return original(self, step, **settings)

    monkeypatch.setattr(loop.CropSampler, "batch", batch)
    Trainer(config, photos, tmp_path / "run").run()
    assert depths == [config.phases[0].stages_at(config.seed, step) for step in range(12)]
    counts = np.bincount([config.phases[0].stages_at(0, step) for step in range(3000)])
    assert set(depths) <= {1, 2, 3} and len(set(depths)) > 1 and min(counts[1:]) > 900


def test_frozen_parts_and_their_optimiser_survive_a_stop(photos, tmp_path):
    phases = (
        replace(PHASE, stages=1, steps=2),
        replace(
            PHASE, steps=3, rates={"stages.0.*": 0.0, "stages.1.skip_weights.*": 3.0}, schedule="step", step_size=1
        ),
    )
    config = tiny_config(phases=phases, save_every=1)
    Trainer(config, photos, tmp_path / "a").run()
    for stop in (1, 2, 3, 4):
        with pytest.raises(Stop):
            Trainer(config, photos, tmp_path / "b", on_step=stop_at(stop)).run(resume=True)
    Trainer(config, photos, tmp_path / "b").run(resume=True)
    a, b = (read_checkpoint(tmp_path / name / STATE).tensors for name in "ab")
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    frozen = [name for name in a if name.startswith("optimizer.exp_avg.stages.0.")]
    assert not frozen and any(name.startswith("optimizer.exp_avg.stages.1.") for name in a)


def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPUs have no float16 worth having: what is tested is the scaling, around a float32 pass."""
    monkeypatch.setattr(loop, "training_dtype", lambda *_: torch.float16)
    monkeypatch.setattr(step, "training_autocast", lambda device, _: setup.training_autocast(device, torch.float32))


def test_a_scaled_loss_gives_the_same_steps(photos, tmp_path, monkeypatch):
    config = one_phase()
    Trainer(config, photos, tmp_path / "plain").run()
    in_float32(monkeypatch)
    Trainer(config, photos, tmp_path / "scaled").run()
    a, b = tensors(tmp_path / "plain"), tensors(tmp_path / "scaled")
    assert max((a[key] - b[key]).abs().max().item() for key in a) < 2e-5
    assert read_checkpoint(tmp_path / "scaled" / STATE).config["loss_scale"] == 2.0**16


def test_a_scale_that_is_too_high_is_lowered_without_counting_a_bad_step(photos, tmp_path, monkeypatch):
    in_float32(monkeypatch)
    config, seen = replace(one_phase(steps=8), loss=LossConfig(output=1e4)), []

    def on_step(done: int, total: int, values: dict[str, float]) -> None:
        seen.append((trainer.counters.bad_steps, trainer.ema.updates, trainer._scaler.get_scale()))
        if done == 5:
            raise Stop

    trainer = Trainer(config, photos, tmp_path / "run", on_step=on_step)
    trainer._scaler.load_state_dict(trainer._scaler.state_dict() | {"scale": 2.0**126})
    with pytest.raises(Stop):
        trainer.run()
    assert all(bad == 0 for bad, _, _ in seen) and seen[0][1:] == (0, 2.0**125)
    again = Trainer(config, photos, tmp_path / "run")
    again.run(resume=True)
    assert again._scaler.get_scale() <= seen[-1][2] and again.counters.bad_steps == 0


@pytest.mark.parametrize(("scale", "too_high"), [(2.0, True), (1.0, False), (0.5, False)])
def test_only_a_scale_above_1_is_blamed_for_a_bad_step(photos, tmp_path, monkeypatch, scale, too_high):
    in_float32(monkeypatch)
    trainer = Trainer(one_phase(), photos, tmp_path / "run")
    trainer._scaler.load_state_dict(trainer._scaler.state_dict() | {"scale": scale})
    next(trainer.model.parameters()).data.fill_(math.nan)
    gradient_of(trainer)
    assert trainer.stepper.skip() is too_high and trainer._scaler.get_scale() == scale / 2


def test_only_asking_for_it_trains_in_float16():
    assert setup.training_dtype("fp32", CPU) is torch.float32
    assert setup.training_dtype("bf16", CPU) is torch.bfloat16
    assert not loss_scaler(CPU, torch.bfloat16).is_enabled() and loss_scaler(CPU, torch.float16).is_enabled()


def test_a_learner_trains_what_it_is_told_to():
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    learner = Learner("x", network, 1.0, loss_scaler(CPU, torch.float32))
    learner.begin({"0.*": 0.0, "1.bias": 0.5})
    assert [p.requires_grad for p in network.parameters()] == [False, False, True, True]
    learner.set_rate(0.1)
    assert sorted(group["lr"] for group in learner.optimizer.param_groups) == [0.05, 0.1]
    learner.begin({})
    assert all(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("parts", [1, 4])
def test_denoisers_alone_learn_from_noise_though_a_part_of_the_batch_has_none(photos, tmp_path, parts):
    rates = {"*": 0.0, "*.denoiser.*": 1.0}
    phase = replace(PHASE, stages=1, batch=4, accumulate=parts, noisy=0.25, rates=rates)
    loss = LossConfig(output=0, upsampler=0, refine=1, blind=1, controller=0)
    trainer = Trainer(tiny_config(phases=(phase,), loss=loss, validate_every=0), photos, tmp_path / "run")
    found = gradient_of(trainer)
    assert found and all(".denoiser." in name for name in found)
    assert max(value.abs().max() for value in found.values()) > 0
