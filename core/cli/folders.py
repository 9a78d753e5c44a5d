"""Folders for output: made before the work, and gone again if nothing came of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..picture_output import check_folder


@contextmanager
def folders_for_output(folders: list[Path]) -> Iterator[None]:
    """Make folders that are missing, and take those away again that nothing came into.

    Args:
        folders: where pictures will be written.

    Raises:
        PictureError: one that cannot be made or written to.
    """
    made: list[Path] = []
    try:
        for folder in folders:
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
