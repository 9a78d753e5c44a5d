from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from progressive_upsampling.core.adaptive_noise import NoiseControllerConfig
from progressive_upsampling.core.chain import ChainConfig
from progressive_upsampling.core.denoiser import DenoiserConfig
from progressive_upsampling.core.dynamic_weights import DynamicWeightsConfig
from progressive_upsampling.core.residual import SkipWeightsConfig
from progressive_upsampling.core.stage import StageConfig
from progressive_upsampling.core.train.config import PhaseConfig, TrainConfig
from progressive_upsampling.core.train.loop import Trainer
from progressive_upsampling.core.unet import UNetConfig


def tiny_stage() -> StageConfig:
    return StageConfig(
        upsampler={"kind": "edsr", "scale": 2, "width": 4, "blocks": 1, "tail": "direct"},
        denoiser=DenoiserConfig(UNetConfig(widths=(4, 8), blocks=(1, 1), heads=2, window=4, channel_window=2)),
        controller=NoiseControllerConfig(width=4),
        fusion=DynamicWeightsConfig(width=4),
        skip=SkipWeightsConfig(levels=2),
    )


def tiny_chain(stages: int = 2) -> ChainConfig:
    return ChainConfig(tuple(tiny_stage() for _ in range(stages)))


def tiny_config(**changes: object) -> TrainConfig:
    """Three phases of two steps, with one stage more in each; the third reuses the second's weights."""
    phase = {"steps": 2, "crop": 4, "batch": 2, "learning_rate": 1e-3, "warmup": 1, "noisy": 0.5}
    phases = (
        PhaseConfig(stages=1, **phase),
        PhaseConfig(stages=2, start_from=1, **phase),
        PhaseConfig(stages=3, **phase),
    )
    settings = {"chain": tiny_chain(), "phases": phases, "dtype": "fp32", "validate_every": 2, "save_every": 2}
    return TrainConfig(**(settings | changes))


def noise_picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def soft_picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Blobs with edges, as pictures have."""
    coarse = Image.fromarray(noise_picture(height // 6 + 2, width // 6 + 2, seed))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of pictures that are large enough for every phase of `tiny_config`."""
    for number, (height, width) in enumerate([(67, 83), (70, 66), (129, 71)]):
        save(tmp_path / "photos" / f"{number}.png", soft_picture(height, width, number))
    return tmp_path / "photos"


@pytest.fixture
def held(photos: Path) -> Path:
    """The same pictures in a folder of their own, to validate with."""
    return Path(shutil.copytree(photos, photos.with_name("held")))


@pytest.fixture
def straight(photos, held, tmp_path) -> Path:
    """The run of `tiny_config`, uninterrupted."""
    Trainer(tiny_config(), photos, tmp_path / "straight", val=held).run()
    return tmp_path / "straight"
