"""What the nodes promise to saved workflows and to scripts: /object_info, kept as a file that changes are reviewed in.

    COMFYUI_PATH=~/ComfyUI python -m pytest tests/nodes/test_contract.py --write-object-info

writes the file, from the lowest version of ComfyUI that the pack supports. The difference is reviewed before it is
committed: saved workflows hold ids, types and the order of widgets; scripts hold names of inputs and choices.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from progressive_upsampling.nodes import NODES

Info = dict[str, Any]

FLOOR = "0.3.64"
SNAPSHOT = Path(__file__).with_name("object_info.json")


def promised() -> dict[str, Info]:
    """What every node is, by its id, as reviewed."""
    return json.loads(SNAPSHOT.read_text(encoding="utf-8"))


def write() -> None:
    """Make what the nodes are now the promise."""
    text = json.dumps(current(), indent=1, ensure_ascii=False)
    SNAPSHOT.write_text(text + "\n", encoding="utf-8", newline="\n")


def current() -> dict[str, Info]:
    """What every node is, by its id, as the bound ComfyUI's server would tell it."""
    return {info["name"]: plain(info) for info in (node.GET_NODE_INFO_V1() for node in NODES)}


def plain(info: Info) -> Info:
    """A node's info as JSON, without what depends on the machine: the pack's folder, and users' files."""
    told = json.loads(json.dumps(info))
    told.pop("python_module")
    for ports in told["input"].values():
        for _, *options in ports.values():
            if options and "options" in options[0]:
                options[0]["options"] = [one for one in options[0]["options"] if not str(one).endswith(".safetensors")]
    return told


def at_floor(info: Info, promise: Info) -> Info:
    """The info without the fields that later versions of ComfyUI add.

    Args:
        info: of a node, as a later version tells it.
        promise: what the snapshot says of the same node. Inputs are kept whether or not it has them.
    """
    kept = {field: value for field, value in info.items() if field in promise}
    kept["input"] = {
        group: {name: _known(port, promise["input"].get(group, {}).get(name)) for name, port in ports.items()}
        for group, ports in info["input"].items()
    }
    return kept


def _known(port: list[Any], promise: list[Any] | None) -> list[Any]:
    if promise is None or len(port) < 2 or len(promise) < 2:
        return port
    return [port[0], {field: value for field, value in port[1].items() if field in promise[1]}]
