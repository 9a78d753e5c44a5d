from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from progressive_upsampling.core.chain import ChainConfig
from progressive_upsampling.core.config import from_dict, to_dict
from progressive_upsampling.core.denoiser import DenoiserConfig
from progressive_upsampling.core.train.config import LossConfig, PhaseConfig, TrainConfig
from progressive_upsampling.core.train.recipe import RECIPES, read_config, read_recipe, recipe_names

from .conftest import tiny_chain, tiny_config


def test_a_config_comes_back_from_json_as_it_was():
    config = tiny_config(seed=7, loss=LossConfig(blind=0))
    assert from_dict(TrainConfig, json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_a_config(name):
    assert read_recipe(name) == read_config(RECIPES / f"{name}.json")
    assert all(phase.steps >= 1 for phase in read_recipe(name).phases)


def test_an_unknown_recipe_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"recipe: expected one of .*'chain'"):
        read_recipe("chains")


def test_a_config_file_may_begin_with_a_byte_order_mark(tmp_path):
    config = TrainConfig(phases=(PhaseConfig(stages=1, steps=7),), seed=3)
    (tmp_path / "my.json").write_text(json.dumps(to_dict(config)), encoding="utf-8-sig")
    assert read_config(tmp_path / "my.json") == config


@pytest.mark.parametrize("text", ["{", '{"phase": []}', '{"phases": [{"stages": 1}]}', '{"ema": "x"}', "[]", "{}}"])
def test_a_bad_config_file_is_named_in_one_line(tmp_path, text):
    (tmp_path / "my.json").write_text(text)
    with pytest.raises(ValueError, match=r"my\.json: ") as error:
        read_config(tmp_path / "my.json")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("total", [4, 5, 7, 50, 100, 101, 12_345])
def test_scaling_gives_the_steps_asked_for_in_the_old_ratio(total):
    phases = tuple(PhaseConfig(stages=1, steps=steps, warmup=steps // 10) for steps in (970, 590, 390, 50))
    config = TrainConfig(phases=phases).scaled(total)
    assert config.steps == total
    for before, after in zip(phases, config.phases, strict=True):
        assert after.steps >= 1 and abs(after.steps - before.steps * total / 2000) <= 1
        assert after.warmup == round(before.warmup * after.steps / before.steps)


def test_scaling_to_what_it_has_changes_nothing():
    config = TrainConfig(phases=(PhaseConfig(stages=1, steps=7), PhaseConfig(stages=2, steps=3)))
    assert config.scaled(10) == config


@pytest.mark.parametrize("steps", [0, -1, 1, 2.5, True])
def test_fewer_steps_than_phases_are_refused(steps):
    with pytest.raises((TypeError, ValueError), match="steps"):
        TrainConfig(phases=(PhaseConfig(stages=1, steps=7), PhaseConfig(stages=2, steps=3))).scaled(steps)


def test_starting_from_a_model_takes_its_shape_and_no_weights_over():
    config = tiny_config().starting_from(tiny_chain(1))
    assert config.chain == tiny_chain(1) and all(phase.start_from == 0 for phase in config.phases)


def test_steps_belong_to_the_phases_in_order():
    config = tiny_config()
    assert [config.phase_at(step) for step in range(6)] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    with pytest.raises(ValueError, match="6"):
        config.phase_at(6)


@pytest.mark.parametrize(
    "change",
    [
        {"phases": ()},
        {"seed": -1},
        {"seed": 2**32},
        {"ema": 1.5},
        {"clip": 0.0},
        {"dtype": "int8"},
        {"select": "lpips"},
    ],
)
def test_a_bad_setting_is_named(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(tiny_config(), **change)


@pytest.mark.parametrize(
    "change", [{"steps": 0}, {"crop": 0}, {"noisy": 2.0}, {"learning_rate": 0.0}, {"final": -0.1}, {"warmup": -1}]
)
def test_a_bad_setting_of_a_phase_is_named(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(tiny_config().phases[0], **change)


@pytest.mark.parametrize(
    ("noisy", "batch", "crops"),
    [(0.125, 4, 1), (0.25, 1, 1), (0.25, 2, 1), (0.001, 1, 1), (0.25, 6, 2), (0.5, 5, 2), (1.0, 3, 3), (0.0, 8, 0)],
)
def test_some_crop_is_noisy_where_any_part_is(noisy, batch, crops):
    phase = PhaseConfig(stages=1, steps=1, noisy=noisy, batch=batch)
    assert phase.noisy_crops == crops


@pytest.mark.parametrize("loss", [{"output": -1.0}, {"blind": math.nan}])
def test_a_bad_weight_of_a_loss_is_named(loss):
    with pytest.raises(ValueError, match=next(iter(loss))):
        LossConfig(**loss)


def test_a_loss_without_any_term_is_refused():
    with pytest.raises(ValueError, match="above 0"):
        LossConfig(output=0, upsampler=0, refine=0, blind=0, controller=0)


@pytest.mark.parametrize("loss", [LossConfig(adversarial=0.1), LossConfig(feature_matching=1.0)])
def test_adversarial_terms_and_phases_go_together(loss):
    phase = PhaseConfig(stages=1, steps=5)
    judged = replace(phase, adversarial=True)
    assert TrainConfig(phases=(phase, judged), loss=loss).loss.judged
    for phases, terms in (((phase,), loss), ((phase, judged), LossConfig())):
        with pytest.raises(ValueError, match="adversarial"):
            TrainConfig(phases=phases, loss=terms)


NOTHING = dict.fromkeys(("output", "upsampler", "refine", "blind", "controller"), 0.0)
CHAIN, UPSAMPLER, DENOISER = {}, {"upsampler": {"kind": "espcn", "scale": 2}}, {"denoiser": DenoiserConfig()}


@pytest.mark.parametrize(
    ("kind", "weights", "noisy", "told"),
    [
        (CHAIN, {"adversarial": 1.0}, 0.5, r"output, got only adversarial \(for phases with a discriminator\)"),
        (CHAIN, {"refine": 1.0}, 0.0, r"output, got only refine \(for phases with noisy above 0\)"),
        (CHAIN, {"blind": 1.0, "adversarial": 1.0}, 0.0, "got only blind .*, adversarial "),
        (UPSAMPLER, {"feature_matching": 1.0}, 0.5, "output, got only feature_matching"),
        (DENOISER, {"adversarial": 1.0}, 0.5, "blind, got only adversarial"),
    ],
)
def test_a_phase_without_a_term_is_refused_at_once(kind, weights, noisy, told):
    loss = LossConfig(**(NOTHING | weights))
    phase = PhaseConfig(stages=1, steps=5, noisy=0.5, adversarial=loss.judged)
    without = replace(phase, adversarial=False, noisy=noisy)
    assert TrainConfig(phases=(phase,), loss=loss, **kind).loss == loss
    with pytest.raises(ValueError, match=f"phase 2: expected a weight for a term that it has, as .*{told}"):
        TrainConfig(phases=(phase, without), loss=loss, **kind)


@pytest.mark.parametrize(("kind", "own"), [(CHAIN, "upsampler"), (UPSAMPLER, "output"), (DENOISER, "blind")])
def test_a_term_of_its_own_is_enough_for_a_phase(kind, own):
    loss = LossConfig(**(NOTHING | {own: 1.0}))
    assert TrainConfig(phases=(PhaseConfig(stages=1, steps=5, noisy=0.0),), loss=loss, **kind).loss == loss


def test_a_bad_pixel_loss_is_named():
    with pytest.raises(ValueError, match="pixel: expected one of 'l1'"):
        LossConfig(pixel="l0")


def test_the_defaults_make_a_run():
    assert TrainConfig().chain == ChainConfig() and TrainConfig().steps > 0
