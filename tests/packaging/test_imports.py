"""What an import costs and touches, each in a fresh interpreter."""

from __future__ import annotations

from pathlib import Path

COMFYUI = ("comfy", "comfy_api", "comfy_execution", "comfy_extras", "folder_paths", "nodes", "server")

_IMPORT_ALL_OF_CORE = """
import importlib, pkgutil
from progressive_upsampling import core
for module in pkgutil.walk_packages(core.__path__, core.__name__ + "."):
    importlib.import_module(module.name)
    print(module.name)
"""


def test_importing_the_package_imports_nothing_heavy(run_python, tmp_path: Path):
    code = "heavy = {'torch', 'numpy', 'PIL', 'einops', 'kornia', 'safetensors', 'asyncio'}\n"
    output = run_python(code + "print(sorted(heavy & set(sys.modules)))", cwd=tmp_path).stdout
    assert output.strip() == "[]"


def test_core_imports_nothing_of_comfyui(run_python, tmp_path: Path):
    """Importable stand-ins lie on the path, so that an import inside try/except is seen as well."""
    for name in COMFYUI:
        (tmp_path / f"{name}.py").write_text("", encoding="utf-8")
    code = _IMPORT_ALL_OF_CORE + f"print('touched', sorted(set({COMFYUI!r}) & set(sys.modules)))"
    lines = run_python(code, cwd=tmp_path, path=tmp_path).stdout.splitlines()
    assert lines[-1] == "touched []"
    assert "progressive_upsampling.core.resample" in lines


def test_core_imports_neither_torchvision_nor_the_pack_s_nodes(run_python, tmp_path: Path):
    (tmp_path / "torchvision.py").write_text("", encoding="utf-8")
    code = (
        "avoided = ('torchvision', 'progressive_upsampling.nodes')\n"
        "print('touched', [name for name in sys.modules if name.startswith(avoided)])"
    )
    output = run_python(_IMPORT_ALL_OF_CORE + code, cwd=tmp_path, path=tmp_path).stdout
    assert output.splitlines()[-1] == "touched []"


def test_core_prints_nothing_and_warns_of_nothing_when_imported(run_python, tmp_path: Path):
    done = run_python("from progressive_upsampling import core", cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("", "")


def test_public_names_of_core_exist(run_python, tmp_path: Path):
    code = (
        "from progressive_upsampling import core\n"
        "assert core.__all__, 'empty'\n"
        "print([n for n in core.__all__ if not hasattr(core, n)])"
    )
    assert run_python(code, cwd=tmp_path).stdout.strip() == "[]"


def test_module_runs_as_a_command(run_python, tmp_path: Path):
    code = (
        "import runpy\nsys.argv = ['progressive_upsampling', '--help']\n"
        "runpy.run_module('progressive_upsampling', run_name='__main__')"
    )
    output = run_python(code, cwd=tmp_path).stdout
    for command in ("upscale", "evaluate", "info", "demo"):
        assert command in output
