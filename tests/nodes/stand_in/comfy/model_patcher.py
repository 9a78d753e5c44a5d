"""Stand-in for `comfy.model_patcher`."""

from __future__ import annotations

import torch
from torch import nn

from . import model_management


class ModelPatcher:
    """Holds a network and where it runs and rests."""

    def __init__(self, model: nn.Module, load_device: torch.device, offload_device: torch.device) -> None:
        self.model = model
        # The real one sets this attribute too, which fails on a module with a read-only `device`.
        if getattr(model, "device", None) is None:
            model.device = offload_device
        self.load_device = load_device
        self.offload_device = offload_device
        self.size = model_management.module_size(model)
