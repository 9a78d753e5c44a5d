from __future__ import annotations

import torch

from progressive_upsampling.core.train.noise_maps import MAP_FLOOR, StepNoise, training_map

LEVELS = (0.25, 4.0)


def images(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_noise_maps_are_of_every_kind_and_within_their_range():
    y = images(64)
    maps = training_map(y, StepNoise(5, 1, 64, range(64), y), LEVELS)
    low, high = LEVELS
    assert maps.shape == (64, 1, 64, 64) and maps.min() >= low * MAP_FLOOR and maps.max() <= high
    assert maps.amax((1, 2, 3)).min() < 0.5 and maps.amax((1, 2, 3)).max() > 2.0
    steps = (maps.diff(dim=-1).abs() / maps.amax((1, 2, 3), keepdim=True)).amax((1, 2, 3))
    flat, smooth, edges = steps == 0, (steps > 0) & (steps < 0.1), steps >= 0.1  # white noise is all edges
    assert 20 <= flat.sum() <= 44 and smooth.sum() >= 6 and edges.sum() >= 6


def test_a_share_gets_the_noise_and_the_maps_of_its_crops():
    y, some = images(6), [4, 1]
    whole, part = StepNoise(3, 1, 6, range(6), y), StepNoise(3, 1, 6, some, y[some])
    assert torch.equal(training_map(y, whole, LEVELS)[some], training_map(y[some], part, LEVELS))
    assert torch.equal(whole.normal()[some], part.normal())


def test_stages_and_steps_have_noise_of_their_own():
    y = images(2)
    drawn = [StepNoise(seed, stage, 2, range(2), y).normal() for seed, stage in ((0, 1), (1, 1), (0, 2))]
    assert not any(torch.equal(drawn[a], drawn[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


def test_levels_are_spread_on_a_log_scale():
    y = torch.rand(4000, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    maps = training_map(y, StepNoise(0, 1, 4000, range(4000), y), LEVELS).flatten(1)
    flat = maps.amax(1)[maps.amin(1) == maps.amax(1)]
    assert 1800 < len(flat) < 2200 and 0.9 < flat.median() < 1.1  # in the middle of 0.25 and 4 by their logarithms


def test_a_quarter_of_the_maps_vary_where_the_picture_does_not():
    y = torch.full((400, 3, 16, 16), 0.5)
    maps = training_map(y, StepNoise(0, 1, 400, range(400), y), LEVELS).flatten(1)
    assert 60 < (maps.amax(1) > 1.01 * maps.amin(1)).sum() < 140
