"""Stand-in for `comfy.model_management`: networks run on a GPU where there is one, and rest on the CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

OOM_EXCEPTION = torch.cuda.OutOfMemoryError
interrupt_processing = False
loaded: list[Any] = []


class InterruptProcessingException(Exception):
    """Raised where the user's cancel takes effect."""


def get_torch_device() -> torch.device:
    """The device that networks run on."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def unet_offload_device() -> torch.device:
    """The device that networks rest on."""
    return torch.device("cpu")


def intermediate_device() -> torch.device:
    """The device of values that travel between nodes."""
    return torch.device("cpu")


def module_size(module: nn.Module) -> int:
    """Bytes of a module's state."""
    return sum(value.nelement() * value.element_size() for value in module.state_dict().values())


def load_models_gpu(models: list[Any], memory_required: float = 0, force_full_load: bool = False) -> None:
    """Bring patched models to their load device."""
    for patcher in models:
        patcher.model.to(patcher.load_device)
        if patcher not in loaded:
            loaded.append(patcher)


def unload_all_models() -> None:
    """Move every patched model to where it rests."""
    for patcher in loaded:
        patcher.model.to(patcher.offload_device)
    loaded.clear()


def soft_empty_cache(force: bool = False) -> None:
    """Give cached device memory back."""


def interrupt_current_processing(value: bool = True) -> None:
    """Ask the running node to stop, or withdraw that."""
    global interrupt_processing
    interrupt_processing = value


def throw_exception_if_processing_interrupted() -> None:
    """Stop here when the user cancelled."""
    global interrupt_processing
    if interrupt_processing:
        interrupt_processing = False
        raise InterruptProcessingException
