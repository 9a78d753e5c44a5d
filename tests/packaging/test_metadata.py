"""pyproject.toml, requirements.txt, CHANGELOG.md and the folders on disk tell the same story."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

import progressive_upsampling

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))


def test_package_list_equals_the_folders_on_disk(root: Path, project: dict[str, Any]):
    on_disk = {"progressive_upsampling"}
    for top in ("core", "nodes"):
        for file in (root / top).rglob("*.py"):
            on_disk.add(".".join(("progressive_upsampling", *file.parent.relative_to(root).parts)))
    assert sorted(project["tool"]["setuptools"]["packages"]) == sorted(on_disk)


def test_every_package_has_an_init_file(root: Path, project: dict[str, Any]):
    for name in project["tool"]["setuptools"]["packages"]:
        folder = root.joinpath(*name.split(".")[1:])
        assert (folder / "__init__.py").is_file(), f"{name} has no __init__.py"


def test_version_is_the_same_everywhere(root: Path, project: dict[str, Any]):
    version = project["project"]["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version), "the registry takes X.Y.Z only"
    assert progressive_upsampling.__version__ == version
    first = re.search(r"^## \[(.+?)\]", (root / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert first is not None
    assert first[1] in (version, "Unreleased")


def test_requirements_are_the_dependencies_without_torch(root: Path, project: dict[str, Any]):
    lines = (root / "requirements.txt").read_text(encoding="utf-8").splitlines()
    required = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    declared = project["project"]["dependencies"]
    assert required == [line for line in declared if not re.match(r"torch\b", line)]
    assert len(required) == len(declared) - 1


def test_dependencies_have_lower_bounds_only(project: dict[str, Any]):
    for line in project["project"]["dependencies"]:
        assert re.fullmatch(r"[a-z]+>=[\d.]+", line), line


def test_registry_table_is_complete(root: Path, project: dict[str, Any]):
    comfy = project["tool"]["comfy"]
    assert comfy["PublisherId"]
    assert comfy["DisplayName"] == "Progressive Upsampling"
    assert comfy["requires-comfyui"] == ">=0.3.64"
    assert comfy["Icon"].startswith("https://") or (root / comfy["Icon"]).is_file()
    assert "web" not in comfy, "it would register the web folder a second time, beside WEB_DIRECTORY"


def test_registry_takes_the_name(project: dict[str, Any]):
    name = project["project"]["name"]
    assert re.fullmatch(r"[a-z]+(?:[-_.][a-z0-9]+)*", name) and len(name) < 100
    assert "comfyui" not in name


def test_icon_is_a_square_of_at_most_400_pixels(root: Path, project: dict[str, Any]):
    icon = project["tool"]["comfy"]["Icon"]
    if not icon.startswith("https://"):
        head = (root / icon).read_text(encoding="utf-8").split(">", 1)[0]
        width, height = (re.search(rf'\b{side}="(\d+)"', head) for side in ("width", "height"))
        assert width is not None and height is not None
        assert width[1] == height[1] and int(width[1]) <= 400


def test_ci_runs_the_lowest_and_the_newest_torch_on_every_system(root: Path, project: dict[str, Any]):
    """The lowest by its last patch: the first 2.4 does not start on some Windows machines."""
    ci = (root / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert all(f"{system}-latest" in ci for system in ("ubuntu", "windows", "macos"))
    (declared,) = (line for line in project["project"]["dependencies"] if line.startswith("torch"))
    newest = re.search(r"^TORCH \?= torch==(.+)$", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    torches = re.findall(r"torch==([\d.]+)", ci)
    assert set(torches) == {min(torches, key=_numbers), newest[1]}
    assert _numbers(min(torches, key=_numbers))[:2] == _numbers(declared.removeprefix("torch>="))


def test_ci_runs_the_lowest_python(root: Path, project: dict[str, Any]):
    ci = (root / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    pythons = re.findall(r'python: "([\d.]+)"', ci)
    assert ">=" + min(pythons, key=_numbers) == project["project"]["requires-python"]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def test_web_directory_is_inside_the_package_data(root: Path, project: dict[str, Any]):
    assert (root / progressive_upsampling.WEB_DIRECTORY).is_dir()
    pattern = progressive_upsampling.WEB_DIRECTORY.removeprefix("./") + "/**/*"
    assert pattern in project["tool"]["setuptools"]["package-data"]["progressive_upsampling"]
