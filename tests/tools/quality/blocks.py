"""Generated parts of written pages: what stands between two comments."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from progressive_upsampling.core.picture_output import write_atomic

_MADE_BY = "made by `python -m tests.tools.quality render`, do not edit"


def replaced(text: str, name: str, content: str) -> str:
    """The text with the part of a name replaced.

    Raises:
        ValueError: there is no such part, or more than one.
    """
    pattern = rf"(<!-- {re.escape(name)}: begin[^\n]*-->\n).*?(<!-- {re.escape(name)}: end -->)"
    begin = f"<!-- {name}: begin, {_MADE_BY} -->\n"
    result, count = re.subn(pattern, lambda found: f"{begin}\n{content.strip()}\n\n{found[2]}", text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"expected one part '<!-- {name}: begin -->' to '<!-- {name}: end -->', found {count}")
    return result


def differences(path: Path, wanted: str) -> list[str]:
    """The lines in which a file differs from what it should be; none where it does not."""
    found = path.read_text(encoding="utf-8")
    lines = difflib.unified_diff(
        found.splitlines(), wanted.splitlines(), f"{path.name} as it is", "rendered", lineterm=""
    )
    return list(lines)


def write_page(path: Path, text: str) -> None:
    """Write a page, whole or not at all, where it has changed."""
    if path.read_text(encoding="utf-8") != text:
        write_atomic(path, text.encode())
