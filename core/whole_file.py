"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

_BYTES = 6
UNFINISHED = f".{'[0-9a-f]' * 2 * _BYTES}.part"  # pattern of what a killed writing leaves


def beside(path: Path) -> Path:
    """A hidden name in the folder of `path` that no file has: for what will replace it."""
    return path.with_name(f".{secrets.token_hex(_BYTES)}.part")


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file by way of one beside it, which is then moved over it; on any failure the folder is left as it was.

    Args:
        path: an existing file is replaced; a link stays a link.
        data: its bytes, which are on the disk when this returns.

    Raises:
        OSError: the system refuses.
    """
    target = path.resolve()
    temporary = beside(target)
    try:
        with temporary.open("xb") as file:  # not tempfile: its files are private to the user
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:  # Ctrl-C as well
        temporary.unlink(missing_ok=True)
        raise
