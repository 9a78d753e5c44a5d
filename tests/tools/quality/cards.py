"""The cards of the bundled models as Markdown: from each file, its provenance, and the figures measured of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from progressive_upsampling.core.checkpoint import Checkpoint, read_checkpoint
from progressive_upsampling.core.model_card import model_card
from progressive_upsampling.core.tensor_file import read_stored

from .ledger import DENOISING, RESULTS, Ledger
from .models import Bundled
from .tables import markdown, score

_MEASURED = "metrics"  # of the provenance: below, measured anew, in the place of what was true when it was written


def cards(models: list[Bundled], ledger: Ledger) -> str:
    """A section for each model."""
    return "\n\n".join(_card(model, ledger["models"][model.name]) for model in models)


def network(checkpoint: Checkpoint) -> str:
    """What a checkpoint's config says, in words."""
    config = checkpoint.config
    if checkpoint.kind == "chain":
        stages = config["stages"]
        told = [
            f"stage {number}{' and on' if number == len(stages) else ''}: {_stage(stage)}"
            for number, stage in enumerate(stages, 1)
        ]
        return "; ".join(told)
    return _upsampler(config) if checkpoint.kind == "upsampler" else _denoiser(config)


def _card(model: Bundled, record: Mapping[str, Any]) -> str:
    checkpoint = read_checkpoint(model.path)
    card, _ = model_card(checkpoint.provenance)
    told = {label: text for label, text in card if label not in ("name", "description", _MEASURED)}
    rows = {"kind": f"{checkpoint.kind}, format {checkpoint.version}", "network": network(checkpoint)}
    rows["parameters"] = f"{record['parameters']:,}, {_stored(model)}"
    if "macs" in record:
        at = " of the ×8 chain at detail 0" if checkpoint.kind == "chain" else ""
        rows["multiply-adds"] = f"{record['macs'] / 1e3:,.0f} thousand per output pixel{at}"
    rows |= {label: f"`{text}`" if label == "command" else text for label, text in told.items()}
    rows["SHA-256 of the tensors"] = f"`{model.digest}`"
    description = dict(card).get("description")
    parts = [f"## `{model.name}`", *([f"{description}."] if description else []), markdown(("", ""), _escaped(rows))]
    return "\n\n".join([*parts, *_measured(record)])


def _escaped(rows: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(label, " ".join(text.replace("|", "\\|").split())) for label, text in rows.items()]


def _stored(model: Bundled) -> str:
    stored, _ = read_stored(model.path)
    formats = {str(tensor.dtype).removeprefix("torch.") for tensor in stored.values() if tensor.is_floating_point()}
    return f"stored as {' and '.join(sorted(formats))}, {model.path.stat().st_size / 1e6:.2f} MB"


def _measured(record: Mapping[str, Any]) -> list[str]:
    tables = []
    if record.get(RESULTS):
        head = ("set, scale", "pictures", "Y-PSNR/SSIM", "spectrum, dB", "PD-squeeze", "seconds a picture")
        rows = [(_times(key), str(entry["pictures"]), *_figures(entry)) for key, entry in _sorted(record[RESULTS])]
        tables.append(markdown(head, rows, right=5))
    if record.get(DENOISING):
        head = ("denoising, σ", "pictures", "RGB-PSNR/SSIM", "spectrum, dB", "PD-squeeze", "seconds a picture")
        rows = [(key, str(entry["pictures"]), *_figures(entry)) for key, entry in _sorted(record[DENOISING])]
        tables.append(markdown(head, rows, right=5))
    by = sorted({entry["by"] for key in (RESULTS, DENOISING) for entry in record.get(key, {}).values()})
    return [*tables, *([f"Measured with {'; '.join(by)}."] if by else [])]


def _figures(entry: Mapping[str, Any]) -> tuple[str, ...]:
    distance = entry.get("distance")
    judged = "–" if distance is None else f"{distance:.3f}"
    return (score(entry), f"{entry['spectrum']:.2f}", judged, f"{entry['seconds']:.2f}")


def _sorted(entries: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """By factor (or noise), then as the sets are usually told: the small ones first."""
    return sorted(entries.items(), key=lambda item: (int(item[0].split()[1].lstrip("x")), item[1]["pictures"]))


def _times(key: str) -> str:
    return key.replace(" x", " ×")


def _stage(stage: Mapping[str, Any]) -> str:
    return f"{_upsampler(stage['upsampler'])}; {_denoiser(stage['denoiser'])}"


def _upsampler(config: Mapping[str, Any]) -> str:
    fields = ", ".join(f"{key} {value}" for key, value in config.items() if key not in ("kind", "scale"))
    return f"{config['kind'].upper()} ×{config['scale']}, {fields}"


def _denoiser(config: Mapping[str, Any]) -> str:
    unet = config["unet"]
    return f"attention U-Net, widths {json.dumps(unet['widths'])}, blocks {json.dumps(unet['blocks'])}"
