"""No widget without an effect: each that is to change the picture does, in a case where it counts."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from progressive_upsampling.nodes.adaptive_noise import AdaptiveNoise
from progressive_upsampling.nodes.compare import Compare
from progressive_upsampling.nodes.denoise import AttnUNetDenoise
from progressive_upsampling.nodes.inject_noise import InjectNoise
from progressive_upsampling.nodes.multi_scale_fuse import MultiScaleFuse
from progressive_upsampling.nodes.progressive_upscale import ProgressiveUpscale
from progressive_upsampling.nodes.residual_skip import ResidualSkip
from progressive_upsampling.nodes.upsample import Upsample

from .conftest import call

# What changes time and memory alone, and what offers files: tested where they are read.
MACHINE = {"tile", "precision", "checkpoint"}
Case = tuple[dict[str, Any], dict[str, Any]]  # the inputs of the case, and what is changed
CASES: dict[type[Any], dict[str, Case]] = {
    Upsample: {
        "method": ({}, {"method": "bicubic"}),
        "scale": ({}, {"scale": 3.0}),
        "width": ({}, {"width": 50}),
        "height": ({}, {"height": 50}),
        "stage": ({}, {"stage": 2}),
    },
    InjectNoise: {
        "sigma": ({}, {"sigma": 0.1}),
        "strength": ({}, {"strength": 0.5}),
        "seed": ({}, {"seed": 1}),
        "distribution": ({}, {"distribution": "uniform"}),
        "stage": ({}, {"stage": 2}),
    },
    AdaptiveNoise: {
        "mode": ({}, {"mode": "gradient"}),
        "strength": ({}, {"strength": 0.5}),
        "base_sigma": ({"mode": "uniform", "model": None}, {"base_sigma": 0.1}),
        "stage": ({}, {"stage": 2}),
    },
    AttnUNetDenoise: {
        "detail": ({}, {"detail": 0.5}),
        "steps": ({"detail": 1.0}, {"steps": "2"}),
        "stage": ({}, {"stage": 2}),
    },
    MultiScaleFuse: {
        "mode": ({}, {"mode": "attention"}),
        "structure": ({}, {"structure": "laplacian"}),
        "weights": ({"mode": "weighted"}, {"weights": "1, 3"}),
        "temperature": ({"mode": "attention"}, {"temperature": 0.1}),
        "stage": ({}, {"stage": 2}),
    },
    ResidualSkip: {
        "mode": ({}, {"mode": "constant"}),
        "strength": ({}, {"strength": 0.5}),
        "position": ({"mode": "cosine"}, {"position": 0.2}),
        "levels": ({"mode": "constant", "strength": 0.5}, {"levels": 3}),
        "stage": ({}, {"stage": 2}),
    },
    ProgressiveUpscale: {
        "scale": ({}, {"scale": 3.0}),
        "width": ({}, {"width": 50}),
        "height": ({}, {"height": 50}),
        "detail": ({}, {"detail": 0.0}),
        "steps": ({}, {"steps": "2"}),
        "strength": ({}, {"strength": 0.5}),
        "seed": ({}, {"seed": 1}),
        "noise": ({}, {"noise": "gradient"}),
        "distribution": ({}, {"distribution": "uniform"}),
        "skip": ({}, {"skip": 0.0}),
        "fusion": ({}, {"fusion": False}),
        "upsampler": ({}, {"upsampler": "bicubic"}),
    },
    Compare: {"heat_levels": ({}, {"heat_levels": 6.0}), "crop": ({}, {"crop": 4})},
}


@pytest.fixture
def inputs(picture: Callable[..., Tensor], chain: Any) -> Callable[[type[Any]], dict[str, Any]]:
    """A function that gives what is to be connected to a node."""
    small, one, other = picture(), picture(40, 48), picture(40, 48, seed=1)
    chain = copy.deepcopy(chain)
    with torch.no_grad():
        chain.stages[1].skip_weights.weights += 0.2  # those of the fixture are the same in both stages
    connected: dict[type[Any], dict[str, Any]] = {
        Upsample: {"image": small, "model": chain},
        InjectNoise: {"image": one},
        AdaptiveNoise: {"image": one, "model": chain},
        AttnUNetDenoise: {
            "noisy_image": other,
            "conditioning": one,
            "sigma_map": torch.full((1, 40, 48), 0.1),
            "model": chain,
        },
        MultiScaleFuse: {"image_1": one, "image_2": other, "model": chain},
        ResidualSkip: {"current": one, "previous": other, "model": chain},
        ProgressiveUpscale: {"image": small, "model": chain, "scale": 2.0, "detail": 1.0},
        Compare: {"image": one, "reference": other},
    }
    return lambda node: connected[node]


def same(one: Any, other: Any) -> bool:
    """Whether a node has returned the same twice."""
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Tensor):
        return one.shape == other.shape and torch.equal(one, other)
    return one == other


@pytest.mark.parametrize("node", CASES, ids=lambda node: node.__name__)
def test_every_widget_has_a_case(node: type[Any]) -> None:
    widgets = {port.id for port in node.GET_SCHEMA().inputs if getattr(port, "default", None) is not None}
    assert widgets - MACHINE == set(CASES[node])


@pytest.mark.parametrize(("node", "widget"), [(node, widget) for node, cases in CASES.items() for widget in cases])
def test_the_widget_changes_the_result(
    inputs: Callable[[type[Any]], dict[str, Any]], node: type[Any], widget: str
) -> None:
    case, change = CASES[node][widget]
    before, again, after = (call(node, **(inputs(node) | case | more)) for more in ({}, {}, change))
    assert same(before, again)
    assert not same(before, after)
