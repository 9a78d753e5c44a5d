"""The README's tables: what is bundled beside bicubic, peers that were run here, and published figures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from progressive_upsampling.core.evaluate import BICUBIC
from progressive_upsampling.core.evaluate_denoising import NOISY

from .ledger import DENOISING, RESULTS, Ledger
from .measure import DENOISING_SET, SETS, SIGMAS

PUBLISHED = Path(__file__).with_name("published.json")
_DASH = "–"

Row = Sequence[str]


def quality_tables(ledger: Ledger, peers: Mapping[str, Any] | None) -> str:
    """The tables by factor, and that of denoising, as Markdown.

    Args:
        ledger: the figures of what is bundled.
        peers: those of peers that were run here, as `tests.tools.peers` writes them; None where there are none.
    """
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    scales = sorted({_scale(key) for record in ledger["models"].values() for key in record.get(RESULTS, {})})
    parts = [_upsampling(scale, ledger, peers or {}, published) for scale in scales]
    return "\n\n".join([*parts, *_denoising(ledger, published)])


def markdown(head: Row, rows: Iterable[Row], right: int = 0) -> str:
    """A table; the last `right` columns are aligned to the right."""
    rule = ["---"] * (len(head) - right) + ["---:"] * right
    return "\n".join(_line(row) for row in (head, rule, *rows))


def score(entry: Mapping[str, Any] | None) -> str:
    """PSNR and SSIM as papers give them, "37.24/.9572"."""
    return _DASH if entry is None else f"{entry['psnr']:.2f}/{entry['ssim']:.4f}".replace("/0.", "/.")


def counted(parameters: int | None) -> str:
    """A number of parameters, "3.70M" or "12K"."""
    if parameters is None:
        return _DASH
    return f"{parameters / 1e6:.2f}M" if parameters >= 1e5 else f"{parameters / 1e3:.0f}K"


def _upsampling(scale: int, ledger: Ledger, peers: Mapping[str, Any], published: Mapping[str, Any]) -> str:
    keys = [f"{folder} x{scale}" for folder in SETS]
    own = {name: record for name, record in ledger["models"].items() if _has(record.get(RESULTS, {}), keys)}
    told = published.get(f"x{scale}", ())
    run = {name: record for name, record in peers.get("peers", {}).items() if _has(record.get(RESULTS, {}), keys)}
    judged = [key for key in reversed(keys) if _judged(own, key)][:1]
    rows = []
    for name, record in sorted(own.items(), key=lambda item: (item[0] != BICUBIC, item[1].get("parameters", 0))):
        shown = name if name == BICUBIC else f"**{name}**"
        rows.append([shown, counted(record.get("parameters")), *_cells(record[RESULTS], keys, judged)])
    for name, record in run.items():
        rows.append([f"{name}, run here", counted(record["parameters"]), *_cells(record[RESULTS], keys, judged)])
    for entry in told:
        cells = [entry.get(folder, _DASH) for folder in SETS]
        rows.append([f"{entry['name']}, published", entry.get("parameters", _DASH), *cells, *(_DASH for _ in judged)])
    head = [f"×{scale}", "parameters", *SETS, *(f"PD-squeeze, {key.split()[0]}" for key in judged)]
    return markdown(head, rows, right=len(head) - 1)


def _cells(results: Mapping[str, Any], keys: Sequence[str], judged: Sequence[str]) -> list[str]:
    scores = [score(results.get(key)) for key in keys]
    return scores + [_distance(results.get(key)) for key in judged]


def _distance(entry: Mapping[str, Any] | None) -> str:
    return _DASH if entry is None or entry.get("distance") is None else f"{entry['distance']:.3f}"


def _denoising(ledger: Ledger, published: Mapping[str, Any]) -> list[str]:
    keys = [f"{DENOISING_SET} {sigma}" for sigma in SIGMAS]
    own = {name: record for name, record in ledger["models"].items() if _has(record.get(DENOISING, {}), keys)}
    if not own:
        return []
    rows = []
    for name, record in sorted(own.items(), key=lambda item: (item[0] != NOISY, item[0])):
        cells = [f"{record[DENOISING][key]['psnr']:.2f}" if key in record[DENOISING] else _DASH for key in keys]
        rows.append([name if name == NOISY else f"**{name}**", *cells])
    for entry in published["denoising"]:
        size = f" ({entry['parameters']})" if "parameters" in entry else ""
        rows.append([f"{entry['name']}{size}, published", *(entry[str(sigma)] for sigma in SIGMAS)])
    head = [f"colour denoising, {DENOISING_SET}, RGB-PSNR", *(f"σ {sigma}" for sigma in SIGMAS)]
    return [markdown(head, rows, right=len(SIGMAS))]


def _has(results: Mapping[str, Any], keys: Iterable[str]) -> bool:
    return any(key in results for key in keys)


def _judged(records: Mapping[str, Any], key: str) -> bool:
    return any(record[RESULTS].get(key, {}).get("distance") is not None for record in records.values())


def _scale(key: str) -> int:
    return int(key.rpartition(" x")[2])


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
