"""The workflows in the front end of a real server: nothing missing, lost, out of range or complained about."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..workflows.graphs import to_api
from .browser import Opened, front_end
from .conftest import ROOT
from .server import Server

pytestmark = [pytest.mark.comfy, pytest.mark.browser]

FILES = sorted((ROOT / "workflows").glob("*.json"))


@pytest.fixture(scope="module")
def opened(server: Server) -> Iterator[Opened]:
    """The server's front end, open and ready."""
    with front_end(server.url) as page:
        yield page


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_workflow_loads_without_a_problem_and_queues_its_api_form(server: Server, opened: Opened, path: Path) -> None:
    flow = json.loads(path.read_text(encoding="utf-8"))
    infos = server.get("/object_info")
    opened.load(flow)
    assert opened.problems(flow, infos) == []
    assert opened.prompt() == to_api(flow, infos)
