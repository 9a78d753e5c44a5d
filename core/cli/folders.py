"""Folders for output: made before the work, and gone again if nothing came of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ..picture_output import check_folder
from ..pictures import PictureError


@contextmanager
def folders_for_output(folders: Mapping[str, Path]) -> Iterator[None]:
    """Make folders that are missing, and take those away again that nothing came into.

    Args:
        folders: where pictures will be written, by the option that names them.

    Raises:
        PictureError: one that cannot be made or written to, or is a file or below one.
    """
    made: list[Path] = []
    try:
        for option, folder in folders.items():
            there = next((path for path in (folder, *folder.parents) if os.path.lexists(path)), folder)
            if os.path.lexists(there) and not there.is_dir():
                raise PictureError(f"{there}: expected a folder as {option}, got a file")
            missing = [path for path in (folder, *folder.parents) if not path.exists()]
            try:
                folder.mkdir(parents=True, exist_ok=True)
            finally:
                made += [path for path in missing if path.is_dir()]
            check_folder(folder)
        yield
    finally:
        for folder in made:
            if not any(folder.iterdir()):
                folder.rmdir()
