"""What a training run is set up from: a chain of its own, in a mode and a number format that can learn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..chain import Chain, channels_last
from ..precision import resolve_dtype
from .config import TrainConfig


@contextmanager
def learning() -> Iterator[None]:
    """Gradients, whatever mode the caller is in: ComfyUI runs its nodes in inference mode."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def trainable(init: Chain | None, config: TrainConfig, device: torch.device) -> Chain:
    """A chain of the run's own, ready for training: a copy of `init`, or one at birth, which the seed decides."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        chain = Chain(config.chain)
    if init is not None:
        chain.load_state_dict(init.state_dict())
    return channels_last(chain.to(device)).train()


def training_dtype(name: str, device: torch.device) -> torch.dtype:
    """The format of the forward pass, see `core.precision.resolve_dtype`; never float16.

    Raises:
        ValueError: `name` is unknown, or fp16.
    """
    dtype = resolve_dtype(name, device)
    if dtype != torch.float16:
        return dtype
    if name == "auto":  # float16 loses small gradients
        return torch.float32
    raise ValueError(f"dtype: expected auto, fp32 or bf16 for training, got {name!r}")


def training_autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Context in which a forward pass computes in `dtype`; float32 switches autocast off.

    Without the cache of cast weights: all threads share it, and whichever leaves a context of autocast empties it.
    The thread that makes the crops does, and then how often a weight was cast, and with it how its gradients are
    rounded, would depend on timing. So they are added up in float32, whatever happens elsewhere.
    """
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32, cache_enabled=False)
