"""The resumable state of a run in one safetensors file: weights, averaged weights, optimisers, counters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoint import CheckpointError, load_into, read_checkpoint, write_checkpoint
from ..config import from_dict, to_dict
from .config import TrainConfig
from .ema import EMA

KIND = "training state"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass
class Counters:
    """Where a run is.

    Attributes:
        step: steps done.
        ema_updates: of the average.
        bad_steps: steps in a row, up to now, whose loss or gradient was not finite.
        best_stages: stages that were trained when the best model was found.
        best: its score, Y-PSNR in dB averaged over the stages; None before the first validation.
        best_step: steps it had been trained for.
        seconds: time spent in steps.
        data: fingerprint of the training pictures.
    """

    step: int = 0
    ema_updates: int = 0
    bad_steps: int = 0
    best_stages: int = 0
    best: float | None = None
    best_step: int = 0
    seconds: float = 0.0
    data: str = ""


@dataclass(frozen=True)
class Trained:
    """A network with what its training needs besides: prefixes of its tensors in the file are made of the name.

    Attributes:
        name: "" for the chain.
        network: the weights in training.
        optimizer: its Adam.
    """

    name: str
    network: nn.Module
    optimizer: torch.optim.Adam

    @property
    def prefix(self) -> str:
        """Of the optimiser's tensors."""
        return f"{self.name}_optimizer" if self.name else "optimizer"


def save_state(
    path: Path,
    parts: list[Trained],
    ema: EMA[Any],
    counters: Counters,
    config: TrainConfig,
    provenance: Mapping[str, Any],
) -> None:
    """Writes the state, whole or not at all.

    Args:
        path: destination, ending in .safetensors.
        parts: the networks in training.
        ema: the chain's average.
        counters: where the run is.
        config: of the run, which is resumed only with the same.
        provenance: what the run's models say of themselves.
    """
    counters.ema_updates = ema.updates
    tensors = {f"ema.{key}": value for key, value in ema.model.state_dict().items()}
    for part in parts:
        tensors |= {_model_prefix(part) + key: value for key, value in part.network.state_dict().items()}
        tensors |= _moments(part)
    state = {"run": to_dict(config), **asdict(counters)}
    write_checkpoint(path, tensors, kind=KIND, config=state, provenance=provenance)


def load_state(
    path: Path, parts: list[Trained], ema: EMA[Any], config: TrainConfig
) -> tuple[Counters, dict[str, Any]]:
    """Puts everything back.

    Returns:
        The counters and the provenance.

    Raises:
        CheckpointError: the file is no training state, is damaged, or belongs to a run with another config.
    """
    checkpoint = read_checkpoint(path, KIND)
    _check_config(path, checkpoint.config.get("run"), config)
    known = {item.name for item in fields(Counters)}
    try:
        counters = from_dict(Counters, {k: v for k, v in checkpoint.config.items() if k in known})
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged: {error}") from None
    load_into(ema.model, checkpoint.tensors, "ema.")
    ema.updates = counters.ema_updates
    for part in parts:
        load_into(part.network, checkpoint.tensors, _model_prefix(part))
        _restore_moments(part, checkpoint.tensors)
    return counters, checkpoint.provenance


def remove_leftovers(folder: Path) -> None:
    """Removes what killed writings have left in a run's folder, and nothing else."""
    for name in ("*.safetensors", "*.jsonl", "*.json"):
        for path in folder.glob(f".{name}.*.tmp"):
            with suppress(OSError):
                path.unlink()


def _model_prefix(part: Trained) -> str:
    return f"{part.name}." if part.name else "model."


def _moments(part: Trained) -> dict[str, Tensor]:
    return {
        f"{part.prefix}.{key}.{name}": torch.as_tensor(value)
        for name, parameter in part.network.named_parameters()
        for key, value in part.optimizer.state.get(parameter, {}).items()
    }


def _restore_moments(part: Trained, tensors: Mapping[str, Tensor]) -> None:
    part.optimizer.state.clear()
    for name, parameter in part.network.named_parameters():
        state = dict(_moments_of(f"{part.prefix}.{{}}.{name}", parameter, tensors))
        if state:
            part.optimizer.state[parameter] = state


def _moments_of(pattern: str, parameter: nn.Parameter, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for key in _MOMENTS:
        tensor = tensors.get(pattern.format(key))
        if tensor is not None:
            # in the parameter's own layout, as Adam would have made it; Adam keeps its step on the CPU
            yield key, tensor.clone() if key == "step" else torch.empty_like(parameter).copy_(tensor).detach()


def _check_config(path: Path, stored: Any, config: TrainConfig) -> None:
    try:
        # through the class, so that a state from before a setting existed has that setting's default
        run = to_dict(from_dict(TrainConfig, stored))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: written by another version: {error}") from None
    wanted = to_dict(config)
    changed = [key for key, value in wanted.items() if run.get(key) != value]
    if changed:
        raise CheckpointError(f"{path}: the run was started with another config; different: {', '.join(changed)}")
