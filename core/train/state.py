"""The resumable state of a run in one safetensors file: weights, averaged weights, optimisers, counters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoint import Checkpoint, CheckpointError, load_into, read_checkpoint, write_checkpoint
from ..config import from_dict, to_dict
from ..whole_file import UNFINISHED
from .config import TrainConfig
from .ema import EMA
from .learner import Learner
from .run_folder import SAMPLES

KIND = "training state"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq", "momentum_buffer")


@dataclass
class Counters:
    """Where a run is.

    Attributes:
        step: steps done.
        ema_updates: of the average.
        bad_steps: steps in a row, up to now, whose loss or gradient was not finite.
        best_stages: stages that were trained when the best model was found.
        best: its score by the config's `select`, averaged over the stages; None before the first validation.
        best_step: steps it had been trained for.
        seconds: time spent in steps.
        data: fingerprint of the training pictures.
        loss_scale: what losses are multiplied by in float16, 0 in other formats.
        loss_scale_steps: since it was changed last.
        validation: fingerprint of the pictures that `best` was measured on; empty where there were none.
    """

    step: int = 0
    ema_updates: int = 0
    bad_steps: int = 0
    best_stages: int = 0
    best: float | None = None
    best_step: int = 0
    seconds: float = 0.0
    data: str = ""
    loss_scale: float = 0.0
    loss_scale_steps: int = 0
    validation: str = ""


def save_state(
    path: Path,
    parts: list[Learner],
    ema: EMA[Any],
    counters: Counters,
    config: TrainConfig,
    provenance: Mapping[str, Any],
) -> None:
    """Writes the state, whole or not at all.

    Args:
        path: destination, ending in .safetensors.
        parts: the networks in training.
        ema: the model's average.
        counters: where the run is.
        config: of the run, which is resumed only with the same.
        provenance: what the run's models say of themselves.
    """
    counters.ema_updates = ema.updates
    tensors = {f"ema.{key}": value for key, value in ema.model.state_dict().items()}
    for part in parts:
        tensors |= {_model_prefix(part) + key: value for key, value in part.network.state_dict().items()}
        tensors |= _moments(part)
    state = {"run": to_dict(config.without_paths()), **asdict(counters)}
    write_checkpoint(path, tensors, kind=KIND, config=state, provenance=provenance)


def read_run(path: Path) -> TrainConfig:
    """The config that a run was started with; of the file that it started from the name alone.

    Raises:
        CheckpointError: the file is no training state, is damaged, or was written by another version.
    """
    return _run_of(path, read_checkpoint(path, KIND))


def read_state(path: Path, config: TrainConfig) -> tuple[Counters, Checkpoint]:
    """Where a run is, and what `restore` puts back.

    Args:
        path: of the state.
        config: of the run; what it starts from does not count, as all that came of it is in the state.

    Raises:
        CheckpointError: the file is no training state, is damaged, or belongs to a run with another config.
    """
    checkpoint = read_checkpoint(path, KIND)
    _check_config(path, _run_of(path, checkpoint), config)
    known = {item.name for item in fields(Counters)}
    try:
        return from_dict(Counters, {k: v for k, v in checkpoint.config.items() if k in known}), checkpoint
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged: {error}") from None


def restore(checkpoint: Checkpoint, counters: Counters, parts: list[Learner], ema: EMA[Any]) -> None:
    """Puts weights and optimisers back.

    Args:
        checkpoint: of `read_state`.
        counters: of `read_state`.
        parts: the networks in training, their optimisers as the run's phase has them.
        ema: the model's average.

    Raises:
        CheckpointError: tensors are missing or do not fit.
    """
    load_into(ema.model, checkpoint.tensors, "ema.")
    ema.updates = counters.ema_updates
    for part in parts:
        load_into(part.network, checkpoint.tensors, _model_prefix(part))
        _restore_moments(part, checkpoint.tensors)


def remove_leftovers(folder: Path) -> None:
    """Removes what killed writings of files and pictures have left in a run's folder, and nothing else."""
    for path in (left for place in (folder, folder / SAMPLES) for left in place.glob(UNFINISHED)):
        with suppress(OSError):
            path.unlink()


def _model_prefix(part: Learner) -> str:
    return f"{part.name}." if part.name else "model."


def _moments(part: Learner) -> dict[str, Tensor]:
    return {
        f"{part.prefix}.{key}.{name}": torch.as_tensor(value)
        for name, parameter in part.network.named_parameters()
        for key, value in part.optimizer.state.get(parameter, {}).items()
    }


def _restore_moments(part: Learner, tensors: Mapping[str, Tensor]) -> None:
    part.optimizer.state.clear()
    # a fused Adam counts its steps where the parameter is, any other on the CPU
    groups = part.optimizer.param_groups
    fused = {id(parameter) for group in groups if group["fused"] for parameter in group["params"]}
    for name, parameter in part.network.named_parameters():
        place = parameter.device if id(parameter) in fused else torch.device("cpu")
        state = dict(_moments_of(f"{part.prefix}.{{}}.{name}", parameter, place, tensors))
        if state:
            part.optimizer.state[parameter] = state


def _moments_of(
    pattern: str, parameter: nn.Parameter, place: torch.device, tensors: Mapping[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    for key in _MOMENTS:
        tensor = tensors.get(pattern.format(key))
        if tensor is not None and key == "step":
            yield key, tensor.to(place, torch.float32, copy=True)
        elif tensor is not None:  # in the parameter's own layout, as the optimiser would have made it
            yield key, torch.empty_like(parameter).copy_(tensor).detach()


def _run_of(path: Path, checkpoint: Checkpoint) -> TrainConfig:
    try:  # through the class, so that a state from before a setting existed has that setting's default
        return from_dict(TrainConfig, checkpoint.config.get("run"))  # type: ignore[arg-type]
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: written by another version: {error}") from None


def _check_config(path: Path, stored: TrainConfig, config: TrainConfig) -> None:
    run, wanted = to_dict(stored), to_dict(config)
    changed = [key for key, value in wanted.items() if key != "init" and run[key] != value]
    if changed:
        raise CheckpointError(f"{path}: the run was started with another config; different: {', '.join(changed)}")
