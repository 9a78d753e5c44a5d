"""Bind this checkout to the name `progressive_upsampling`, whatever its folder is called."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
NAME = "progressive_upsampling"


def _bind_checkout() -> None:
    """Import the checkout as `progressive_upsampling`, ahead of any installed copy."""
    spec = importlib.util.spec_from_file_location(
        NAME, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot import {ROOT / '__init__.py'}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)


_bind_checkout()

# The same examples on every run, and no deadline: a loaded two-core machine is no failure.
settings.register_profile("project", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("project")


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout's root folder."""
    return ROOT


@pytest.fixture(scope="session")
def comfyui_path() -> Path:
    """The ComfyUI checkout named by COMFYUI_PATH; tests that ask for it carry the marker `comfy`."""
    return Path(os.environ["COMFYUI_PATH"]).expanduser().resolve()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that renews the snapshot of the nodes; see tests/nodes/contract.py."""
    parser.addoption("--write-object-info", action="store_true", help="write tests/nodes/object_info.json anew")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the tests marked `comfy` where COMFYUI_PATH is not set; a wrong COMFYUI_PATH is an error."""
    value = os.environ.get("COMFYUI_PATH")
    if value:
        if not (Path(value).expanduser() / "comfy_api").is_dir():
            raise pytest.UsageError(f"COMFYUI_PATH: expected a ComfyUI checkout, got {value!r}")
        return
    skip = pytest.mark.skip(reason="COMFYUI_PATH is not set")
    for item in items:
        if item.get_closest_marker("comfy"):
            item.add_marker(skip)
