"""What a run did: one JSON object a line, flushed, so that a killed run keeps its history."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class History:
    """Appends to RUN/history.jsonl.

    Args:
        path: the file.
        keep: entries with a step below this are kept, later ones belong to work that is done again.
    """

    def __init__(self, path: Path, keep: int) -> None:
        kept = [entry for entry in read_history(path) if entry["step"] < keep]
        path.write_text("".join(json.dumps(entry) + "\n" for entry in kept), encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")

    def add(self, step: int, **values: Any) -> None:
        """Adds the values of one step; numbers are written with six digits."""
        rounded = {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in values.items()}
        self._file.write(json.dumps({"step": step, **rounded}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_history(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a history; a line cut off by a kill is left out."""
    if not path.exists():
        return []
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return entries
