from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from progressive_upsampling.core.train.ema import EMA
from progressive_upsampling.core.train.schedule import learning_rate


def test_the_rate_rises_linearly_then_falls_as_a_cosine():
    rates = [learning_rate(step, 100, 2.0, warmup=10, final=0.1) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * k for k in range(1, 11)])
    assert rates[10] == 2.0 and rates[55] == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(0.2, abs=1e-3)


def test_without_warm_up_the_rate_begins_at_its_peak():
    assert learning_rate(0, 1, 3.0) == 3.0
    assert learning_rate(0, 5, 3.0, warmup=0, final=1.0) == learning_rate(4, 5, 3.0, final=1.0) == 3.0


def test_a_warm_up_longer_than_the_phase_never_divides_by_zero():
    assert [learning_rate(step, 2, 1.0, warmup=4) for step in range(2)] == [0.25, 0.5]


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


def test_the_average_starts_anew_at_the_weights_given():
    model = nn.Linear(3, 3)
    ema = EMA(nn.Linear(3, 3))
    ema.update(model)
    ema.copy_from(model)
    assert ema.updates == 0 and torch.equal(ema.model.weight, model.weight)


def test_the_average_is_apart_from_the_model_and_takes_no_gradient():
    model = nn.Linear(3, 3)
    ema = EMA(model)
    ema.update(model)
    assert not ema.model.training and not any(p.requires_grad for p in ema.model.parameters())
    with torch.no_grad():
        model.weight.zero_()
    assert ema.model.weight.any()
