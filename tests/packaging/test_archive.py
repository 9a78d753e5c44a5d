"""What the ComfyUI registry ships: the tracked files without those that .comfyignore names."""

from __future__ import annotations

from pathlib import Path

import pytest

LIMIT_MIB = 32  # of it 30 MB (28.6 MiB) for the weights at most, as tests/tools say


@pytest.fixture(scope="module")
def shipped(tracked_files: list[str], ignored_by_comfy: set[str]) -> set[str]:
    return set(tracked_files) - ignored_by_comfy


def test_archive_holds_all_that_the_pack_needs(shipped: set[str], tracked_files: list[str]):
    folders = ("core/", "nodes/", "workflows/", "subgraphs/", "locales/", "docs/web/")
    for folder in folders:
        assert any(name.startswith(folder) for name in tracked_files), f"nothing is tracked in {folder}"
    needed = {name for name in tracked_files if name.startswith(folders)}
    needed |= {"__init__.py", "pyproject.toml", "requirements.txt", "README.md", "LICENSE", "CHANGELOG.md"}
    assert needed <= shipped


def test_archive_holds_nothing_of_development(shipped: set[str]):
    tops = {name.split("/")[0] for name in shipped}
    assert not tops & {"tests", ".ci", ".github", "Makefile", "CONTRIBUTING.md", ".gitignore", ".comfyignore"}


def test_archive_is_small(shipped: set[str], root: Path):
    assert sum((root / name).stat().st_size for name in shipped) < LIMIT_MIB * 2**20


def test_top_level_holds_only_what_the_design_names(tracked_files: list[str]):
    package = {"__init__.py", "__main__.py", "py.typed", "core", "nodes", "workflows", "locales", "docs"}
    package |= {"subgraphs"}  # where ComfyUI looks for a pack's blueprints
    files = {"README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "pyproject.toml", "requirements.txt"}
    tools = {"tests", "Makefile", ".ci", ".github", ".gitignore", ".comfyignore"}
    assert {name.split("/")[0] for name in tracked_files} <= package | files | tools
