"""The README's Python examples run as printed, one after the other, in a folder with a photograph."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image
from skimage import data

SKIP = "<!-- not run -->"


def _python_lines(text: str) -> tuple[str, int]:
    """The README with every line blanked that is no Python example, and the number of examples.

    Line numbers stay those of the README, so that a traceback points into it.
    """
    kept, count, inside, previous = [], 0, False, ""
    for line in text.splitlines():
        if inside and line.strip() == "```":
            inside = False
        elif inside:
            kept.append(line)
            continue
        elif line.strip() == "```python" and previous != SKIP:
            inside, count = True, count + 1
        kept.append("")
        previous = line.strip() or previous
    return "\n".join(kept) + "\n", count


def test_python_lines_keeps_examples_at_their_place():
    text = f"# Title\n```python\na = 1\n```\n{SKIP}\n\n```python\nb\n```\n```bash\nc\n```\n"
    text += "```python\nd = 2\n```\n"
    assert _python_lines(text) == ("\n\na = 1\n\n\n\n\n\n\n\n\n\n\nd = 2\n\n", 2)


def test_readme_examples_run_as_printed(root: Path, run_python, tmp_path: Path):
    readme = root / "README.md"
    if not readme.is_file():
        pytest.skip("README.md is missing")
    code, count = _python_lines(readme.read_text(encoding="utf-8"))
    assert count, "README.md shows no Python example"
    (tmp_path / "readme_examples.py").write_text(code, encoding="utf-8")
    photo = Image.fromarray(data.astronaut()[40:104, 180:276])
    names = set(re.findall(r"[\"']([\w-]+\.(?:png|jpg|jpeg|webp|tif|tiff))[\"']", code))
    for name in sorted(names):
        photo.save(tmp_path / name)
    run_python("import runpy; runpy.run_path('readme_examples.py')", cwd=tmp_path)
