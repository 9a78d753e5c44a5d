"""The wheel holds all that the package needs, nothing else, and works when installed."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PACKAGE = "progressive_upsampling"
DATA = {
    "core/weights": (".safetensors", ".md"),
    "docs/web": (".md",),
    "locales": (".json",),
    "subgraphs": (".json",),
    "workflows": (".json", ".jpg"),
}


def _pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


@pytest.fixture(scope="module")
def wheel(checkout_copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    _pip("wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", target, checkout_copy)
    (file,) = target.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_wheel_holds_every_module(checkout_copy: Path, names: set[str]):
    globs = ("*.py", "core/**/*.py", "nodes/**/*.py")
    modules = [file for glob in globs for file in checkout_copy.glob(glob)]
    assert len(modules) > 20
    for file in modules:
        assert f"{PACKAGE}/{file.relative_to(checkout_copy).as_posix()}" in names


@pytest.mark.parametrize("folder", DATA)
def test_wheel_holds_every_data_file(folder: str, checkout_copy: Path, names: set[str]):
    files = [file for file in (checkout_copy / folder).rglob("*") if file.is_file() and file.suffix != ".py"]
    for suffix in DATA[folder]:
        assert any(file.suffix == suffix for file in files), f"no {suffix} in {folder}"
    for file in files:
        assert f"{PACKAGE}/{file.relative_to(checkout_copy).as_posix()}" in names


def test_wheel_holds_neither_tests_nor_repository_files(names: set[str]):
    for name in names:
        top = name.split("/")[0]
        assert top == PACKAGE or top.endswith(".dist-info"), name
        assert not name.startswith((f"{PACKAGE}/tests/", f"{PACKAGE}/.")), name
    assert f"{PACKAGE}/Makefile" not in names
    assert f"{PACKAGE}/pyproject.toml" not in names


def test_wheel_names_the_licence_and_the_command(wheel: Path, names: set[str]):
    assert any(name.endswith("licenses/LICENSE") for name in names)
    with zipfile.ZipFile(wheel) as archive:
        (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
        assert f"progressive-upsampling = {PACKAGE}.core.cli:main" in archive.read(entry_points).decode()


def test_installed_wheel_works(wheel: Path, run_python, tmp_path: Path):
    site = tmp_path / "site"
    _pip("install", "--no-deps", "--no-index", "--target", site, wheel)
    code = """
import torch
from progressive_upsampling import core
print(core.__file__)
chain = core.Chain.from_pretrained()
print(tuple(chain(torch.full((1, 3, 5, 7), 0.25), scale=2).shape))
"""
    where, shape = run_python(code, cwd=tmp_path, path=site, bind=False).stdout.splitlines()
    assert Path(where) == site / PACKAGE / "core" / "__init__.py"
    assert shape == "(1, 3, 10, 14)"


def test_editable_install_leads_back_to_the_checkout(checkout_copy: Path, run_python, tmp_path: Path):
    site = tmp_path / "site"
    offline = ("--no-deps", "--no-index", "--no-build-isolation")
    _pip("install", *offline, "--target", site, "--editable", checkout_copy)
    # An editable install is a .pth file, which PYTHONPATH does not process. The one that may be running is
    # put aside, because its finder has the same name.
    code = f"""
import site, sys
sys.meta_path = [f for f in sys.meta_path if "__editable__" not in getattr(f, "__module__", "")]
for name in [name for name in sys.modules if name.startswith("__editable__")]:
    del sys.modules[name]
sys.path.insert(0, {str(site)!r})
site.addsitedir({str(site)!r})
from progressive_upsampling import core
print(core.__file__)
"""
    output = run_python(code, cwd=tmp_path, bind=False).stdout.strip()
    assert Path(output) == checkout_copy / "core" / "__init__.py"
