"""`info`: what a checkpoint is, what it was trained on, and what it costs."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..chain import Chain
from ..checkpoint import Checkpoint, bundled, read_checkpoint, read_metadata, resolve, tensor_digest
from ..cost import Cost, chain_cost, upsampler_cost
from ..model_card import model_card
from ..upsamplers import load_upsampler, upsampler_config
from .console import Console, columns
from .models import kind_of

_WIDTH = 110  # characters of a line of text


def run(args: argparse.Namespace, console: Console) -> int:
    """Run the subcommand.

    Args:
        args: the parsed options.
        console: where to report.

    Returns:
        0.

    Raises:
        CheckpointError: no such checkpoint, or a damaged one.
    """
    print("\n".join(_list() if args.file is None else _describe(resolve(args.file))))
    return 0


def _list() -> list[str]:
    lines = ["Bundled checkpoints (`info NAME` tells more):"]
    for name in bundled():
        path = resolve(name)
        provenance = json.loads(read_metadata(path).get("provenance", "{}"))
        about = provenance.get("description", "")
        lines.append(f"  {name:<16} {kind_of(path):<10} {_megabytes(path)}  {about}".rstrip())
    return lines if len(lines) > 1 else ["No checkpoints are bundled with this installation."]


def _describe(path: Path) -> list[str]:
    kind = kind_of(path)
    lines = [f"file         {path} ({_megabytes(path)})"]
    if read_metadata(path).get("format") is None and kind == "upsampler":
        network = load_upsampler(path)
        lines += ["kind         upsampler, in a foreign layout without config and provenance"]
        return [*lines, *_block("config", upsampler_config(network)), *_cost(upsampler_cost(network))]
    checkpoint = read_checkpoint(path)
    lines += [f"kind         {kind} (format {checkpoint.version})", f"tensors      SHA-256 {tensor_digest(path)}"]
    card, rest = model_card(checkpoint.provenance)
    lines += ["card", *(line for label, text in card for line in _wrapped(label, text))] if card else []
    lines += _block("config", checkpoint.config)
    lines += _block("provenance", rest) if rest or not card else []
    return [*lines, *_cost_of(checkpoint, path)]


def _cost_of(checkpoint: Checkpoint, path: Path) -> list[str]:
    if checkpoint.kind == "chain":
        return _cost(chain_cost(Chain.from_pretrained(path)))
    if checkpoint.kind == "upsampler":
        return _cost(upsampler_cost(load_upsampler(path)))
    total = sum(tensor.numel() for tensor in checkpoint.tensors.values())
    return [f"parameters   {total:,}"]


def _cost(cost: Cost) -> list[str]:
    lines = [f"parameters   {cost.parameters:,}"]
    if not cost.stages:
        lines.append(f"MACs         {cost.macs / 1e3:,.1f} thousand per output pixel (x{cost.scale})")
        return [*lines, f"halo         {_halo(cost.parts[0].halo)} of the input"]
    run = f"whole x{cost.scale} chain, detail 0"
    lines.append(f"MACs         {cost.macs / 1e3:,.0f} thousand per output pixel ({run})")
    for number, macs in enumerate(cost.stages, 1):
        lines.append(f"  stage {number}    {macs / 1e3:,.0f} thousand per pixel of its own result")
    parts = [(p.name, f"{p.parameters:,}", f"{p.macs:,.0f}", _halo(p.halo)) for p in cost.parts]
    return [*lines, *columns([("part", "parameters", "MACs/pixel", "halo"), *parts])]


def _halo(pixels: int | None) -> str:
    return "-" if pixels is None else f"{pixels} px"


def _block(title: str, content: Mapping[str, Any]) -> list[str]:
    return [title, *(f"  {line}" for line in _tree(content))] if content else [f"{title:<12} none"]


def _wrapped(label: str, text: str) -> list[str]:
    """A label and its text on as many lines as it takes."""
    label = f"  {label}: "
    # a path or a name with hyphens stays in one piece
    return textwrap.wrap(label + text, _WIDTH, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False)


def _tree(value: Mapping[str, Any] | list[Any]) -> list[str]:
    """Nested values as indented lines; entries of a list are counted from 1."""
    entries = value.items() if isinstance(value, Mapping) else enumerate(value, 1)
    lines: list[str] = []
    for key, entry in entries:
        nested = isinstance(entry, (dict, list))
        if nested and entry and (isinstance(entry, dict) or any(isinstance(x, (dict, list)) for x in entry)):
            lines += [f"{key}:", *(f"  {line}" for line in _tree(entry))]
        else:
            lines.append(f"{key}: {json.dumps(entry, ensure_ascii=False) if nested else entry}")
    return lines


def _megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.2f} MB"
