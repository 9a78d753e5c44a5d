from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from skimage.transform import rescale
from torch.nn import functional as F

from progressive_upsampling.core.chain import Chain
from progressive_upsampling.core.resample import resample
from progressive_upsampling.core.train.degrade import matlab_imresize
from progressive_upsampling.core.upsamplers import EDSR, ESPCN, EDSRConfig, ESPCNConfig, save_upsampler

from ..core.tiny import random_chain, randomised
from .first_stage import fit_tail, main, with_direct_tail

SHAPE = EDSRConfig(2, width=8, blocks=2)


@pytest.fixture
def source() -> EDSR:
    """An EDSR of the classic tail, not trained."""
    torch.manual_seed(0)
    return randomised(EDSR(SHAPE), 0.02)


@pytest.fixture
def truth() -> torch.Tensor:
    """A photograph, `[1, 3, 96, 128]` uint8."""
    return torch.from_numpy(skimage.data.astronaut()[20:116, 180:308].copy()).permute(2, 0, 1)[None]


def test_features_are_those_of_the_source_over_255(source, truth):
    small = truth[..., :24, :32].float() / 255 - source.mean
    with torch.no_grad():
        expected = source._features(small * 255) / 255
        assert torch.allclose(with_direct_tail(source)._features(small), expected, atol=1e-6)
    assert expected.std() > 0.01


def test_the_tail_is_the_least_squares_solution(source, truth):
    network = with_direct_tail(source)
    fit_tail(network, [truth])
    small = matlab_imresize(truth, scale=0.5).float() / 255
    with torch.no_grad():
        features = F.pad(network._features(small - network.mean), (1, 1, 1, 1))[0].numpy()
    columns = [features[:, i : i + 48, j : j + 64].reshape(8, -1) for i in range(3) for j in range(3)]
    known = np.concatenate([np.stack(columns, 1).reshape(72, -1), np.ones((1, 48 * 64))]).T.astype(np.float64)
    lacking = (truth.float() / 255 - resample(small, (96, 128)))[0].numpy()
    missing = lacking.reshape(3, 48, 2, 64, 2).transpose(0, 2, 4, 1, 3).reshape(12, -1).T
    best = known @ np.linalg.lstsq(known, missing, rcond=None)[0]
    with torch.no_grad():
        found = (network(small) - resample(small, (96, 128)))[0].numpy()
    found = found.reshape(3, 48, 2, 64, 2).transpose(0, 2, 4, 1, 3).reshape(12, -1).T
    error, least = ((one - missing) ** 2 for one in (found, best))
    assert error.mean() == pytest.approx(least.mean(), rel=1e-3)
    assert least.mean() < 0.8 * (missing**2).mean()


def test_a_direct_tail_is_refused(source):
    with pytest.raises(ValueError, match="expected an EDSR with the classic tail, got direct"):
        with_direct_tail(with_direct_tail(source))


def test_the_tool_replaces_the_first_upsampler_alone(source, truth, tmp_path: Path):
    chain = random_chain(2)
    upsampler = {"kind": "edsr", "scale": 2, "width": 8, "blocks": 2, "tail": "direct"}
    first = replace(chain.config.stages[0], upsampler=upsampler)
    Chain(replace(chain.config, stages=(first, chain.config.stages[1]))).save(tmp_path / "chain.safetensors")
    save_upsampler(source, tmp_path / "edsr.safetensors", provenance={})
    folder = tmp_path / "data" / "deeper"
    folder.mkdir(parents=True)
    Image.fromarray(truth[0].permute(1, 2, 0).numpy()).save(folder / "a.png")
    Image.fromarray((255 * rescale(skimage.data.camera(), 0.2)).astype(np.uint8)).save(folder / "b.png")
    files = [str(tmp_path / name) for name in ("edsr.safetensors", "chain.safetensors", "out.safetensors")]
    assert main([*files[:2], "--data", str(tmp_path / "data"), "--out", files[2]]) == 0
    assert Chain.from_pretrained(files[2]).provenance == {"recipe": f"tests.tools.first_stage {files[0]} {files[1]}"}
    before, after = (Chain.from_pretrained(file).state_dict() for file in files[1:])
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith("stages.0.upsampler.")}


@pytest.mark.parametrize(("upsampler", "message"), [("edsr_x3", "expected a first stage of"), ("espcn_x2", "EDSR")])
def test_what_does_not_fit_is_refused(upsampler, message, weights: Path, data: Path, capsys, tmp_path: Path):
    save_upsampler(ESPCN(ESPCNConfig(2)), weights / "espcn_x2.safetensors", provenance={})
    with pytest.raises(SystemExit):
        main([upsampler, "default", "--data", str(data), "--out", str(tmp_path / "out.safetensors")])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.safetensors").exists()
