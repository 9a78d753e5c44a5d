"""Every state-dict layout is recognised and computes what its own code computes; others are refused."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor

from progressive_upsampling.core.checkpoint import CheckpointError
from progressive_upsampling.core.upsamplers import (
    EDSR,
    ESPCN,
    FSRCNN,
    EDSRConfig,
    ESPCNConfig,
    FSRCNNConfig,
    recognise,
)

State = dict[str, Tensor]
SCALES = (2, 3, 4)


# recognised from keys and shapes, and the same numbers


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("shift", [True, False])
def test_edsr_pytorch_layout_computes_the_same(plain, picture, close, scale: int, shift: bool) -> None:
    state = plain.edsr_pytorch(scale, shift=shift)
    network = recognise(state)
    assert network.config == EDSRConfig(scale, width=8, blocks=2)
    with torch.no_grad():
        close(network(picture()), plain.run_edsr_pytorch(state, picture(), scale))


@pytest.mark.parametrize("scale", [2, 4])
def test_edsr_pytorch_trained_on_0_to_1_computes_the_same(plain, picture, close, scale: int) -> None:
    state = plain.edsr_pytorch(scale, span=1.0)
    with torch.no_grad():
        close(recognise(state)(picture()), plain.run_edsr_pytorch(state, picture(), scale, span=1.0))


@pytest.mark.parametrize("scale", SCALES)
def test_basicsr_layout_computes_the_same(plain, picture, close, scale: int) -> None:
    state = plain.basicsr(scale, blocks=3)
    network = recognise(state)
    assert network.config == EDSRConfig(scale, width=8, blocks=3)
    with torch.no_grad():
        close(network(picture()), plain.run_basicsr(state, picture(), scale))


@pytest.mark.parametrize("layout", ["edsr_pytorch", "basicsr"])
def test_width_256_means_a_res_scale_of_a_tenth(plain, picture, close, layout: str) -> None:
    state = getattr(plain, layout)(2, width=256, blocks=1)
    network = recognise(state)
    assert network.config.res_scale == 0.1
    with torch.no_grad():
        expected = getattr(plain, f"run_{layout}")(state, picture(9, 11), 2, res_scale=0.1)
        close(network(picture(9, 11)), expected)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("features", "last"), [("first_part", "last_part"), ("feature_maps", "sub_pixel")])
@pytest.mark.parametrize("widths", [(64, 32), (16, 6)])
def test_espcn_layouts_compute_the_same(
    plain, picture, close, scale: int, features: str, last: str, widths: tuple[int, int]
) -> None:
    state = plain.espcn(scale, features, last, *widths)
    network = recognise(state)
    assert network.config == ESPCNConfig(scale, *widths)
    luma = picture(batch=2)[:, :1]
    with torch.no_grad():
        close(network.upsample_luma(luma), plain.run_espcn(state, luma, scale, features, last))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("layout", ["yjn870", "lornatang", "own"])
@pytest.mark.parametrize(("d", "s", "m"), [(56, 12, 4), (32, 5, 1), (8, 3, 0)])
def test_fsrcnn_layouts_compute_the_same_at_the_scale_they_were_made_for(
    plain, picture, close, scale: int, layout: str, d: int, s: int, m: int
) -> None:
    keys = getattr(plain, f"{layout}_keys")(m)
    state = plain.fsrcnn(scale, keys, d, s)
    network = recognise(state)
    assert network.config == FSRCNNConfig(scale, d, s, m)
    luma = picture(batch=2)[:, :1]
    with torch.no_grad():
        close(network.upsample_luma(luma), plain.run_fsrcnn(state, luma, scale, keys))


OWN = [
    EDSRConfig(3, width=8, blocks=2),
    EDSRConfig(4, width=8, blocks=1),
    EDSRConfig(4, width=8, blocks=1, tail="direct"),
    EDSRConfig(2, width=4, blocks=0, tail="direct"),
    ESPCNConfig(3),
    ESPCNConfig(2, width=8, width2=4),
]


def build(config) -> EDSR | ESPCN | FSRCNN:
    return {EDSRConfig: EDSR, ESPCNConfig: ESPCN, FSRCNNConfig: FSRCNN}[type(config)](config)


@pytest.mark.parametrize("config", OWN, ids=str)
def test_own_layout_is_recognised(picture, randomised, config) -> None:
    source = randomised(build(config))
    network = recognise(source.state_dict())
    assert network.config == config
    with torch.no_grad():
        assert torch.equal(network(picture()), source(picture()))


# around the layout


WRAPPINGS: dict[str, Callable[[State], dict]] = {
    "module.": lambda s: {f"module.{k}": v for k, v in s.items()},
    "_orig_mod.module.": lambda s: {f"_orig_mod.module.{k}": v for k, v in s.items()},
    "model.": lambda s: {f"model.{k}": v for k, v in s.items()},
    "params.": lambda s: {f"params.{k}": v for k, v in s.items()},
    "params.module.": lambda s: {f"params.module.{k}": v for k, v in s.items()},
    "params_ema.": lambda s: {f"params_ema.{k}": v for k, v in s.items()},
    "params_ema. beside params.": lambda s: {
        **{f"params.{k}": torch.zeros_like(v) for k, v in s.items()},
        **{f"params_ema.{k}": v for k, v in s.items()},
    },
    "nested params": lambda s: {"params": s, "iter": torch.tensor(3)},
    "nested state_dict": lambda s: {"state_dict": s, "epoch": 7, "optimizer": {"lr": torch.zeros(1)}},
    "float16": lambda s: {k: v.half() for k, v in s.items()},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("layout", ["basicsr", "edsr_pytorch"])
def test_wrapped_state_is_unwrapped(plain, picture, wrapping: str, layout: str) -> None:
    state = getattr(plain, layout)(2)
    network = recognise(WRAPPINGS[wrapping](state))
    with torch.no_grad():
        tolerance = 2e-2 if wrapping == "float16" else 0.0
        torch.testing.assert_close(network(picture()), recognise(state)(picture()), rtol=0, atol=tolerance)


def test_state_is_not_changed(plain) -> None:
    state = plain.edsr_pytorch(2, span=1.0)
    before = {key: value.clone() for key, value in state.items()}
    network = recognise(state)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    assert state.keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in state.items())


def test_result_is_in_eval_mode(plain) -> None:
    assert not recognise(plain.basicsr(2)).training


# what is not known is refused


def changed(state: State, key: str, value: Tensor | None) -> State:
    return {k: v for k, v in {**state, key: value}.items() if v is not None}


# case: (how to make the state, words of the message)
REFUSED: dict[str, tuple[Callable[[ModuleType], State], str]] = {
    "nothing": (lambda p: {}, "no upsampler that is known here"),
    "something else": (lambda p: {"layer1.weight": torch.zeros(3)}, "found layer1.weight"),
    "a missing tensor": (
        lambda p: changed(p.basicsr(2), "body.1.conv2.bias", None),
        "1 missing: blocks.1.conv2.bias",
    ),
    "a tensor too many": (
        lambda p: changed(p.basicsr(2), "body.0.attention.weight", torch.zeros(1)),
        "1 unexpected: blocks.0.attention.weight",
    ),
    "another kernel": (
        lambda p: changed(p.basicsr(2), "conv_last.weight", torch.zeros(3, 8, 5, 5)),
        "1 of another shape: tail.2.weight (expected [3, 8, 3, 3], got [3, 8, 5, 5])",
    ),
    "a scale of 8": (
        lambda p: changed(p.basicsr(4), "upsample.4.weight", torch.zeros(32, 8, 3, 3)),
        "scale: expected one of 2, 3, 4, got int 8",
    ),
    "one input channel": (
        lambda p: changed(p.basicsr(2), "conv_first.weight", torch.zeros(8, 1, 3, 3)),
        "3 input channels (RGB), got 1",
    ),
    "RGB in a network of Y": (
        lambda p: changed(p.espcn(2, "first_part", "last_part"), "first_part.0.weight", torch.zeros(64, 3, 5, 5)),
        "1 input channel (Y of BT.601), got 3",
    ),
    "no square of a scale": (
        lambda p: changed(p.espcn(2, "first_part", "last_part"), "last_part.0.weight", torch.zeros(5, 32, 3, 3)),
        "scale² output channels, got 5",
    ),
    "a vector for a weight": (
        lambda p: changed(p.basicsr(2), "conv_first.weight", torch.zeros(8)),
        "head.weight: expected a convolution's weight, got [8]",
    ),
    "another mean": (
        lambda p: changed(p.edsr_pytorch(2), "add_mean.bias", torch.tensor([120.0, 80.0, 9.0])),
        "mean shift: expected the mean",
    ),
    "a std": (
        lambda p: changed(p.edsr_pytorch(2), "sub_mean.weight", 2 * torch.eye(3).view(3, 3, 1, 1)),
        "no std",
    ),
    "half a mean shift": (
        lambda p: changed(p.edsr_pytorch(2), "sub_mean.bias", None),
        "mean shift: expected the mean",
    ),
    "no body": (
        lambda p: {k: v for k, v in p.edsr_pytorch(2).items() if not k.startswith("body")},
        "2 missing: blocks_end.weight, blocks_end.bias",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_anything_else_is_one_clear_error(plain, case: str) -> None:
    make, words = REFUSED[case]
    with pytest.raises(CheckpointError) as caught:
        recognise(make(plain))
    assert words in str(caught.value)


def test_unknown_layout_lists_every_known_one() -> None:
    with pytest.raises(CheckpointError) as caught:
        recognise({"conv.weight": torch.zeros(1)})
    for word in (
        *("EDSR-PyTorch", "head.0.weight", "BasicSR", "conv_after_body.weight", "yjn870", "first_part"),
        *("mid_part", "Lornatang", "feature_maps", "feature_extraction", "this package"),
    ):
        assert word in str(caught.value)
