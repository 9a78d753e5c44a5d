"""Checkpoints: one safetensors file whose metadata holds config, format version and provenance as JSON."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save
from torch import Tensor, nn

from .tensor_file import SUFFIX, CheckpointError, read_stored, write_whole

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "Checkpoint",
    "CheckpointError",
    "built",
    "bundled",
    "load_into",
    "read_checkpoint",
    "read_metadata",
    "read_tensors",
    "resolve",
    "tensor_digest",
    "write_checkpoint",
]

FORMAT = "progressive_upsampling"
FORMAT_VERSION = 1

_WEIGHTS = Path(__file__).parent / "weights"
_SHOWN_KEYS = 4

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        kind: what the tensors are: "chain", "upsampler", "denoiser", "training state", …
        config: JSON object from which the network is built.
        tensors: float32 (or integer) CPU tensors by name.
        provenance: JSON object: training data, recipe, licence, metrics.
        version: format version of the file.
        path: the file it was read from; None for one made in memory.
    """

    kind: str
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    provenance: dict[str, Any]
    version: int = FORMAT_VERSION
    path: Path | None = None


def bundled() -> list[str]:
    """Names of the checkpoints that come with the package, sorted."""
    return sorted(path.stem for path in _WEIGHTS.glob(f"*{SUFFIX}"))


def resolve(name_or_path: str | os.PathLike[str]) -> Path:
    """Find the file of a bundled name or a path.

    Args:
        name_or_path: a bundled name (see `bundled`), or the path of an existing file. A bundled name wins
            over a file of that very name in the working folder.

    Returns:
        The path of an existing file.

    Raises:
        CheckpointError: no such name or file, or a folder; lists the bundled names for a bare name.
    """
    if isinstance(name_or_path, str) and name_or_path in bundled():
        return _WEIGHTS / f"{name_or_path}{SUFFIX}"
    path = Path(name_or_path).expanduser()
    if path.is_dir() and os.fspath(name_or_path):
        raise CheckpointError(f"{path}: expected a {SUFFIX} file, got a folder")
    if path.is_file():
        return path
    if path.suffix or len(path.parts) > 1:
        raise CheckpointError(f"{path}: no such file")
    names = ", ".join(bundled()) or "none"
    raise CheckpointError(f"{os.fspath(name_or_path)!r}: no such model; bundled are: {names}; or give a {SUFFIX} file")


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read the metadata of any safetensors file, without its tensors.

    Raises:
        CheckpointError: as `read_tensors`, as far as the header shows it.
    """
    return read_stored(Path(path), tensors=False)[1]


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read any safetensors file.

    Args:
        path: the file.

    Returns:
        The tensors by name, on the CPU, floating ones as float32; and the file's metadata.

    Raises:
        CheckpointError: missing, a folder, empty, truncated, damaged, no safetensors (a pickle is refused
            with the way to convert it), or a tensor with NaN or infinite values.
    """
    path = Path(path)
    stored, metadata = read_stored(path)
    return _as_float32(stored, path), metadata


def tensor_digest(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a safetensors file's tensors: names, dtypes, shapes and values; metadata does not count.

    Raises:
        CheckpointError: as `read_tensors`, but for values that are not finite.
    """
    return _digest(read_stored(Path(path))[0])


def read_checkpoint(path: str | os.PathLike[str], kind: str | None = None) -> Checkpoint:
    """Read a checkpoint of this package.

    Args:
        path: the file (see `resolve` for bundled names).
        kind: the kind that is wanted; None takes any.

    Returns:
        The checkpoint, floating tensors as float32 whatever they are stored in.

    Raises:
        CheckpointError: as `read_tensors`; or the file is of something else, of a newer format, of another
            kind, or its metadata or tensors are damaged.
    """
    path = Path(path)
    stored, metadata = read_stored(path)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path}: a safetensors file of something else (no {FORMAT} metadata)")
    try:
        version = int(metadata["format_version"])
    except (KeyError, ValueError):
        raise CheckpointError(f"{path}: damaged metadata: format_version is no whole number") from None
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: written in format {version}, newer than this version reads ({FORMAT_VERSION}); "
            "update progressive-upsampling"
        )
    found = metadata.get("kind", "")
    if kind is not None and found != kind:
        raise CheckpointError(f"{path}: expected a checkpoint of kind {kind!r}, got {found!r}")
    config = _json_object(metadata, "config", path)
    provenance = _json_object(metadata, "provenance", path)
    # written by every version; whoever edits the tensors on purpose drops it
    if "sha256" in metadata and metadata["sha256"] != _digest(stored):
        raise CheckpointError(f"{path}: damaged: the tensors do not match the file's checksum")
    return Checkpoint(found, config, _as_float32(stored, path), provenance, version, path)


def write_checkpoint(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    *,
    kind: str,
    config: Mapping[str, Any],
    provenance: Mapping[str, Any],
    dtype: torch.dtype | None = None,
) -> Path:
    """Write a checkpoint, whole or not at all.

    The file is written beside its destination and moved over it when it is complete, so a failure leaves
    the old file, or none.

    Args:
        path: destination, ending in .safetensors; its folder must exist.
        tensors: by name, any device; they are not changed.
        kind: what the tensors are.
        config: JSON object from which the network is built.
        provenance: JSON object: training data, recipe, licence, metrics.
        dtype: storage of floating tensors (`torch.float16` halves the file); None keeps theirs.

    Returns:
        The path written.

    Raises:
        CheckpointError: wrong suffix, no such folder, a tensor is not finite (in `dtype`), config or
            provenance are no JSON, or the system refuses the write.
    """
    path = Path(path).expanduser()
    if path.suffix != SUFFIX:
        raise CheckpointError(f"{path}: expected a name ending in {SUFFIX}")
    stored = {name: _storable(name, tensor, dtype, path) for name, tensor in tensors.items()}
    try:
        metadata = {
            "format": FORMAT,
            "format_version": str(FORMAT_VERSION),
            "kind": kind,
            "config": json.dumps(config, allow_nan=False),
            "provenance": json.dumps(provenance, allow_nan=False),
            "sha256": _digest(stored),
        }
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: config and provenance must be JSON: {error}") from None
    write_whole(path, save(stored, metadata))
    return path


def built(make: Callable[[], Network]) -> Network:
    """A network to load tensors into: float32 on the CPU, whatever torch's default dtype and device are.

    Args:
        make: builds it.
    """
    with torch.device("cpu"):
        return make().float()


def load_into(module: nn.Module, checkpoint: Checkpoint | Mapping[str, Tensor], prefix: str = "") -> None:
    """Copy a checkpoint's tensors into a network, all of them and no others.

    Args:
        module: the network.
        checkpoint: a checkpoint, or tensors by name.
        prefix: only the tensors whose names start with it are used, without it.

    Raises:
        CheckpointError: missing, unexpected or differently shaped tensors; names the first few. The network
            is unchanged then.
    """
    if isinstance(checkpoint, Checkpoint):
        tensors, source = checkpoint.tensors, str(checkpoint.path or "checkpoint")
    else:
        tensors, source = checkpoint, "tensors"
    given = {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
    wanted = module.state_dict()
    shapes = [
        f"{name} (expected {list(wanted[name].shape)}, got {list(value.shape)})"
        for name, value in given.items()
        if name in wanted and wanted[name].shape != value.shape
    ]
    problems = [
        f"{len(names)} {word}: {_first(names)}"
        for word, names in (
            ("missing", [name for name in wanted if name not in given]),
            ("unexpected", [name for name in given if name not in wanted]),
            ("of another shape", shapes),
        )
        if names
    ]
    if problems:
        raise CheckpointError(f"{source}: tensors do not fit {type(module).__name__}: " + "; ".join(problems))
    module.load_state_dict(given)


def _as_float32(stored: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    tensors = {name: t.float() if t.is_floating_point() else t for name, t in stored.items()}
    bad = [name for name, t in tensors.items() if not torch.isfinite(t).all()]
    if bad:
        raise CheckpointError(f"{path}: NaN or infinite values in {_first(bad)}")
    return tensors


def _storable(name: str, tensor: Tensor, dtype: torch.dtype | None, path: Path) -> Tensor:
    tensor = tensor.detach()
    if dtype is not None and tensor.is_floating_point():
        tensor = tensor.to(dtype)
    if not torch.isfinite(tensor).all():
        raise CheckpointError(f"{path}: not written: {name} has values that are not finite as {tensor.dtype}")
    # a copy of its own: safetensors refuses tensors that share memory
    return tensor.to("cpu", memory_format=torch.contiguous_format, copy=True)


def _digest(stored: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(stored):
        tensor = stored[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _json_object(metadata: Mapping[str, str], key: str, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(metadata[key])
    except (KeyError, ValueError):
        value = None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: damaged metadata: {key} is no JSON object")
    return value


def _first(names: Iterable[str]) -> str:
    names = list(names)
    more = len(names) - _SHOWN_KEYS
    return ", ".join(names[:_SHOWN_KEYS]) + (f" and {more} more" if more > 0 else "")
