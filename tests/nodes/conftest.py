"""Fixtures of the node tests; see bind_comfy.py for which ComfyUI they run against."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from .bind_comfy import bind_comfy

REAL_COMFYUI = bind_comfy()


@pytest.fixture(autouse=True)
def every_step_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Later versions of ComfyUI (0.29 does) tell of progress at most ten times a second; tests count the steps."""
    import comfy.utils

    for name in ("PROGRESS_THROTTLE_MIN_INTERVAL", "PROGRESS_THROTTLE_MIN_PERCENT"):
        monkeypatch.setattr(comfy.utils, name, 0.0, raising=False)


def call(node: type[Any], **inputs: Any) -> tuple[Any, ...]:
    """Run a node as the server does, with the defaults of its schema for inputs that are not given."""
    values = {}
    for port in node.GET_SCHEMA().inputs:
        if not port.optional and getattr(port, "default", None) is not None:
            values[port.id] = port.default
    result = node.execute(**(values | inputs))
    return result.args


@pytest.fixture
def picture() -> Callable[..., Tensor]:
    """A function that makes IMAGEs of smooth shapes and texture, `[B, H, W, C]` in 0..1."""

    def make(height: int = 21, width: int = 34, batch: int = 1, channels: int = 3, seed: int = 0) -> Tensor:
        random = torch.Generator().manual_seed(seed)
        y = torch.linspace(0, 6, height)[:, None, None]
        x = torch.linspace(0, 9, width)[None, :, None]
        c = torch.arange(channels, dtype=torch.float32)
        waves = 0.5 + 0.3 * torch.sin(x + c) * torch.cos(y * (1 + seed) - c)
        noise = 0.1 * torch.rand(batch, height, width, channels, generator=random)
        return (waves + noise).clamp(0, 1)

    return make


@pytest.fixture(scope="session")
def chain() -> Any:
    """A tiny chain of two stages whose every part does something."""
    from progressive_upsampling.core.chain import Chain, ChainConfig
    from progressive_upsampling.core.denoiser import DenoiserConfig
    from progressive_upsampling.core.stage import StageConfig
    from progressive_upsampling.core.unet import UNetConfig

    unet = UNetConfig(widths=(8, 12), blocks=(1, 1), heads=2, window=4)
    upsampler = {"kind": "edsr", "scale": 2, "width": 8, "blocks": 1, "tail": "direct"}
    stage = StageConfig(upsampler=upsampler, denoiser=DenoiserConfig(unet=unet))
    chain = Chain(ChainConfig((stage, stage), back_projection=True)).eval()
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in chain.parameters():
            parameter += 0.03 * torch.randn(parameter.shape, generator=random)
        for stage_ in chain.stages:
            stage_.skip_weights.weights.copy_(torch.tensor([0.1, 0.2, 0.3]))
    chain.provenance = {"data": "none: a test", "licence": "MIT"}
    return chain


@pytest.fixture
def model_folder() -> Iterator[Path]:
    """The folder that models are loaded from and saved in, empty before and after."""
    from progressive_upsampling.nodes import _runtime

    folder = Path(_runtime.model_folder())
    assert not list(folder.iterdir())
    yield folder
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


@pytest.fixture
def runs() -> Iterator[Path]:
    """The folder of training runs, not there before and after."""
    from progressive_upsampling.nodes import _runtime

    folder = _runtime.runs_folder()
    assert not folder.exists()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def default_chain(chain: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The tiny chain in place of the bundled model."""
    from progressive_upsampling.nodes import _models

    real = _models.chain_or_default
    monkeypatch.setattr(_models, "chain_or_default", lambda model: real(chain if model is None else model))
    return chain


@pytest.fixture
def data(picture: Callable[..., Tensor]) -> Any:
    """Training data of three pictures, one of them held back."""
    from progressive_upsampling.nodes.training_data import TrainingData

    return call(TrainingData, images=picture(66, 71, batch=3), validation_share=0.1)[0]


@pytest.fixture
def train(chain: Any, data: Any, runs: Path) -> Callable[..., tuple[Any, ...]]:
    """A function that trains the tiny chain for a few steps."""
    from progressive_upsampling.nodes.train import Train

    from .training import QUICK

    def run(**changes: Any) -> tuple[Any, ...]:
        return call(Train, **({"data": data, "model": chain} | QUICK | changes))

    return run


@pytest.fixture
def hook() -> Iterator[Callable[[Callable[..., None]], None]]:
    """A function that sets what hears of every report of a progress bar."""
    import comfy.model_management as management
    import comfy.utils

    before = comfy.utils.PROGRESS_BAR_HOOK
    yield comfy.utils.set_progress_bar_global_hook
    comfy.utils.set_progress_bar_global_hook(before)
    management.interrupt_current_processing(False)
