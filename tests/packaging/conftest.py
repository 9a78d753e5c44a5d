"""What the packaging tests share: the checkout's files, a copy of them, and fresh interpreters."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

RunPython = Callable[..., subprocess.CompletedProcess[str]]

_BIND = """\
import importlib.util, sys
_spec = importlib.util.spec_from_file_location(
    "progressive_upsampling", {init!r}, submodule_search_locations=[{root!r}])
sys.modules["progressive_upsampling"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sys.modules["progressive_upsampling"])
"""


def _files(root: Path, *options: str) -> list[str]:
    """Paths relative to the root, as git names them; the test is skipped outside a git checkout."""
    if not (root / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z", *options]
    output = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    return sorted({name for name in output.split("\0") if name and (root / name).is_file()})


@pytest.fixture(scope="session")
def tracked_files(root: Path) -> list[str]:
    """Every tracked file of the checkout."""
    return _files(root, "--cached")


@pytest.fixture(scope="session")
def ignored_by_comfy(root: Path) -> set[str]:
    """The tracked files that .comfyignore keeps out of the registry's archive."""
    return set(_files(root, "--cached", "--ignored", "--exclude-from=.comfyignore"))


@pytest.fixture(scope="session")
def checkout_copy(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout (tracked and new files, nothing ignored), under a name no package could have."""
    target = tmp_path_factory.mktemp("custom_nodes") / "some-odd name.v2"
    for name in _files(root, "--cached", "--others", "--exclude-standard"):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, target / name)
    return target


@pytest.fixture(scope="session")
def run_python(root: Path) -> RunPython:
    """`run_python(code, cwd=..., path=..., bind=True)`: run code in a fresh interpreter, which must succeed.

    `bind` imports the checkout as `progressive_upsampling` first, as tests/conftest.py does; `path` is the
    PYTHONPATH. Returns the completed process with stdout and stderr as text.
    """

    def run(
        code: str, *, cwd: Path, path: Path | None = None, bind: bool = True
    ) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment["PYTHONUTF8"] = "1"
        if path is not None:
            environment["PYTHONPATH"] = str(path)
        head = _BIND.format(init=str(root / "__init__.py"), root=str(root)) if bind else ""
        done = subprocess.run(
            [sys.executable, "-c", head + code], cwd=cwd, env=environment, capture_output=True, text=True
        )
        if done.returncode:
            pytest.fail(f"the fresh interpreter failed:\n{done.stdout}{done.stderr}")
        return done

    return run
