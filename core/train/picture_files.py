"""Finding picture files."""

from __future__ import annotations

import os
from pathlib import Path

from ..picture_format import READABLE
from .run_folder import CONFIG, CURVES, HISTORY, SAMPLES


def picture_files(folder: Path) -> list[Path]:
    """The files under a folder, at all levels, whose names are those of pictures; sorted.

    Links are followed, but no folder is searched twice and no file comes twice, as a part of them may be held back from
    training: one that is there itself and by a link goes by its own name. Curves and samples of runs are left out: a
    run in a folder of pictures must not learn from itself.
    """
    found: list[Path] = []
    seen: set[str] = set()
    starts = [folder]
    for start in starts:  # links come last, which os.walk itself does not follow
        for here, folders, names in os.walk(start):
            place = os.path.realpath(here)
            if place in seen:
                folders.clear()
                continue
            seen.add(place)
            made = {CURVES, SAMPLES} if CONFIG in names and HISTORY in names else set()
            folders[:] = sorted(set(folders) - made)
            starts += [path for name in folders if (path := Path(here, name)).is_symlink()]
            paths = [Path(here, name) for name in set(names) - made]
            found += [path for path in paths if path.suffix.lower() in READABLE and path.is_file()]
    once: dict[str, Path] = {}
    for path in sorted(found, key=lambda path: (path.is_symlink(), path)):
        once.setdefault(os.path.realpath(path), path)
    return sorted(once.values())
