"""The nodes under `--lowvram`, `--novram`, `--normalvram` and `--highvram`: ComfyUI's own loader with a pretended GPU.

ComfyUI takes the flags only where it finds a GPU, and decides by them how much of a model it loads. Here its device is
the CPU that it takes for a small GPU, so that every line of its loader runs but the copying itself.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import comfy.model_management as management
import pytest
import torch
from torch import Tensor, nn

from progressive_upsampling.nodes.denoise import AttnUNetDenoise
from progressive_upsampling.nodes.progressive_upscale import ProgressiveUpscale
from progressive_upsampling.nodes.upsample import Upsample

from .conftest import REAL_COMFYUI, call

pytestmark = pytest.mark.skipif(not REAL_COMFYUI, reason="the stand-in loads every model whole; set COMFYUI_PATH")

GPU = torch.device("cpu", 0)
STATES = ("NO_VRAM", "LOW_VRAM", "NORMAL_VRAM", "HIGH_VRAM")
Picture = Callable[..., Tensor]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """A function that gives ComfyUI a GPU and one of its `VRAMState`s."""

    def give(state: str) -> None:
        monkeypatch.setattr(management, "vram_state", management.VRAMState[state])
        monkeypatch.setattr(management, "is_device_cpu", lambda device: device != GPU)
        monkeypatch.setattr(management, "get_torch_device", lambda: GPU)

    management.unload_all_models()
    yield give
    monkeypatch.undo()
    management.unload_all_models()


@pytest.fixture
def chain(chain: Any) -> Any:
    """The tiny chain, not known to ComfyUI yet: what it knows stays on the device of its first run."""
    fresh = copy.deepcopy(chain)
    vars(fresh).pop("_comfy_patcher", None)
    return fresh


def loaded(network: nn.Module) -> list[Any]:
    """What ComfyUI's list of loaded models holds of a network."""
    return [m for m in management.current_loaded_models if m.model is getattr(network, "_comfy_patcher", None)]


@pytest.mark.parametrize("state", STATES)
def test_pictures_do_not_depend_on_the_state(
    picture: Picture, chain: Any, gpu: Callable[[str], None], state: str
) -> None:
    image = picture(40, 50)

    def results(model: Any) -> list[Tensor]:
        return [
            call(ProgressiveUpscale, image=image, model=model, scale=4.0, detail=0.5)[0],
            call(Upsample, image=image, model=model, scale=2.0)[0],
            call(AttnUNetDenoise, noisy_image=image, sigma_map=torch.full((1, 40, 50), 0.1), model=model)[0],
        ]

    expected = results(copy.deepcopy(chain))
    gpu(state)
    for _ in range(2):  # a model that is loaded already goes another way than a new one
        assert all(map(torch.equal, results(chain), expected))
    (entry,) = loaded(chain)
    assert entry.device == GPU


@pytest.mark.parametrize("state", STATES)
def test_comfyui_frees_what_it_loaded(picture: Picture, chain: Any, gpu: Callable[[str], None], state: str) -> None:
    gpu(state)
    before, _ = call(ProgressiveUpscale, image=picture(), model=chain, scale=2.0)
    assert len(loaded(chain)) == 1
    management.free_memory(1e32, GPU)  # as another node that wants all of it
    assert not loaded(chain)
    after, _ = call(ProgressiveUpscale, image=picture(), model=chain, scale=2.0)
    assert torch.equal(before, after)


def test_part_of_a_model_taken_away_comes_back(picture: Picture, chain: Any, gpu: Callable[[str], None]) -> None:
    gpu("LOW_VRAM")
    before, _ = call(ProgressiveUpscale, image=picture(), model=chain, scale=2.0)
    (entry,) = loaded(chain)
    entry.model.partially_unload(torch.device("cpu"), 1)
    after, _ = call(ProgressiveUpscale, image=picture(), model=chain, scale=2.0)
    assert torch.equal(before, after)
