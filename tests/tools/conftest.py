"""Small stand-ins for the bundled models and the standard sets."""

from __future__ import annotations

from pathlib import Path

import pytest
import skimage.data
import torch
from PIL import Image

from progressive_upsampling.core import checkpoint
from progressive_upsampling.core.denoiser_file import save_denoiser
from progressive_upsampling.core.upsamplers import EDSR, EDSRConfig, save_upsampler

from ..core.tiny import denoiser, random_chain, randomised

TOLD = {"description": "A small {}", "data": "none", "seed": 3, "licence": "MIT", "limits": "small | odd"}


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a chain, an upsampler and a denoiser, in the place of the bundled ones."""
    folder = tmp_path / "weights"
    folder.mkdir()
    told = {kind: TOLD | {"description": f"A small {kind}"} for kind in ("chain", "edsr", "denoiser")}
    random_chain(2).save(folder / "default.safetensors", told["chain"], torch.float16)
    edsr = randomised(EDSR(EDSRConfig(3, width=4, blocks=1)), 0.01)
    save_upsampler(edsr, folder / "edsr_x3.safetensors", provenance=told["edsr"])
    save_denoiser(denoiser(), folder / "denoiser.safetensors", provenance=told["denoiser"])
    monkeypatch.setattr(checkpoint, "_WEIGHTS", folder)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Set5 and B100 of small pictures, and a list of those of CBSD68; no Set14."""
    folder = tmp_path / "data"
    for name, count in (("Set5", 2), ("B100", 3)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = skimage.data.astronaut()[40 * number : 40 * number + 49, 150:200]
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    (folder / "CBSD68.txt").write_text("0.png\n2.png\n")
    return folder
