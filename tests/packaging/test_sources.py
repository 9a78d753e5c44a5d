"""Rules of the sources that ruff cannot hold, read from the syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    file.relative_to(ROOT).as_posix()
    for pattern in ("*.py", "core/**/*.py", "nodes/**/*.py")
    for file in ROOT.glob(pattern)
)

UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "pip"}
FOREIGN_MODULES = {"torchvision", "torchaudio", "cv2", "scipy", "skimage", "matplotlib"}
UNSAFE_CALLS = {
    *("eval", "exec", "compile", "__import__"),
    *("torch.load", "torch.save", "torch.jit.load", "torch.hub.load"),
    *("os.system", "os.popen", "subprocess.run", "subprocess.Popen", "subprocess.check_call"),
}


def _tree(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text(encoding="utf-8"), filename=name)


def _imports(tree: ast.AST) -> Iterator[str]:
    """The top-level names of the absolute imports, wherever in the file they stand."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").split(".")[0]


def _calls(tree: ast.AST) -> Iterator[str]:
    """Dotted names of what is called, such as `torch.load`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            yield ast.unparse(node.func)


@pytest.mark.parametrize("name", SOURCES)
def test_source_runs_no_foreign_code(name: str):
    tree = _tree(name)
    assert not UNSAFE_MODULES & set(_imports(tree))
    assert not UNSAFE_CALLS & set(_calls(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant) and node.value.value is False


@pytest.mark.parametrize("name", SOURCES)
def test_source_imports_its_own_package_relatively_and_only_declared_dependencies(name: str):
    imports = set(_imports(_tree(name)))
    assert "progressive_upsampling" not in imports
    assert not FOREIGN_MODULES & imports


@pytest.mark.parametrize("name", SOURCES)
def test_only_the_runtime_touches_comfy_and_only_nodes_its_api(name: str):
    imports = set(_imports(_tree(name)))
    if name != "nodes/_runtime.py":
        assert not {"comfy", "comfy_execution", "comfy_extras", "folder_paths", "server", "nodes"} & imports
    if not name.startswith("nodes/"):
        assert "comfy_api" not in imports


@pytest.mark.parametrize("name", [name for name in SOURCES if name.startswith("core/")])
def test_core_never_looks_up_to_the_nodes(name: str):
    depth = name.count("/")  # this many dots lead to core/, one more to the root
    for node in ast.walk(_tree(name)):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level <= depth, f"{name}:{node.lineno} leaves core"


def test_search_for_unsafe_calls_finds_them():
    tree = ast.parse("import os\ndef f():\n  import pickle.x\n  return torch.load(eval('1'))\nmodel.eval()")
    assert set(_imports(tree)) == {"os", "pickle"}
    assert UNSAFE_CALLS & set(_calls(tree)) == {"torch.load", "eval"}
