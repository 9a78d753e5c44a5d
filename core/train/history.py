"""What a run did: one JSON object a line, flushed, so that a killed run keeps its history."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ..tensor_file import write_whole


class History:
    """Appends to RUN/history.jsonl.

    Args:
        path: the file.
        keep: entries with a step below this are kept, later ones belong to work that is done again.

    Attributes:
        last: the newest entry, None at the start.
    """

    def __init__(self, path: Path, keep: int) -> None:
        self._path = path
        kept = [entry for entry in read_history(path) if entry["step"] < keep]
        self.last: dict[str, Any] | None = kept[-1] if kept else None
        self._rewrite(kept)

    def add(self, step: int, **values: Any) -> None:
        """Adds the values of one step; numbers are written with six digits, those not finite as null."""
        self.last = {"step": step, **_plain(values)}
        self._file.write(json.dumps(self.last) + "\n")
        self._file.flush()

    def amend(self, **values: Any) -> None:
        """Adds values to the newest entry."""
        if self.last is None:
            raise ValueError("history: expected an entry to amend, got none")
        self._file.close()
        self.last = {**self.last, **_plain(values)}
        self._rewrite([*read_history(self._path)[:-1], self.last])

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _rewrite(self, entries: list[dict[str, Any]]) -> None:
        write_whole(self._path, "".join(json.dumps(entry) + "\n" for entry in entries).encode())
        self._file = self._path.open("a", encoding="utf-8")


def read_history(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a history; a line cut off by a kill is left out."""
    if not path.exists():
        return []
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("step"), int):
            entries.append(entry)
    return entries


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {key: _number(value) if isinstance(value, float) else value for key, value in values.items()}


def _number(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None  # NaN is no JSON
