from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

from progressive_upsampling.core.train.ema import EMA
from progressive_upsampling.core.train.phase import PhaseConfig
from progressive_upsampling.core.train.schedule import cosine, stepped


def test_the_rate_rises_linearly_then_falls_as_a_cosine():
    rates = [cosine(step, 100, warmup=10, final=0.1) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert rates[10] == 1.0 and rates[55] == pytest.approx(0.1 + 0.9 * 0.5)
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)


def test_without_warm_up_the_rate_begins_at_its_peak():
    assert cosine(0, 1) == 1.0
    assert cosine(0, 5, warmup=0, final=1.0) == cosine(4, 5, final=1.0) == 1.0


def test_a_warm_up_longer_than_the_phase_never_divides_by_zero():
    assert [cosine(step, 2, warmup=4) for step in range(2)] == [0.25, 0.5]


def test_steps_lower_the_rate_again_and_again():
    rates = [stepped(step, 4, 0.5, warmup=2) for step in range(9)]
    assert rates == [0.5, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.25]


def test_a_phase_has_the_schedule_that_it_names():
    phase = PhaseConfig(stages=1, steps=50, warmup=5, final=0.2, step_size=10, gamma=0.3)
    for step in (0, 4, 5, 30, 49):
        assert phase.share_at(step) == cosine(step, 50, 5, 0.2)
        assert replace(phase, schedule="step").share_at(step) == stepped(step, 10, 0.3, 5)
        assert replace(phase, schedule="constant").share_at(step) == min((step + 1) / 5, 1.0)


def test_a_longer_phase_warms_up_and_decays_in_the_same_parts():
    phase = PhaseConfig(stages=1, steps=50, warmup=5, schedule="step", step_size=10).scaled(100)
    assert (phase.steps, phase.warmup, phase.step_size) == (100, 10, 20)


def test_the_average_follows_its_formula():
    model = nn.Linear(2, 1, bias=False)
    ema = EMA(model, 0.5)
    expected = model.weight.detach().clone()
    for t in range(1, 30):
        with torch.no_grad():
            model.weight.add_(1.0)
        ema.update(model)
        decay = min(0.5, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * model.weight.detach()
        assert torch.allclose(ema.model.weight, expected, atol=1e-5)
    assert (1 + 29) / (10 + 29) > 0.5 > 2 / 11  # both branches were seen


def test_the_average_is_apart_from_the_model_and_takes_no_gradient():
    model = nn.Linear(3, 3)
    ema = EMA(model)
    ema.update(model)
    assert not ema.model.training and not any(p.requires_grad for p in ema.model.parameters())
    with torch.no_grad():
        model.weight.zero_()
    assert ema.model.weight.any()


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
def test_a_phase_shorter_than_its_warm_up_reaches_its_peak_half_way(schedule):
    phase = PhaseConfig(stages=1, steps=60, warmup=100, schedule=schedule)
    shares = [phase.share_at(step) for step in range(60)]
    assert shares[29] == 1 and shares[28] == pytest.approx(29 / 30)
    assert phase.share_at(0) == pytest.approx(1 / 30)
