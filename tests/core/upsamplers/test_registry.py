"""The registry: every state-dict layout is recognised and computes what its own code computes.

The references below are plain functional code over the layouts' own keys; they share nothing with the package.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from progressive_upsampling.core import checkpoint as ck
from progressive_upsampling.core.checkpoint import CheckpointError
from progressive_upsampling.core.upsamplers import (
    EDSR,
    ESPCN,
    FSRCNN,
    EDSRConfig,
    ESPCNConfig,
    FSRCNNConfig,
    build_upsampler,
    load_upsampler,
    recognise,
    save_upsampler,
    upsampler_config,
)

State = dict[str, Tensor]
SCALES = (2, 3, 4)
MEAN = torch.tensor([0.4488, 0.4371, 0.4040])


class Maker:
    """Makes a state dict entry by entry from seeded noise."""

    def __init__(self, seed: int) -> None:
        self.state: State = {}
        self.generator = torch.Generator().manual_seed(seed)

    def conv(self, name: str, out: int, channels: int, kernel: int, bias: float = 0.1) -> None:
        weight = torch.randn(out, channels, kernel, kernel, generator=self.generator)
        self.state[f"{name}.weight"] = weight / (channels * kernel**2) ** 0.5
        self.state[f"{name}.bias"] = bias * torch.randn(out, generator=self.generator)

    def prelu(self, name: str, channels: int) -> None:
        self.state[f"{name}.weight"] = torch.rand(channels, generator=self.generator)


def conv(x: Tensor, state: State, name: str) -> Tensor:
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)


# EDSR-PyTorch: head.0, body.i.body.0/2, body.N, tail.0.0[.2], tail.1; sub_mean and add_mean are 1x1 convolutions


def edsr_pytorch(
    scale: int, width: int = 8, blocks: int = 2, span: float = 255.0, shift: bool = True
) -> State:
    m = Maker(scale)
    if shift:
        for name, sign in (("sub_mean", -1), ("add_mean", 1)):
            m.state[f"{name}.weight"] = torch.eye(3).view(3, 3, 1, 1)
            m.state[f"{name}.bias"] = sign * span * MEAN
    m.conv("head.0", width, 3, 3)
    for i in range(blocks):
        m.conv(f"body.{i}.body.0", width, width, 3)
        m.conv(f"body.{i}.body.2", width, width, 3)
    m.conv(f"body.{blocks}", width, width, 3)
    for i in range(2 if scale == 4 else 1):
        m.conv(f"tail.0.{2 * i}", width * (9 if scale == 3 else 4), width, 3)
    m.conv("tail.1", 3, width, 3)
    return m.state


def run_edsr_pytorch(
    state: State, rgb: Tensor, scale: int, res_scale: float = 1.0, span: float = 255.0
) -> Tensor:
    x = F.conv2d(rgb * span, torch.eye(3).view(3, 3, 1, 1), -span * MEAN)
    x = head = conv(x, state, "head.0")
    i = 0
    while f"body.{i}.body.0.weight" in state:
        x = x + res_scale * conv(F.relu(conv(x, state, f"body.{i}.body.0")), state, f"body.{i}.body.2")
        i += 1
    x = conv(x, state, f"body.{i}") + head
    for j in (0, 2) if scale == 4 else (0,):
        x = F.pixel_shuffle(conv(x, state, f"tail.0.{j}"), 3 if scale == 3 else 2)
    return (conv(x, state, "tail.1") + span * MEAN.view(1, 3, 1, 1)) / span


# BasicSR: conv_first, body.i.conv1/2, conv_after_body, upsample.0[.2], conv_last; the mean is not stored


def basicsr(scale: int, width: int = 8, blocks: int = 2) -> State:
    m = Maker(10 + scale)
    m.conv("conv_first", width, 3, 3)
    for i in range(blocks):
        m.conv(f"body.{i}.conv1", width, width, 3)
        m.conv(f"body.{i}.conv2", width, width, 3)
    m.conv("conv_after_body", width, width, 3)
    for i in range(2 if scale == 4 else 1):
        m.conv(f"upsample.{2 * i}", width * (9 if scale == 3 else 4), width, 3)
    m.conv("conv_last", 3, width, 3)
    return m.state


def run_basicsr(state: State, rgb: Tensor, scale: int, res_scale: float = 1.0) -> Tensor:
    mean = MEAN.view(1, 3, 1, 1)
    first = conv((rgb - mean) * 255.0, state, "conv_first")
    x, i = first, 0
    while f"body.{i}.conv1.weight" in state:
        x = x + res_scale * conv(F.relu(conv(x, state, f"body.{i}.conv1")), state, f"body.{i}.conv2")
        i += 1
    x = conv(x, state, "conv_after_body") + first
    for j in (0, 2) if scale == 4 else (0,):
        x = F.pixel_shuffle(conv(x, state, f"upsample.{j}"), 3 if scale == 3 else 2)
    return conv(x, state, "conv_last") / 255.0 + mean


# the networks of Y: yjn870 first_part, mid_part, last_part; Lornatang's names for every part


def espcn(scale: int, features: str, last: str, width: int = 64, width2: int = 32) -> State:
    m = Maker(20 + scale)
    m.conv(f"{features}.0", width, 1, 5)
    m.conv(f"{features}.2", width2, width, 3)
    m.conv(f"{last}.0", scale**2, width2, 3)
    return m.state


def run_espcn(state: State, luma: Tensor, scale: int, features: str, last: str) -> Tensor:
    x = torch.tanh(conv(luma, state, f"{features}.0"))
    x = torch.tanh(conv(x, state, f"{features}.2"))
    return F.pixel_shuffle(conv(x, state, f"{last}.0"), scale)


def yjn870_keys(m: int) -> list[str]:
    middle = [f"mid_part.{2 * i}" for i in range(m + 2)]
    return ["first_part.0", *middle, "last_part"]


def lornatang_keys(m: int) -> list[str]:
    middle = [f"map.{2 * i}" for i in range(m)]
    return ["feature_extraction.0", "shrink.0", *middle, "expand.0", "deconv"]


def own_keys(m: int) -> list[str]:
    return ["extract.0", *lornatang_keys(m)[1:]]


def activation(name: str) -> str:
    stem, number = name.rsplit(".", 1)
    return f"{stem}.{int(number) + 1}"


def fsrcnn(scale: int, keys: list[str], d: int = 56, s: int = 12, flat_greys: bool = True) -> State:
    """With `flat_greys` the network keeps the brightness of a flat picture, as a trained one does."""
    maker = Maker(30 + scale)
    channels = [1, d, *[s] * (len(keys) - 3), d]
    for i, name in enumerate(keys[:-1]):
        maker.conv(name, channels[i + 1], channels[i], 5 if i == 0 else 3, bias=0.0 if flat_greys else 0.1)
        if i in (1, len(keys) - 2):
            maker.state[f"{name}.weight"] = maker.state[f"{name}.weight"][:, :, 1:2, 1:2].contiguous()
        maker.prelu(activation(name), channels[i + 1])
    maker.conv(keys[-1], d, 1, 9, bias=0.0)
    maker.state[f"{keys[-1]}.bias"] = torch.zeros(1)
    if flat_greys:
        # without biases the network is homogeneous, so one gain serves every grey
        flat = run_fsrcnn(maker.state, torch.ones(1, 1, 40, 40), scale, keys)
        maker.state[f"{keys[-1]}.weight"] /= flat[
            ..., 15 * scale : 25 * scale, 15 * scale : 25 * scale
        ].mean()
    return maker.state


def run_fsrcnn(state: State, luma: Tensor, scale: int, keys: list[str]) -> Tensor:
    x = luma
    for name in keys[:-1]:
        x = F.prelu(conv(x, state, name), state[f"{activation(name)}.weight"])
    # a transposed convolution is a convolution by the flipped kernel over the input with zeros between
    B, C, H, W = x.shape
    spread = torch.zeros(B, C, H * scale, W * scale)
    spread[..., ::scale, ::scale] = x
    kernel = state[f"{keys[-1]}.weight"].flip(2, 3).transpose(0, 1)
    return F.conv2d(spread, kernel, state[f"{keys[-1]}.bias"], padding=4)


def close(actual: Tensor, expected: Tensor) -> None:
    assert expected.std() > 1e-3
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=2e-5)


# recognised from keys and shapes, and the same numbers


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("shift", [True, False])
def test_edsr_pytorch_layout_computes_the_same(picture, scale: int, shift: bool) -> None:
    state = edsr_pytorch(scale, shift=shift)
    network = recognise(state)
    assert network.config == EDSRConfig(scale, width=8, blocks=2)
    with torch.no_grad():
        close(network(picture()), run_edsr_pytorch(state, picture(), scale))


@pytest.mark.parametrize("scale", [2, 4])
def test_edsr_pytorch_trained_on_0_to_1_computes_the_same(picture, scale: int) -> None:
    state = edsr_pytorch(scale, span=1.0)
    with torch.no_grad():
        close(recognise(state)(picture()), run_edsr_pytorch(state, picture(), scale, span=1.0))


@pytest.mark.parametrize("scale", SCALES)
def test_basicsr_layout_computes_the_same(picture, scale: int) -> None:
    state = basicsr(scale, blocks=3)
    network = recognise(state)
    assert network.config == EDSRConfig(scale, width=8, blocks=3)
    with torch.no_grad():
        close(network(picture()), run_basicsr(state, picture(), scale))


@pytest.mark.parametrize(("make", "run"), [(edsr_pytorch, run_edsr_pytorch), (basicsr, run_basicsr)])
def test_width_256_means_a_res_scale_of_a_tenth(picture, make: Callable, run: Callable) -> None:
    state = make(2, width=256, blocks=1)
    network = recognise(state)
    assert network.config.res_scale == 0.1
    with torch.no_grad():
        close(network(picture(9, 11)), run(state, picture(9, 11), 2, res_scale=0.1))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("features", "last"), [("first_part", "last_part"), ("feature_maps", "sub_pixel")])
@pytest.mark.parametrize("widths", [(64, 32), (16, 6)])
def test_espcn_layouts_compute_the_same(
    picture, scale: int, features: str, last: str, widths: tuple[int, int]
) -> None:
    state = espcn(scale, features, last, *widths)
    network = recognise(state)
    assert network.config == ESPCNConfig(scale, *widths)
    luma = picture(batch=2)[:, :1]
    with torch.no_grad():
        close(network.upsample_luma(luma), run_espcn(state, luma, scale, features, last))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("keys", [yjn870_keys, lornatang_keys, own_keys])
@pytest.mark.parametrize(("d", "s", "m"), [(56, 12, 4), (32, 5, 1), (8, 3, 0)])
def test_fsrcnn_layouts_compute_the_same_at_the_scale_they_were_made_for(
    picture, scale: int, keys: Callable, d: int, s: int, m: int
) -> None:
    state = fsrcnn(scale, keys(m), d, s)
    network = recognise(state)
    assert network.config == FSRCNNConfig(scale, d, s, m)
    luma = picture(batch=2)[:, :1]
    with torch.no_grad():
        close(network.upsample_luma(luma), run_fsrcnn(state, luma, scale, keys(m)))


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
@pytest.mark.parametrize("make", [basicsr, edsr_pytorch], ids=["BasicSR", "EDSR-PyTorch"])
def test_wrapped_state_is_unwrapped(picture, wrapping: str, make: Callable) -> None:
    state = make(2)
    network = recognise(WRAPPINGS[wrapping](state))
    with torch.no_grad():
        tolerance = 2e-2 if wrapping == "float16" else 0.0
        torch.testing.assert_close(network(picture()), recognise(state)(picture()), rtol=0, atol=tolerance)


def test_state_is_not_changed() -> None:
    state = edsr_pytorch(2, span=1.0)
    before = {key: value.clone() for key, value in state.items()}
    network = recognise(state)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    assert state.keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in state.items())


def test_result_is_in_eval_mode() -> None:
    assert not recognise(basicsr(2)).training


# what is not known is refused


def changed(state: State, key: str, value: Tensor | None) -> State:
    return {k: v for k, v in {**state, key: value}.items() if v is not None}


def rgb_espcn() -> State:
    return changed(espcn(2, "first_part", "last_part"), "first_part.0.weight", torch.zeros(64, 3, 5, 5))


REFUSED: dict[str, tuple[State, str]] = {
    "nothing": ({}, "no upsampler that is known here"),
    "something else": ({"layer1.weight": torch.zeros(3)}, "found layer1.weight"),
    "a missing tensor": (changed(basicsr(2), "body.1.conv2.bias", None), "1 missing: blocks.1.conv2.bias"),
    "a tensor too many": (changed(basicsr(2), "body.0.att.weight", torch.zeros(1)), "1 unexpected: "),
    "another kernel": (changed(basicsr(2), "conv_last.weight", torch.zeros(3, 8, 5, 5)), "another shape"),
    "a scale of 8": (
        changed(
            changed(basicsr(4), "upsample.4.weight", torch.zeros(32, 8, 3, 3)),
            "upsample.4.bias",
            torch.zeros(32),
        ),
        "scale: expected one of 2, 3, 4, got int 8",
    ),
    "one input channel": (
        changed(basicsr(2), "conv_first.weight", torch.zeros(8, 1, 3, 3)),
        "3 input channels",
    ),
    "RGB in a network of Y": (rgb_espcn(), "1 input channel"),
    "no square of a scale": (
        changed(espcn(2, "first_part", "last_part"), "last_part.0.weight", torch.zeros(5, 32, 3, 3)),
        "scale² output channels, got 5",
    ),
    "a vector for a weight": (changed(basicsr(2), "conv_first.weight", torch.zeros(8)), "a convolution's"),
    "another mean": (changed(edsr_pytorch(2), "add_mean.bias", torch.tensor([120.0, 80.0, 9.0])), "mean"),
    "a std": (
        changed(edsr_pytorch(2), "sub_mean.weight", 2 * torch.eye(3).view(3, 3, 1, 1)),
        "no std",
    ),
    "half a mean shift": (changed(edsr_pytorch(2), "sub_mean.bias", None), "mean"),
    "no body": (
        {k: v for k, v in edsr_pytorch(2).items() if not k.startswith("body")},
        "missing: blocks_end.weight",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_anything_else_is_one_clear_error(case: str) -> None:
    state, words = REFUSED[case]
    with pytest.raises(CheckpointError) as caught:
        recognise(state)
    assert words in str(caught.value)


def test_unknown_layout_lists_every_known_one() -> None:
    with pytest.raises(CheckpointError) as caught:
        recognise({"conv.weight": torch.zeros(1)})
    for word in (
        *("EDSR-PyTorch", "head.0.weight", "BasicSR", "conv_after_body.weight", "yjn870", "first_part"),
        *("mid_part", "Lornatang", "feature_maps", "feature_extraction", "this package"),
    ):
        assert word in str(caught.value)


def test_scale_of_an_fsrcnn_that_cannot_be_told_must_be_given() -> None:
    state = fsrcnn(3, yjn870_keys(1), flat_greys=False)
    with pytest.raises(CheckpointError, match="give the scale"):
        recognise(state)
    for scale in SCALES:
        assert recognise(state, scale=scale).scale == scale


def test_given_scale_must_agree_with_the_shapes() -> None:
    assert recognise(basicsr(3), scale=3).scale == 3
    with pytest.raises(CheckpointError, match="scale: expected 2, the tensors are of 3"):
        recognise(basicsr(3), scale=2)


# configs and files


@pytest.mark.parametrize("config", [*OWN, FSRCNNConfig(4, 32, 5, 1)], ids=str)
def test_config_builds_the_network_it_was_taken_from(config) -> None:
    network = build(config)
    rebuilt = build_upsampler(upsampler_config(network))
    assert type(rebuilt) is type(network)
    assert rebuilt.config == config


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kind": "srcnn"}, "kind: expected 'espcn', 'fsrcnn' or 'edsr', got 'srcnn'"),
        ({}, "kind: expected"),
        ({"kind": "edsr", "depth": 3}, "unknown key depth"),
        ({"kind": "espcn", "scale": 8}, "scale: expected one of 2, 3, 4"),
    ],
)
def test_bad_config_is_refused(config: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_upsampler(config)


def test_only_upsamplers_have_a_config() -> None:
    with pytest.raises(TypeError, match="expected ESPCN, FSRCNN or EDSR, got Linear"):
        upsampler_config(torch.nn.Linear(1, 1))


@pytest.mark.parametrize("config", [*OWN, FSRCNNConfig(3)], ids=str)
def test_saved_upsampler_loads_by_path_and_as_bundled(
    tmp_path: Path, picture, randomised, config, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = randomised(build(config))
    path = save_upsampler(source, tmp_path / "net.safetensors", provenance={"data": "none"})
    monkeypatch.setattr(ck, "_WEIGHTS", tmp_path)
    for name in (path, str(path), "net"):
        network = load_upsampler(name)
        assert network.config == config
        assert not network.training
        with torch.no_grad():
            assert torch.equal(network(picture()), source(picture()))


@pytest.mark.parametrize("prefix", ["", "params_ema.", "module."])
def test_foreign_file_loads(tmp_path: Path, picture, prefix: str) -> None:
    state = basicsr(4)
    path = tmp_path / "EDSR_Mx4.safetensors"
    save_file({f"{prefix}{key}": value for key, value in state.items()}, path)
    with torch.no_grad():
        close(load_upsampler(path)(picture()), run_basicsr(state, picture(), 4))


@pytest.mark.parametrize(("name", "scale"), [("fsrcnn_x3", 3), ("FSRCNN-X2-T91", 2), ("4x_fsrcnn", 4)])
def test_name_tells_the_scale_of_an_fsrcnn_if_its_weights_do_not(
    tmp_path: Path, name: str, scale: int
) -> None:
    path = tmp_path / f"{name}.safetensors"
    save_file(fsrcnn(3, lornatang_keys(1), flat_greys=False), path)
    assert load_upsampler(path).scale == scale


def test_weights_tell_the_scale_before_the_name(tmp_path: Path) -> None:
    path = tmp_path / "fsrcnn_x2.safetensors"
    save_file(fsrcnn(3, lornatang_keys(1)), path)
    assert load_upsampler(path).scale == 3


@pytest.mark.parametrize("name", ["fsrcnn", "fsrcnn_x8", "fsrcnn_x25", "size12x345"])
def test_name_without_a_scale_is_no_help(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.safetensors"
    save_file(fsrcnn(3, lornatang_keys(1), flat_greys=False), path)
    with pytest.raises(CheckpointError, match="give the scale"):
        load_upsampler(path)


def test_bad_files_name_themselves(tmp_path: Path) -> None:
    foreign, chain, odd = (tmp_path / f"{name}.safetensors" for name in ("foreign", "chain", "odd"))
    save_file({"conv.weight": torch.zeros(1)}, foreign)
    ck.write_checkpoint(chain, {}, kind="chain", config={}, provenance={})
    ck.write_checkpoint(odd, {}, kind="upsampler", config={"kind": "srcnn"}, provenance={})
    for path, words in (
        (foreign, "no upsampler that is known here"),
        (chain, "expected a checkpoint of kind 'upsampler', got 'chain'"),
        (odd, "config: kind: expected"),
    ):
        with pytest.raises(CheckpointError) as caught:
            load_upsampler(path)
        assert str(path) in str(caught.value)
        assert words in str(caught.value)
