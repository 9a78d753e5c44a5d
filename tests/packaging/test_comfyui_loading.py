"""The pack under an odd folder name, loaded the way ComfyUI loads a folder of custom_nodes."""

from __future__ import annotations

import shutil
from pathlib import Path

# The steps of ComfyUI's nodes.load_custom_node: the module's name is the folder's whole path.
_LOAD = """
import asyncio, importlib, importlib.util, inspect, logging, os, sys
folder = {folder!r}
name = folder.replace(".", "_x_")
spec = importlib.util.spec_from_file_location(name, os.path.join(folder, "__init__.py"))
module = importlib.util.module_from_spec(spec)
sys.modules[name] = module
spec.loader.exec_module(module)
"""


def _load(folder: Path) -> str:
    return _LOAD.format(folder=str(folder))


def test_pack_loads_under_any_folder_name(checkout_copy: Path, run_python, tmp_path: Path):
    code = """
assert inspect.iscoroutinefunction(module.comfy_entrypoint)
assert not hasattr(module, "NODE_CLASS_MAPPINGS"), "it would hide comfy_entrypoint"
assert os.path.isdir(os.path.join(folder, module.WEB_DIRECTORY))
assert "torch" not in sys.modules
core = importlib.import_module(".core", name)
assert os.path.dirname(core.__file__) == os.path.join(folder, "core")
assert [n for n in sys.modules if n.split(".")[0] == "progressive_upsampling"] == []
"""
    run_python(_load(checkout_copy) + code, cwd=tmp_path, bind=False)


def test_core_works_under_any_folder_name(checkout_copy: Path, run_python, tmp_path: Path):
    """The bundled checkpoints and lazy imports are found relative to the folder, not by an installed name."""
    code = """
import torch
core = importlib.import_module(".core", name)
chain = core.Chain.from_pretrained()
result = chain(torch.full((1, 3, 5, 7), 0.25), scale=2)
assert result.shape == (1, 3, 10, 14)
assert [n for n in sys.modules if n.split(".")[0] == "progressive_upsampling"] == []
"""
    run_python(_load(checkout_copy) + code, cwd=tmp_path, bind=False)


def test_entrypoint_logs_the_traceback_and_raises_again(checkout_copy: Path, run_python, tmp_path: Path):
    folder = tmp_path / "broken-pack"
    (folder / "nodes").mkdir(parents=True)
    shutil.copy2(checkout_copy / "__init__.py", folder)
    source = "def broken():\n    return 1 / 0\nbroken()\n"
    (folder / "nodes" / "__init__.py").write_text(source, encoding="utf-8")
    code = """
logging.basicConfig(stream=sys.stdout)
try:
    asyncio.run(module.comfy_entrypoint())
except ZeroDivisionError:
    print("raised again")
"""
    output = run_python(_load(folder) + code, cwd=tmp_path, bind=False).stdout
    assert "Progressive Upsampling: the nodes could not be loaded" in output
    assert "line 2, in broken" in output
    assert output.rstrip().endswith("raised again")
