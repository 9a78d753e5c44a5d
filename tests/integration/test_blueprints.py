"""The server offers the blueprints, from the version on that knows any; an older one is none the worse."""

from __future__ import annotations

import urllib.error

import pytest

from .conftest import FOLDER, ROOT
from .server import Server

pytestmark = pytest.mark.comfy

SINCE = (0, 3, 67)


def test_blueprints_are_served(server: Server) -> None:
    version = server.get("/system_stats")["system"]["comfyui_version"]
    if tuple(int(part) for part in version.split(".")[:3]) < SINCE:
        with pytest.raises(urllib.error.HTTPError, match="404"):
            server.get("/global_subgraphs")
        return
    entries = server.get("/global_subgraphs")
    pack = {id_: entry for id_, entry in entries.items() if entry["info"]["node_pack"] == f"custom_nodes.{FOLDER}"}
    files = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "subgraphs").glob("*.json")}
    assert {entry["name"]: server.get(f"/global_subgraphs/{id_}")["data"] for id_, entry in pack.items()} == files
