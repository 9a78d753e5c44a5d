"""Bundling a trained model, and changing what a checkpoint says of itself while its tensors stay as they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from progressive_upsampling.core.checkpoint import read_checkpoint, tensor_digest, write_checkpoint
from progressive_upsampling.core.denoiser_file import load_denoiser, save_denoiser
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
    provenance = _merged(checkpoint.provenance, changes)
    write_checkpoint(path, stored, kind=checkpoint.kind, config=checkpoint.config, provenance=provenance)
    after, _ = read_stored(path)
    same = stored.keys() == after.keys() and all(torch.equal(stored[name], after[name]) for name in stored)
    if not same or tensor_digest(path) != before:
        raise RuntimeError(f"{path}: expected the same tensors after writing, got others")
    return provenance


def bundle(
    source: Path, target: Path, changes: Mapping[str, Any], *, half: bool = True, denoiser: bool = False
) -> None:
    """Write a trained model as one to bundle.

    Args:
        source: a checkpoint.
        target: the file to write.
        changes: of its provenance, as for `rewrite`.
        half: whether to store it in half precision.
        denoiser: whether to take the denoiser of a chain's first stage, and nothing else.

    Raises:
        CheckpointError: no checkpoint of this package, or it cannot be written.
    """
    checkpoint, dtype = read_checkpoint(source), torch.float16 if half else None
    provenance = _merged(checkpoint.provenance, {"name": target.stem} | dict(changes))
    if denoiser:
        save_denoiser(load_denoiser(source), target, provenance=provenance, dtype=dtype)
        return
    kept = {"kind": checkpoint.kind, "config": checkpoint.config, "provenance": provenance}
    write_checkpoint(target, checkpoint.tensors, **kept, dtype=dtype)


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


def _merged(provenance: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(provenance) | dict(changes)
    return {key: value for key, value in merged.items() if value is not None}
