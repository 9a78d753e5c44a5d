"""Finding picture files."""

from __future__ import annotations

import os
from pathlib import Path

from ..picture_format import READABLE
from .run_folder import CONFIG, CURVES, HISTORY, SAMPLES


def picture_files(folder: Path) -> list[Path]:
    """The files under a folder, at all levels, whose names are those of pictures; sorted.

    The curves and samples of training runs are left out: a run in a folder of pictures must not learn from itself.
    """
    found = []
    for here, folders, names in os.walk(folder):
        if CONFIG in names and HISTORY in names:
            folders[:] = set(folders) - {SAMPLES}
            names = set(names) - {CURVES}
        paths = [Path(here, name) for name in names]
        found += [path for path in paths if path.suffix.lower() in READABLE and path.is_file()]
    return sorted(found)
