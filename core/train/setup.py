"""In what mode, and in which number format, a network learns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..precision import resolve_dtype


@contextmanager
def learning() -> Iterator[None]:
    """Gradients, whatever mode the caller is in: ComfyUI runs its nodes in inference mode.

    Numbers under float32's normal ones count as 0 meanwhile, where the processor offers it: with them it computes many
    times as slowly, and gradients and Muon's matrices come to hold them. A step of the blind denoiser had grown from
    0.35 s to 1.3 s after 2500. Threads that torch started before go on as they were.
    """
    flushed = _flushes_denormals()
    with torch.inference_mode(False), torch.enable_grad():
        torch.set_flush_denormal(True)
        try:
            yield
        finally:
            torch.set_flush_denormal(flushed)


def _flushes_denormals() -> bool:
    smallest = torch.tensor(torch.finfo(torch.float32).smallest_normal)
    return (smallest / 2).item() == 0.0


def training_dtype(name: str, device: torch.device) -> torch.dtype:
    """The format of the forward pass, see `core.precision.resolve_dtype`."""
    dtype = resolve_dtype(name, device)
    # float16 loses small gradients: it is for those who ask for it, and then the losses are scaled
    return torch.float32 if name == "auto" and dtype is torch.float16 else dtype


def loss_scaler(device: torch.device, dtype: torch.dtype) -> torch.amp.GradScaler:
    """Scales losses so that float16 holds their gradients (Micikevicius 2018, arXiv 1710.03740); else does nothing."""
    return torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)


def training_autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Context in which a forward pass computes in `dtype`; float32 switches autocast off.

    Without the cache of cast weights: all threads share it, and whichever leaves a context of autocast empties it.
    The thread that makes the crops does, and then how often a weight was cast, and with it how its gradients are
    rounded, would depend on timing. So they are added up in float32, whatever happens elsewhere.
    """
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32, cache_enabled=False)
