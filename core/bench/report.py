"""What a suite measured: a table to read, and figures to keep and compare."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """One number.

    Attributes:
        name: what it is of, the same in every run of the suite.
        value: the number.
        unit: of the value.
        better: "lower" or "higher".
    """

    name: str
    value: float
    unit: str
    better: str


@dataclass(frozen=True)
class Report:
    """The result of a suite.

    Attributes:
        title: what was measured, and how.
        table: rows of cells, the head first.
        notes: lines below the table.
        figures: all that is worth comparing between versions.
    """

    title: str
    table: Sequence[Sequence[str]]
    notes: Sequence[str]
    figures: Sequence[Figure]


def to_json(machine: str, version: str, suites: Mapping[str, Sequence[Report]]) -> str:
    """The figures of a run of the benchmark as JSON text."""
    figures = {
        name: [asdict(figure) for report in reports for figure in report.figures] for name, reports in suites.items()
    }
    return json.dumps({"machine": machine, "version": version, "suites": figures}, indent=2, allow_nan=False) + "\n"


def read_figures(path: str | Path) -> tuple[str, dict[str, list[Figure]]]:
    """The machine and the figures by suite of a file that `to_json` made.

    Raises:
        OSError: it cannot be read.
        ValueError: it is something else.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        suites = {name: [Figure(**figure) for figure in figures] for name, figures in content["suites"].items()}
        machine = f"{content['machine']}, version {content['version']}"
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path}: expected a file that `bench --json` has written: {type(error).__name__}: {error}"
        ) from error
    return machine, suites


def against(suites: Mapping[str, Sequence[Report]], before: Mapping[str, Sequence[Figure]]) -> list[list[str]]:
    """A table of the figures beside those of an earlier run.

    Returns:
        rows of (suite, figure, before, now, ratio, verdict), the head first; a ratio above 1 is better, whichever
        way the figure is good.
    """
    rows = [["suite", "figure", "before", "now", "unit", "ratio", ""]]
    for suite, reports in suites.items():
        known = {figure.name: figure for figure in before.get(suite, ())}
        for figure in (figure for report in reports for figure in report.figures):
            old = known.get(figure.name)
            if old is None or old.unit != figure.unit:
                continue
            ratio = _ratio(old.value, figure.value) if figure.better == "lower" else _ratio(figure.value, old.value)
            verdict = "better" if ratio > 1.05 else "worse" if ratio < 0.95 else ""
            rows.append(
                [suite, figure.name, f"{old.value:.4g}", f"{figure.value:.4g}", figure.unit, f"{ratio:.2f}x", verdict]
            )
    return rows


def _ratio(a: float, b: float) -> float:
    return 1.0 if a == b else a / b if b else float("inf")
