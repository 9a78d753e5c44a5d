"""The one JSON file that holds every figure: read, compared with what is bundled, and written whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from progressive_upsampling.core.picture_output import write_atomic

from .models import Bundled

PROTOCOL = (
    "Y-PSNR (dB) and SSIM of the 8-bit result, scale pixels cropped; spectrum: error of the power spectrum (dB); "
    "distance: PD-squeeze of RGB; denoising: RGB-PSNR and RGB-SSIM of the whole picture; photographs: Y-PSNR (RGB-PSNR "
    "where noise was taken out) of crops of scikit-image's, float32; seconds: of a picture"
)
RESULTS, DENOISING, PHOTOGRAPHS = "results", "denoising", "photographs"

Ledger = dict[str, Any]


def read_ledger(path: Path) -> Ledger:
    """The figures so far; none where the file is not there.

    Raises:
        ValueError: it is something else.
    """
    if not path.exists():
        return {"protocol": PROTOCOL, "judge": None, "models": {}}
    try:
        ledger = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(ledger["models"], dict):
            raise TypeError("models")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected a file that `measure` has written: {error!r}") from error
    return ledger


def write_ledger(path: Path, ledger: Ledger) -> None:
    """Write the figures, whole or not at all, in an order that does not depend on that of measuring."""
    models = ledger["models"]
    ledger["models"] = {name: _ordered(models[name]) for name in sorted(models, key=_place(models))}
    write_atomic(path, (json.dumps(ledger, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def renew(ledger: Ledger, models: list[Bundled]) -> None:
    """Take out what is not bundled any more, and the figures of files whose tensors have changed."""
    known, names = ledger["models"], {model.name for model in models}
    for name in [name for name, record in known.items() if "sha256" in record and name not in names]:
        del known[name]
    for model in models:
        if known.get(model.name, {}).get("sha256") != model.digest:
            known[model.name] = model.facts()


def stale(ledger: Ledger, models: list[Bundled]) -> list[str]:
    """What the file lacks or has too much, in words."""
    known = ledger["models"]
    problems = [f"{model.name} is not in it" for model in models if model.name not in known]
    problems += [
        f"the weights of {model.name} have changed"
        for model in models
        if model.name in known and known[model.name].get("sha256") != model.digest
    ]
    names = {model.name for model in models}
    return problems + [
        f"{name} is not bundled" for name, record in known.items() if "sha256" in record and name not in names
    ]


def lacks(ledger: Ledger, name: str, section: str, key: str, judged: bool) -> bool:
    """Whether a figure must be measured."""
    entry = ledger["models"].get(name, {}).get(section, {}).get(key)
    return entry is None or (judged and entry.get("distance") is None)


def put(ledger: Ledger, name: str, section: str, key: str, entry: Any) -> None:
    """Keep a figure."""
    ledger["models"].setdefault(name, {}).setdefault(section, {})[key] = entry


def _ordered(record: dict[str, Any]) -> dict[str, Any]:
    sections = (RESULTS, DENOISING, PHOTOGRAPHS)
    facts = {key: value for key, value in record.items() if key not in sections}
    return facts | {key: dict(sorted(record[key].items())) for key in sections if key in record}


def _place(models: dict[str, Any]) -> Any:
    """References first, then models by name."""
    return lambda name: ("sha256" in models[name], name)
