"""A real ComfyUI server on loopback with this checkout as a pack, and a node that keeps exact images."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..nodes.bind_comfy import bind_comfy
from ..nodes.conftest import chain, picture
from .server import Server

__all__ = ["chain", "picture"]

ROOT = Path(__file__).resolve().parents[2]
FOLDER = "any-Name_2"  # ComfyUI takes any folder name without spaces, and so must the pack
KEEPER = '''
import os
import folder_paths
import numpy


class KeepImage:
    """Writes an IMAGE as exact numbers, which no picture file holds."""

    RETURN_TYPES, FUNCTION, OUTPUT_NODE, CATEGORY = (), "keep", True, "test"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",), "name": ("STRING", {})}}

    def keep(self, image, name):
        numpy.save(os.path.join(folder_paths.get_output_directory(), name), image.cpu().float().numpy())
        return {}


NODE_CLASS_MAPPINGS = {"KeepImage": KeepImage}
'''

bind_comfy()


@pytest.fixture(scope="session")
def server(comfyui_path: Path, tmp_path_factory: pytest.TempPathFactory, chain: Any) -> Iterator[Server]:
    """The running server; its base folder holds a tiny model besides the bundled ones."""
    import torch

    base = tmp_path_factory.mktemp("comfyui")
    for name in ("custom_nodes", "input", "output", "user", "models/progressive_upsampling"):
        (base / name).mkdir(parents=True)
    (base / "custom_nodes" / FOLDER).symlink_to(ROOT, target_is_directory=True)
    (base / "custom_nodes" / "keep_image.py").write_text(KEEPER, encoding="utf-8")
    shutil.copy(comfyui_path / "input" / "example.png", base / "input")
    chain.save(base / "models" / "progressive_upsampling" / "tiny.safetensors")

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "main.py", "--listen", "127.0.0.1", "--port", str(port)]
    command += ["--base-directory", str(base), "--database-url", f"sqlite:///{base}/user/comfyui.db"]
    command += ["--disable-auto-launch", "--disable-api-nodes", "--cache-none"]
    command += [] if torch.cuda.is_available() else ["--cpu"]
    log = base / "server.log"
    with log.open("wb") as out:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        process = subprocess.Popen(command, cwd=comfyui_path, stdout=out, stderr=subprocess.STDOUT, env=environment)
        try:
            running = Server(f"http://127.0.0.1:{port}", base, log)
            deadline = time.monotonic() + 180
            while not running.answers():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"ComfyUI did not start:\n{log.read_text(errors='replace')[-4000:]}")
                time.sleep(0.2)
            yield running
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture
def upscale_model(server: Server) -> Iterator[Path]:
    """A community model of ×2 in the server's folder, of which a fresh server has none."""
    import torch
    from safetensors.torch import save_file

    compact = pytest.importorskip("spandrel.architectures.Compact")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = compact.Compact(num_feat=8, num_conv=1, upscale=2)
    path = server.base / "models" / "upscale_models" / "tiny_x2.safetensors"
    path.parent.mkdir(exist_ok=True)
    save_file(network.state_dict(), path)
    yield path
    path.unlink(missing_ok=True)  # skipped where there is no browser, the test leaves it under another name
