"""From a config, a state dict or a file to an upsampler with its weights."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoint import (
    FORMAT,
    CheckpointError,
    built,
    load_into,
    read_checkpoint,
    read_metadata,
    read_tensors,
    resolve,
    write_checkpoint,
)
from ..config import from_dict, to_dict
from .common import SCALES
from .edsr import EDSR, EDSRConfig
from .espcn import ESPCN, ESPCNConfig
from .fsrcnn import FSRCNN, FSRCNNConfig
from .layouts import LAYOUTS, edsr_config, espcn_config, fsrcnn_config, unwrap

Upsampler = ESPCN | FSRCNN | EDSR

_GREYS = (0.25, 0.5, 0.75)


class ScaleUnknownError(CheckpointError):
    """An FSRCNN whose scale neither its weights nor its name tells."""


def build_upsampler(config: Mapping[str, Any]) -> Upsampler:
    """Build an untrained upsampler.

    Args:
        config: `{"kind": "espcn" | "fsrcnn" | "edsr", …}` and the fields of that kind's config.

    Returns:
        The network, with the initialisation of its paper.

    Raises:
        ValueError: unknown kind or field, or a value out of range.
    """
    fields = {key: value for key, value in config.items() if key != "kind"}
    kind = config.get("kind")
    if kind == "espcn":
        return ESPCN(from_dict(ESPCNConfig, fields))
    if kind == "fsrcnn":
        return FSRCNN(from_dict(FSRCNNConfig, fields))
    if kind == "edsr":
        return EDSR(from_dict(EDSRConfig, fields))
    raise ValueError(f"kind: expected 'espcn', 'fsrcnn' or 'edsr', got {kind!r}")


def upsampler_config(module: Upsampler) -> dict[str, Any]:
    """The config from which `build_upsampler` builds a network of this shape.

    Raises:
        TypeError: `module` is no upsampler of this package.
    """
    if not isinstance(module, (ESPCN, FSRCNN, EDSR)):
        raise TypeError(f"module: expected ESPCN, FSRCNN or EDSR, got {type(module).__name__}")
    return {"kind": type(module).__name__.lower(), **to_dict(module.config)}


def recognise(state_dict: Mapping[str, Any], scale: int | None = None) -> Upsampler:
    """Build the upsampler that a state dict belongs to, from its keys and shapes alone.

    Args:
        state_dict: tensors by key, in any layout of `layouts.LAYOUTS`, with or without the prefixes of
            wrappers (`module.`, `params.`, `params_ema.`, …). Not changed.
        scale: 2, 3 or 4 for an FSRCNN, whose tensors have the same shapes at every scale; None finds it by
            trying which one keeps the brightness of a flat picture. For the others it must agree.

    Returns:
        The network with the weights, in eval mode.

    Raises:
        CheckpointError: a layout that is not known (lists those that are), tensors that are missing, left
            over or of another shape, or a scale that cannot be told.
    """
    tensors = unwrap(state_dict)
    layout = next((layout for layout in LAYOUTS if layout.matches(tensors)), None)
    if layout is None:
        found = ", ".join(list(tensors)[:4]) or "no tensors"
        known = "; ".join(f"{layout.name} ({', '.join(layout.marks)})" for layout in LAYOUTS)
        raise CheckpointError(f"no upsampler that is known here (found {found}, …); known are: {known}")
    try:
        own = layout.to_own(tensors)
        module = built(lambda: _build(layout.kind, own, scale))
        load_into(module, own)
    except ValueError as error:
        kind = type(error) if isinstance(error, CheckpointError) else CheckpointError
        raise kind(f"looks like {layout.name}, but {error}") from None
    if scale is not None and module.scale != scale:
        raise CheckpointError(f"{layout.name}: scale: expected {scale}, the tensors are of {module.scale}")
    return module.eval()


def load_upsampler(name_or_path: str | os.PathLike[str]) -> Upsampler:
    """Load an upsampler.

    Args:
        name_or_path: a bundled name, a checkpoint of this package, or a safetensors file in a foreign layout
            (see `recognise`; "x2", "x3" or "x4" in the file's name tells an FSRCNN's scale if
            its weights do not).

    Returns:
        The network, float32 on the CPU, in eval mode.

    Raises:
        CheckpointError: see `resolve`, `read_checkpoint` and `recognise`.
    """
    path = resolve(name_or_path)
    if read_metadata(path).get("format") != FORMAT:
        tensors, _ = read_tensors(path)
        try:
            return _recognise_file(tensors, path)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from None
    checkpoint = read_checkpoint(path, kind="upsampler")
    try:
        module = built(lambda: build_upsampler(checkpoint.config))
    except ValueError as error:
        raise CheckpointError(f"{path}: config: {error}") from None
    load_into(module, checkpoint)
    return module.eval()


def save_upsampler(
    module: Upsampler,
    path: str | os.PathLike[str],
    *,
    provenance: Mapping[str, Any],
    dtype: torch.dtype | None = None,
) -> Path:
    """Write an upsampler as a checkpoint of this package; see `write_checkpoint`."""
    config = upsampler_config(module)
    state = module.state_dict()
    return write_checkpoint(path, state, kind="upsampler", config=config, provenance=provenance, dtype=dtype)


def _build(kind: str, own: Mapping[str, Tensor], scale: int | None) -> Upsampler:
    if kind == "espcn":
        return ESPCN(espcn_config(own))
    if kind == "edsr":
        return EDSR(edsr_config(own))
    config = fsrcnn_config(own)
    if scale is None:
        scale = _fsrcnn_scale(config, own)
    return FSRCNN(replace(config, scale=scale))


def _recognise_file(tensors: Mapping[str, Tensor], path: Path) -> Upsampler:
    try:
        return recognise(tensors)
    except ScaleUnknownError:
        named = re.search(r"(?<![0-9])(?:x([234])|([234])x)(?![0-9])", path.stem.lower())
        if named is None:
            raise
        return recognise(tensors, scale=int(named[1] or named[2]))


def _fsrcnn_scale(config: FSRCNNConfig, own: Mapping[str, Tensor]) -> int:
    """The scale at which flat greys keep their brightness: at a wrong one it is off by (right / wrong)²."""
    errors = {}
    for scale in SCALES:
        network = FSRCNN(replace(config, scale=scale)).float()
        load_into(network, own)
        edge = network.halo * scale
        greys = torch.tensor(_GREYS, dtype=torch.float32).view(-1, 1, 1, 1)
        with torch.no_grad():
            flat = network.upsample_luma(greys.expand(-1, 1, 2 * network.halo + 1, 2 * network.halo + 1))
        errors[scale] = float((flat[..., edge:-edge, edge:-edge].mean((1, 2, 3)) - greys.flatten()).abs().max())
    best, second = sorted(errors, key=errors.__getitem__)[:2]
    if errors[best] < 0.1 and errors[second] > 2.0 * errors[best]:
        return best
    raise ScaleUnknownError(
        "its scale cannot be told from tensors that are the same at ×2, ×3 and ×4: "
        "give the scale, or put x2, x3 or x4 into the file's name"
    )
