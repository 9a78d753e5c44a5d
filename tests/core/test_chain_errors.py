"""Configs and settings of the chain, and what is said when they are wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from progressive_upsampling.core.chain import Chain, ChainConfig, Settings
from progressive_upsampling.core.config import from_dict, to_dict
from progressive_upsampling.core.stage import Stage

from .tiny import picture, random_chain, stage_config

FP32: dict[str, Any] = {"dtype": "fp32"}


@pytest.fixture(scope="module")
def chain() -> Chain:
    """A small chain of two stages of which every part does something."""
    return random_chain()


def test_a_config_survives_json() -> None:
    config = ChainConfig((stage_config(kappa=0.5), stage_config()))
    assert from_dict(ChainConfig, to_dict(config)) == config
    assert from_dict(ChainConfig, to_dict(ChainConfig())) == ChainConfig()


def test_a_chain_needs_a_stage() -> None:
    with pytest.raises(ValueError, match="stages: expected at least one, got none"):
        ChainConfig(())


@pytest.mark.parametrize(("number", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("1", TypeError)])
def test_stages_are_counted_from_1(chain: Chain, number: object, error: type[Exception]) -> None:
    assert chain.stage(1) is chain.stages[0] and isinstance(chain.stage(1), Stage)
    with pytest.raises(error, match="stage: expected an integer >= 1, got"):
        chain.stage(number)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"seed": -1}, ValueError, "seed: expected an integer in 0..1.84467e\\+19, got -1"),
        ({"seed": 2**64}, ValueError, "seed: expected an integer in"),
        ({"seed": 1.0}, TypeError, "seed: expected an integer in"),
        ({"seed": [1, -1]}, ValueError, "seed: expected an integer in"),
        ({"seed": "12"}, TypeError, "seed: expected an integer in"),
        ({"strength": -0.1}, ValueError, "strength: expected a number >= 0, got -0.1"),
        ({"strength": math.nan}, ValueError, "strength: expected a number >= 0, got nan"),
        ({"noise": "none"}, ValueError, "noise: expected one of 'uniform', 'gradient', 'learned'"),
        ({"distribution": "normal"}, ValueError, "distribution: expected one of 'gaussian', 'uniform', 'correlated'"),
        ({"steps": 3}, ValueError, "steps: expected one of 1, 2, 4, 8, got int 3"),
        ({"detail": 2}, ValueError, "detail: expected a number in 0..1, got 2"),
        ({"skip": 1.5}, ValueError, "skip: expected a number in 0..1, got 1.5"),
        ({"fusion": "no"}, ValueError, "fusion: expected one of False, True, got str 'no'"),
        ({"tile": 0}, ValueError, "tile: expected an integer >= 1, got 0"),
        ({"tile": 64.0}, TypeError, "tile: expected an integer >= 1, got float 64.0"),
        ({"dtype": "half"}, ValueError, "dtype: expected one of 'auto', 'fp32', 'bf16', 'fp16'"),
    ],
    ids=str,
)
def test_settings_name_what_is_wrong(chain: Chain, changes: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"^{words}"):
        Settings(**changes)
    with pytest.raises(error, match=f"^{words}"):
        chain(picture(2, 2), 2, **changes)


@pytest.mark.parametrize(
    ("upsampler", "words"),
    [
        (torch.nn.Upsample(scale_factor=2), "a network with the integers scale and halo, .* got Upsample"),
        (2, "a name, a network or a function, got int"),
    ],
)
def test_an_upsampler_that_is_none_is_refused(chain: Chain, upsampler: object, words: str) -> None:
    for scale in (1, 2):
        with pytest.raises(TypeError, match=f"^upsampler: expected {words}"):
            chain(picture(2, 2), scale, upsampler=upsampler)


def test_integers_of_numpy_are_integers(chain: Chain) -> None:
    image = picture(4, 5)
    assert torch.equal(chain(image, 2, seed=np.uint64(7), detail=0.5), chain(image, 2, seed=7, detail=0.5))


def test_seeds_for_another_batch_are_refused(chain: Chain) -> None:
    for scale in (1, 2):
        with pytest.raises(ValueError, match="seed: expected one, or one for each of 2 images, got 3"):
            chain(picture(4, 5, batch=2), scale, seed=[1, 2, 3])


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({}, ValueError, "scale, size: expected exactly one of the two"),
        ({"scale": 2, "size": (8, 8)}, ValueError, "scale, size: expected exactly one of the two"),
        ({"scale": 0}, ValueError, "scale: expected a number <= 64 and > 0, got 0"),
        ({"scale": -1}, ValueError, "scale: expected a number <= 64 and > 0, got -1"),
        ({"scale": 1e9}, ValueError, "scale: expected a number <= 64 and > 0, got 1000000000.0"),
        ({"scale": math.nan}, ValueError, "scale: expected a number <= 64 and > 0, got nan"),
        ({"size": (0, 8)}, ValueError, "size: expected"),
        ({"image": torch.zeros(4, 4), "scale": 2}, ValueError, r"image: expected \[B, 1\|3\|4, H, W\], got \(4, 4\)"),
        ({"image": torch.zeros(1, 3, 4, 4).byte(), "scale": 2}, TypeError, "image: expected a float tensor"),
        ({"scale": 2, "upsampler": "cubic"}, ValueError, "upsampler: expected one of 'nearest'.*'cubic'"),
        ({"scale": 2, "colour": True}, TypeError, ".*unexpected keyword argument 'colour'"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(chain: Chain, arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"^{words}"):
        chain(**({"image": picture(4, 5)} | arguments))
