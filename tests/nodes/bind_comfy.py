"""Give the nodes a ComfyUI to import: the checkout named by COMFYUI_PATH, or the stand-in of this folder."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

STAND_IN = Path(__file__).resolve().parent / "stand_in"


def bind_comfy() -> bool:
    """Make `comfy`, `comfy_api` and `folder_paths` importable.

    Returns:
        Whether they are the real ones.
    """
    checkout = os.environ.get("COMFYUI_PATH")
    if not checkout:
        if str(STAND_IN) not in sys.path:
            sys.path.append(str(STAND_IN))
        return False
    path = str(Path(checkout).expanduser().resolve())
    if path in sys.path:
        return True
    sys.path.append(path)
    import comfy.cli_args
    import torch

    # Before anything else of ComfyUI is imported, which reads these once.
    comfy.cli_args.args.cpu = not torch.cuda.is_available()
    comfy.cli_args.args.base_directory = tempfile.mkdtemp(prefix="comfy-base-")
    return True
