"""Changing what a checkpoint says of itself, and nothing else: its tensors stay as they are, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from progressive_upsampling.core.checkpoint import read_checkpoint, tensor_digest, write_checkpoint
from progressive_upsampling.core.tensor_file import read_stored

from .ledger import DENOISING, RESULTS, Ledger
from .tables import score


def rewrite(path: Path, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Write a checkpoint anew with a changed provenance.

    Args:
        path: the file.
        changes: values by key; None takes a key out.

    Returns:
        The provenance that it has now.

    Raises:
        CheckpointError: no checkpoint of this package, or it cannot be written; the file is as it was then.
        RuntimeError: the tensors are not the same any more.
    """
    checkpoint, (stored, _) = read_checkpoint(path), read_stored(path)
    before = tensor_digest(path)
    merged = checkpoint.provenance | dict(changes)
    provenance = {key: value for key, value in merged.items() if value is not None}
    write_checkpoint(path, stored, kind=checkpoint.kind, config=checkpoint.config, provenance=provenance)
    after, _ = read_stored(path)
    same = stored.keys() == after.keys() and all(torch.equal(stored[name], after[name]) for name in stored)
    if not same or tensor_digest(path) != before:
        raise RuntimeError(f"{path}: expected the same tensors after writing, got others")
    return provenance


def changes_of(words: Sequence[str]) -> dict[str, Any]:
    """What `KEY=VALUE` words ask for: a value is JSON where it can be read as such, else text.

    Raises:
        ValueError: a word without a key.
    """
    changes: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ValueError(f"--set: expected KEY=VALUE, got {word!r}")
        try:
            changes[key] = json.loads(value)
        except ValueError:
            changes[key] = value
    return changes


def metrics_of(ledger: Ledger, name: str) -> dict[str, Any]:
    """The figures of a model as its provenance tells them.

    Raises:
        ValueError: it has not been measured.
    """
    record = ledger["models"].get(name, {})
    told = {
        title: {key: score(entry) for key, entry in record.get(section, {}).items()}
        for title, section in (("Y-PSNR/SSIM", RESULTS), ("RGB-PSNR/SSIM of denoising", DENOISING))
    }
    told = {title: figures for title, figures in told.items() if figures}
    if not told:
        raise ValueError(f"{name}: expected a model that `measure` has measured")
    return told
