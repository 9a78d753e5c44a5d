"""The resumable state of a run in one safetensors file: weights, averaged weights, optimiser, step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoint import CheckpointError, load_into, read_checkpoint, write_checkpoint
from .ema import EMA

KIND = "training state"


def save_state(
    path: Path, model: nn.Module, ema: EMA[Any], optimizer: torch.optim.Adam, step: int, config: dict[str, Any]
) -> None:
    """Writes the state, whole or not at all.

    Args:
        path: destination, ending in .safetensors.
        step: steps done.
        config: of the run, as JSON; a run is resumed only with the same.
    """
    tensors: dict[str, Tensor] = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in ema.model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{key}.{name}"] = torch.as_tensor(value)
    config = {"run": config, "step": step, "ema_updates": ema.updates}
    write_checkpoint(path, tensors, kind=KIND, config=config, provenance={})


def load_state(path: Path, model: nn.Module, ema: EMA[Any], optimizer: torch.optim.Adam, config: dict[str, Any]) -> int:
    """Puts everything back and returns the steps done.

    Raises:
        CheckpointError: the file is no training state, is damaged, or belongs to a run with another config.
    """
    checkpoint = read_checkpoint(path, KIND)
    if checkpoint.config["run"] != config:
        changed = [key for key, value in config.items() if checkpoint.config["run"].get(key) != value]
        raise CheckpointError(f"{path}: the run was started with another config; different: {', '.join(changed)}")
    load_into(model, checkpoint.tensors, "model.")
    load_into(ema.model, checkpoint.tensors, "ema.")
    ema.updates = int(checkpoint.config["ema_updates"])
    optimizer.state.clear()
    for name, parameter in model.named_parameters():
        suffix, state = f".{name}", {}
        for key in ("step", "exp_avg", "exp_avg_sq"):
            tensor = checkpoint.tensors.get(f"optimizer.{key}{suffix}")
            if tensor is not None:
                state[key] = tensor.clone() if key == "step" else torch.empty_like(parameter).copy_(tensor)
        if state:
            optimizer.state[parameter] = state
    return int(checkpoint.config["step"])
