from __future__ import annotations

from pathlib import Path

import pytest
import torch

from progressive_upsampling.core.checkpoint import CheckpointError, read_checkpoint, write_checkpoint
from progressive_upsampling.core.config import to_dict
from progressive_upsampling.core.denoise import denoise
from progressive_upsampling.core.denoiser_file import load_denoiser, save_denoiser
from progressive_upsampling.core.upsamplers import EDSR, EDSRConfig, save_upsampler

from .tiny import denoiser, picture, random_chain


def test_a_denoiser_reads_back_as_it_was(tmp_path: Path) -> None:
    model = denoiser()
    path = save_denoiser(model, tmp_path / "clean.safetensors", provenance={"description": "small"})
    read, checkpoint = load_denoiser(path), read_checkpoint(path)
    assert (checkpoint.kind, checkpoint.provenance) == ("denoiser", {"description": "small"})
    assert read.config == model.config and not read.training
    noisy, sigma = picture(), torch.full((1, 1, 33, 47), 0.1)
    assert torch.equal(denoise(read, noisy, sigma, dtype="fp32"), denoise(model, noisy, sigma, dtype="fp32"))


def test_half_precision_halves_the_file(tmp_path: Path) -> None:
    model = denoiser(widths=(32, 48))
    whole = save_denoiser(model, tmp_path / "a.safetensors", provenance={})
    half = save_denoiser(model, tmp_path / "b.safetensors", provenance={}, dtype=torch.float16)
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    assert next(load_denoiser(half).parameters()).dtype is torch.float32


def test_of_a_chain_it_is_that_of_the_first_stage(tmp_path: Path) -> None:
    chain = random_chain(2)
    with torch.no_grad():
        for parameter in chain.stage(2).denoiser.parameters():
            parameter += 1.0
    chain.save(tmp_path / "chain.safetensors", {})
    read = load_denoiser(tmp_path / "chain.safetensors").state_dict()
    for name, tensor in chain.stage(1).denoiser.state_dict().items():
        assert torch.equal(read[name], tensor)


def test_other_checkpoints_are_refused_by_name(tmp_path: Path) -> None:
    save_upsampler(EDSR(EDSRConfig(2, width=8, blocks=1)), tmp_path / "edsr.safetensors", provenance={})
    with pytest.raises(CheckpointError, match=r"edsr\.safetensors: expected a denoiser or a chain, got .*'upsampler'"):
        load_denoiser(tmp_path / "edsr.safetensors")
    with pytest.raises(CheckpointError, match="no such model"):
        load_denoiser("nothing")


def test_a_config_or_tensors_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model, path = denoiser(), tmp_path / "clean.safetensors"
    wrong = to_dict(model.config) | {"sigma_r": -1.0}
    write_checkpoint(path, model.state_dict(), kind="denoiser", config=wrong, provenance={})
    with pytest.raises(CheckpointError, match="damaged metadata: config: sigma_r"):
        load_denoiser(path)
    write_checkpoint(path, {"x": torch.ones(1)}, kind="denoiser", config=to_dict(model.config), provenance={})
    with pytest.raises(CheckpointError, match="do not fit Denoiser"):
        load_denoiser(path)
