"""What the server tells of the nodes is what was promised."""

from __future__ import annotations

import pytest

from ..nodes.contract import FLOOR, at_floor, plain, promised
from .server import Server

pytestmark = pytest.mark.comfy


def test_object_info_is_as_promised(server: Server) -> None:
    told = server.get("/object_info")
    floor = server.get("/system_stats")["system"]["comfyui_version"] == FLOOR
    for id_, promise in promised().items():
        info = plain(told[id_])
        assert (info if floor else at_floor(info, promise)) == promise
    assert {id_ for id_ in told if id_.startswith("PU_")} == set(promised())
