"""A denoiser by itself: from a checkpoint of its own, or from the first stage of a chain's; and its file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .chain import KIND as CHAIN
from .chain import Chain, channels_last
from .checkpoint import CheckpointError, built, load_into, read_checkpoint, resolve, write_checkpoint
from .config import from_dict, to_dict
from .denoiser import Denoiser, DenoiserConfig

KIND = "denoiser"
BLIND = "denoiser"  # bundled: takes noise out of a picture without a conditioning image


def load_denoiser(name_or_path: str | os.PathLike[str]) -> Denoiser:
    """Load a denoiser.

    Args:
        name_or_path: a bundled name or a file, of kind "denoiser" or "chain". Of a chain it is the first stage's, which
            sees pictures as they are: those of later stages are made for what the first ones leave.

    Returns:
        The network, float32 on the CPU, ready to run.

    Raises:
        CheckpointError: no such checkpoint, a damaged one, or one of another kind.
    """
    path = resolve(name_or_path)
    checkpoint = read_checkpoint(path)
    if checkpoint.kind == CHAIN:
        return Chain.from_pretrained(path).stage(1).denoiser
    if checkpoint.kind != KIND:
        raise CheckpointError(f"{path}: expected a denoiser or a chain, got a checkpoint of kind {checkpoint.kind!r}")
    try:
        denoiser = built(lambda: Denoiser(from_dict(DenoiserConfig, checkpoint.config)))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged metadata: config: {error}") from error
    load_into(denoiser, checkpoint)
    return channels_last(denoiser).eval()


def save_denoiser(
    denoiser: Denoiser,
    path: str | os.PathLike[str],
    *,
    provenance: Mapping[str, Any],
    dtype: torch.dtype | None = None,
) -> Path:
    """Write a denoiser as a checkpoint of its own; see `write_checkpoint`."""
    config = to_dict(denoiser.config)
    return write_checkpoint(path, denoiser.state_dict(), kind=KIND, config=config, provenance=provenance, dtype=dtype)
