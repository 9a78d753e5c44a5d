"""The models that nodes work with, each loaded once."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import torch

from ..core.chain import DEFAULT, Chain
from ..core.denoiser import Denoiser
from ..core.denoiser_file import BLIND, load_denoiser
from . import _runtime as runtime

T = TypeVar("T")


def fingerprint(path: str) -> tuple[str, int, int]:
    """What changes when a file does."""
    state = os.stat(path)
    return path, state.st_mtime_ns, state.st_size


def watched(name: str | None) -> Any:
    """What a node's fingerprint says of the model that an input names: something else once its file has changed.

    Args:
        name: as a user chooses it; None where it comes through a link, which ComfyUI does not tell beforehand.
    """
    if name is None:
        return ""
    try:
        return fingerprint(runtime.model_path(name))
    except (ValueError, OSError):
        return float("nan")  # never equal: let execute say what is wrong


def load_once(path: str, loader: Callable[[str], T]) -> T:
    """Load a network, or return the one loaded before if the file has not changed since."""
    return _load_once(loader, *fingerprint(path))


@lru_cache(maxsize=4)
def _load_once(loader: Callable[[str], T], path: str, _mtime: int, _size: int) -> T:
    # Nodes run in inference mode, whose tensors could never be trained.
    with torch.inference_mode(False):
        return loader(path)


def chain_or_default(model: Chain | None) -> Chain:
    """The connected model, or the bundled one.

    Raises:
        TypeError: what is connected is no model of this pack.
    """
    if model is None:
        return load_once(runtime.model_path(DEFAULT), Chain.from_pretrained)
    if not isinstance(model, Chain):
        raise TypeError(f"model: expected a progressive model (PU_MODEL), got {type(model).__name__}")
    return model


def bundled_denoiser() -> Denoiser:
    """The bundled denoiser for blind use."""
    return load_once(runtime.model_path(BLIND), load_denoiser)
