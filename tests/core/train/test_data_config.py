from __future__ import annotations

import json
from dataclasses import fields

import pytest

from progressive_upsampling.core.config import from_dict, to_dict
from progressive_upsampling.core.train.data_config import DataConfig
from progressive_upsampling.core.train.degradation import RealisticConfig

OTHER = DataConfig(
    degradation="realistic",
    realistic=RealisticConfig(0.1, (0.2, 0.3), 0.4, ("bicubic", "area"), 0.6, (0.01, 0.02), 0.7, 0.8, 0.9, (50, 60)),
    reduce=(1, 4),
    jitter=0.1,
    mixup=0.2,
    cutblur=0.3,
    flips=False,
    turns=False,
    validation=0.4,
    memory=5,
)


@pytest.mark.parametrize("config", [DataConfig(), OTHER], ids=["defaults", "other"])
def test_configs_survive_json(config):
    assert from_dict(DataConfig, json.loads(json.dumps(to_dict(config)))) == config


def test_the_example_differs_from_the_defaults_in_every_field():
    for example, default in ((OTHER, DataConfig()), (OTHER.realistic, RealisticConfig())):
        assert all(getattr(example, f.name) != getattr(default, f.name) for f in fields(default))


def test_the_defaults_are_the_protocol():
    config = DataConfig()
    assert config.degradation == "bicubic" and config.jitter == config.mixup == config.cutblur == 0


@pytest.mark.parametrize("name", ["jitter", "mixup", "cutblur", "validation"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_shares_outside_0_to_1_are_errors(name, value):
    with pytest.raises(ValueError, match=f"{name}: expected"):
        DataConfig(**{name: value})


@pytest.mark.parametrize("name", ["blur", "anisotropic", "noise", "poisson", "grey", "jpeg"])
@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_shares_of_the_degradation_outside_0_to_1_are_errors(name, value):
    with pytest.raises(ValueError, match=f"{name}: expected"):
        RealisticConfig(**{name: value})


def test_everything_cannot_be_held_out():
    with pytest.raises(ValueError, match="validation: expected"):
        DataConfig(validation=1)


@pytest.mark.parametrize("settings", [{"degradation": "blur"}, {"memory": -1}, {"reduce": ()}, {"reduce": (2, 0)}])
def test_other_bad_settings_are_errors(settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings))}: expected"):
        DataConfig(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"width": (1.0, 0.5)},
        {"width": (0.0, 0.5)},
        {"width": (0.1,)},
        {"sigma": (0.2, 0.1)},
        {"sigma": (0.0, 0.1)},
        {"quality": (0, 50)},
        {"quality": (50, 101)},
        {"quality": (60, 50)},
        {"resizing": ()},
        {"resizing": ("area", "nearest")},
    ],
)
def test_bad_ranges_and_ways_of_reducing_are_errors(settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings))}: expected"):
        RealisticConfig(**settings)
