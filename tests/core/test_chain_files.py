"""The chain as a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from progressive_upsampling.core.chain import Chain
from progressive_upsampling.core.checkpoint import CheckpointError, read_checkpoint, write_checkpoint
from progressive_upsampling.core.config import to_dict

from .tiny import largest_difference, picture, random_chain

FP32: dict[str, Any] = {"dtype": "fp32"}


@pytest.fixture(scope="module")
def chain() -> Chain:
    """A small chain of two stages of which every part does something."""
    return random_chain()


@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_a_saved_chain_is_the_same_chain(chain: Chain, tmp_path: Path, dtype: torch.dtype | None) -> None:
    path = tmp_path / "chain.safetensors"
    chain.save(path, {"data": "none", "licence": "MIT"}, dtype)
    read = Chain.from_pretrained(path)
    assert read.config == chain.config
    assert read.provenance == {"data": "none", "licence": "MIT"}
    assert not read.training
    assert {value.dtype for value in read.parameters()} == {torch.float32}
    image = picture(9, 11)
    difference = largest_difference(read(image, 4, **FP32), chain(image, 4, **FP32))
    assert difference < (1e-5 if dtype is None else 2e-3)
    assert (difference > 0) or dtype is None


def test_half_precision_halves_the_file(chain: Chain, tmp_path: Path) -> None:
    for name, dtype in (("whole", None), ("half", torch.float16)):
        chain.save(tmp_path / f"{name}.safetensors", {}, dtype)
    header = 16_000
    whole, half = ((tmp_path / f"{name}.safetensors").stat().st_size for name in ("whole", "half"))
    assert half < whole / 2 + header < whole + header
    assert sum(p.numel() for p in chain.parameters()) * 2 < half


def test_saving_again_keeps_where_it_came_from(chain: Chain, tmp_path: Path) -> None:
    path = tmp_path / "chain.safetensors"
    chain.save(path, {"data": "mine"})
    Chain.from_pretrained(path).save(path)
    assert read_checkpoint(path).provenance == {"data": "mine"}


def test_a_bundled_name_is_found(chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("progressive_upsampling.core.checkpoint._WEIGHTS", tmp_path)
    chain.save(tmp_path / "default.safetensors", {"data": "bundled"})
    chain.save(tmp_path / "other.safetensors", {"data": "other"})
    assert Chain.from_pretrained().provenance == {"data": "bundled"}
    assert Chain.from_pretrained("other").provenance == {"data": "other"}
    with pytest.raises(CheckpointError, match="'nothing': no such model; bundled are: default, other"):
        Chain.from_pretrained("nothing")


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    write_checkpoint(path, {"a": torch.zeros(1)}, kind="upsampler", config={}, provenance={})
    with pytest.raises(CheckpointError, match="expected a checkpoint of kind 'chain', got 'upsampler'"):
        Chain.from_pretrained(path)


@pytest.mark.parametrize(
    "config",
    [
        {"stages": []},
        {"stages": 3},
        {"levels": 3},
        {"stages": [{"kappa": -1.0}]},
        {"stages": [{"upsampler": {"kind": "no"}}]},
    ],
)
def test_a_checkpoint_with_a_broken_config_is_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    path = tmp_path / "chain.safetensors"
    write_checkpoint(path, {"a": torch.zeros(1)}, kind="chain", config=config, provenance={})
    with pytest.raises(CheckpointError, match=r"chain.safetensors: damaged metadata: config: "):
        Chain.from_pretrained(path)


def test_a_checkpoint_whose_tensors_do_not_fit_is_refused(chain: Chain, tmp_path: Path) -> None:
    path = tmp_path / "chain.safetensors"
    tensors = dict(list(chain.state_dict().items())[1:])
    write_checkpoint(path, tensors, kind="chain", config=to_dict(chain.config), provenance={})
    with pytest.raises(CheckpointError, match=r"1 missing: stages\.0"):
        Chain.from_pretrained(path)
