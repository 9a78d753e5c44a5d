from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from progressive_upsampling.core.chain import Chain, ChainConfig
from progressive_upsampling.core.checkpoint import read_checkpoint
from progressive_upsampling.core.cli import main
from progressive_upsampling.core.config import to_dict
from progressive_upsampling.core.denoiser import DenoiserConfig
from progressive_upsampling.core.pictures import write_picture
from progressive_upsampling.core.stage import StageConfig
from progressive_upsampling.core.train.config import PhaseConfig, TrainConfig
from progressive_upsampling.core.unet import UNetConfig
from progressive_upsampling.core.upsamplers import EDSR, EDSRConfig, save_upsampler


@pytest.fixture(scope="session")
def chain_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a small chain that changes pictures visibly."""
    torch.manual_seed(0)
    unet = UNetConfig(widths=(8, 16), blocks=(1, 1), heads=2, window=4)
    upsampler = {"kind": "edsr", "scale": 2, "width": 8, "blocks": 1, "tail": "direct"}
    stage = StageConfig(upsampler=upsampler, denoiser=DenoiserConfig(unet))
    chain = Chain(ChainConfig((stage,), back_projection=True))
    with torch.no_grad():
        for parameter in chain.parameters():
            if not parameter.any():  # the layers that make an untrained chain equal bicubic
                parameter.normal_(0, 0.02)
    path = tmp_path_factory.mktemp("models") / "small.safetensors"
    chain.save(path, {"description": "a small chain for tests", "data": ["none"]})
    return path


@pytest.fixture(scope="session")
def network_file(chain_file: Path) -> Path:
    """A checkpoint of one small ×3 upsampler."""
    torch.manual_seed(1)
    path = chain_file.with_name("edsr_x3.safetensors")
    save_upsampler(EDSR(EDSRConfig(3, width=8, blocks=1)), path, provenance={"description": "a small EDSR"})
    return path


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A picture of an awkward size."""
    generator = torch.Generator().manual_seed(0)
    path = tmp_path / "in" / "photo.png"
    path.parent.mkdir()
    coarse = torch.rand(1, 3, 5, 7, generator=generator)
    image = torch.nn.functional.interpolate(coarse, (33, 47), mode="bicubic").clamp(0, 1)
    write_picture(path, image)
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the command in this process: exit status, stdout, stderr."""

    def call(*argv: object) -> tuple[int, str, str]:
        status = main([str(word) for word in argv])
        out, err = capsys.readouterr()
        return status, out, err

    return call


@pytest.fixture
def photos(tmp_path):
    generator, folder = torch.Generator().manual_seed(0), tmp_path / "my photos"
    folder.mkdir()
    for number, size in enumerate([(61, 53), (47, 70)]):
        coarse = torch.rand(1, 3, 9, 9, generator=generator)
        image = torch.nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 1)
        write_picture(folder / f"{number}.png", image)
    return folder


@pytest.fixture
def held(photos: Path) -> Path:
    """The same pictures in a folder of their own, to validate with."""
    return Path(shutil.copytree(photos, photos.with_name("held")))


@pytest.fixture
def config(tmp_path, chain_file) -> Path:
    """Two short phases of the small chain."""
    phase = {"crop": 4, "batch": 1, "warmup": 1, "learning_rate": 1e-3}
    phases = (PhaseConfig(stages=1, steps=2, **phase), PhaseConfig(stages=2, steps=3, start_from=1, **phase))
    chain = Chain.from_pretrained(chain_file).config
    run = TrainConfig(chain=chain, phases=phases, dtype="fp32", validate_every=2, save_every=2)
    path = tmp_path / "short.json"
    path.write_text(json.dumps(to_dict(run)))
    return path


def weights(path: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(path).tensors


def same(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def files(folder: Path) -> list[str]:
    """What is in a folder, at all levels."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
