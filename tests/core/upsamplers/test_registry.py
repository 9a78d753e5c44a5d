"""The registry: configs, checkpoints and foreign files to networks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

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

SCALES = (2, 3, 4)


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


def test_scale_of_an_fsrcnn_that_cannot_be_told_must_be_given(plain) -> None:
    state = plain.fsrcnn(3, plain.yjn870_keys(1), flat_greys=False)
    with pytest.raises(CheckpointError, match="give the scale"):
        recognise(state)
    for scale in SCALES:
        assert recognise(state, scale=scale).scale == scale


def test_given_scale_must_agree_with_the_shapes(plain) -> None:
    assert recognise(plain.basicsr(3), scale=3).scale == 3
    with pytest.raises(CheckpointError, match="scale: expected 2, the tensors are of 3"):
        recognise(plain.basicsr(3), scale=2)


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
def test_foreign_file_loads(tmp_path: Path, plain, picture, close, prefix: str) -> None:
    state = plain.basicsr(4)
    path = tmp_path / "EDSR_Mx4.safetensors"
    save_file({f"{prefix}{key}": value for key, value in state.items()}, path)
    with torch.no_grad():
        close(load_upsampler(path)(picture()), plain.run_basicsr(state, picture(), 4))


@pytest.mark.parametrize(("name", "scale"), [("fsrcnn_x3", 3), ("FSRCNN-X2-T91", 2), ("4x_fsrcnn", 4)])
def test_name_tells_the_scale_of_an_fsrcnn_if_its_weights_do_not(tmp_path: Path, plain, name: str, scale: int) -> None:
    path = tmp_path / f"{name}.safetensors"
    save_file(plain.fsrcnn(3, plain.lornatang_keys(1), flat_greys=False), path)
    assert load_upsampler(path).scale == scale


def test_weights_tell_the_scale_before_the_name(tmp_path: Path, plain) -> None:
    path = tmp_path / "fsrcnn_x2.safetensors"
    save_file(plain.fsrcnn(3, plain.lornatang_keys(1)), path)
    assert load_upsampler(path).scale == 3


@pytest.mark.parametrize("name", ["fsrcnn", "fsrcnn_x8", "fsrcnn_x25", "size12x3"])
def test_name_without_a_scale_is_no_help(tmp_path: Path, plain, name: str) -> None:
    path = tmp_path / f"{name}.safetensors"
    save_file(plain.fsrcnn(3, plain.lornatang_keys(1), flat_greys=False), path)
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
