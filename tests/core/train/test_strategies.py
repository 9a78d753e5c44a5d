from __future__ import annotations

from dataclasses import replace

import pytest

from progressive_upsampling.core.train.config import TrainConfig
from progressive_upsampling.core.train.discriminators import DiscriminatorConfig, build_discriminator
from progressive_upsampling.core.train.strategies import CROP_STEP, EARLIER, STRATEGIES, crop_at, phases_of

COMMON = {"stages": 3, "steps": 100, "weights": 2}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("steps", [3, 7, 100])
def test_the_steps_of_the_phases_add_up(strategy, steps):
    phases = phases_of(strategy, **(COMMON | {"steps": steps}))
    assert sum(phase.steps for phase in phases) == steps and TrainConfig(phases=phases).steps == steps


def test_progressive_adds_a_stage_in_each_phase():
    phases = phases_of("progressive", **COMMON)
    assert [phase.stages for phase in phases] == [1, 2, 3]
    assert [phase.crop for phase in phases] == [48, 32, 24] and not any(phase.sampled for phase in phases)


@pytest.mark.parametrize("earlier", list(EARLIER))
def test_earlier_stages_are_what_is_asked_and_the_newest_always_learns(earlier):
    phases = phases_of("progressive", earlier=earlier, **(COMMON | {"weights": 3}))
    rate = EARLIER[earlier]
    expected = [{}, {"stages.0.*": rate}, {"stages.0.*": rate, "stages.1.*": rate}]
    assert [phase.rates for phase in phases] == ([{}] * 3 if earlier == "joint" else expected)
    # two sets of weights: stages 2 and 3 share theirs
    shared = phases_of("progressive", earlier="frozen", **COMMON)
    assert [phase.rates for phase in shared] == [{}, {"stages.0.*": 0.0}, {"stages.0.*": 0.0}]


def test_the_other_strategies_are_one_phase():
    for strategy, sampled in (("end_to_end", False), ("multi_scale", True)):
        (phase,) = phases_of(strategy, earlier="frozen", **COMMON)
        assert (phase.stages, phase.sampled, phase.rates) == (3, sampled, {})
    assert not phases_of("multi_scale", stages=1, steps=1, weights=1)[0].sampled


@pytest.mark.parametrize(("pixel", "expected"), [(1.0, [100]), (0.6, [60, 40]), (0.0, [100])])
def test_a_discriminator_comes_after_the_pixels(pixel, expected):
    phases = phases_of("end_to_end", adversarial=True, pixel=pixel, **COMMON)
    assert [phase.steps for phase in phases] == expected
    assert [phase.adversarial for phase in phases] == [False] * (pixel > 0) + [True] * (pixel < 1)


def test_all_phases_without_a_discriminator_share_the_steps_before_it():
    phases = phases_of("progressive", adversarial=True, pixel=0.5, **(COMMON | {"stages": 2}))
    assert [phase.steps for phase in phases] == [25, 25, 50]
    assert [phase.adversarial for phase in phases] == [False, False, True]


@pytest.mark.parametrize("earlier", list(EARLIER))
def test_a_discriminator_changes_nothing_of_what_earlier_stages_do(earlier):
    settings = COMMON | {"weights": 3, "earlier": earlier}
    plain = phases_of("progressive", **settings)
    *pixels, last = phases_of("progressive", adversarial=True, pixel=0.5, **settings)
    assert [phase.rates for phase in pixels] == [phase.rates for phase in plain]
    assert last.rates == plain[-1].rates and (last.stages, last.crop, last.adversarial) == (3, 24, True)


def test_a_discriminator_from_the_start_takes_part_in_every_phase():
    settings = COMMON | {"weights": 3, "earlier": "frozen"}
    plain = phases_of("progressive", **settings)
    judged = phases_of("progressive", adversarial=True, pixel=0.0, **settings)
    assert judged == tuple(replace(phase, adversarial=True) for phase in plain)


def test_crops_shrink_so_that_results_grow_by_the_root_of_two():
    assert [crop_at(48, stages) for stages in (1, 2, 3, 4)] == [48, 32, 24, 16]
    assert crop_at(8, 5) == 8


@pytest.mark.parametrize(("stages", "crop"), [(1, 24), (2, 40), (3, 48)])  # as the help of Training Losses says
def test_the_smallest_crops_for_patches_are_those_told(stages, crop):
    smallest = build_discriminator(DiscriminatorConfig("patch", width=1)).smallest
    assert 2 * crop_at(crop - CROP_STEP, stages) < smallest <= 2 * crop_at(crop, stages)


@pytest.mark.parametrize(
    "change", [{"strategy": "all"}, {"earlier": "cold"}, {"stages": 0}, {"steps": 2}, {"crop": 4}, {"pixel": 2.0}]
)
def test_a_bad_argument_is_named(change):
    settings = {"strategy": "progressive", **COMMON, **change}
    with pytest.raises((TypeError, ValueError), match=next(iter(change))):
        phases_of(settings.pop("strategy"), **settings)
