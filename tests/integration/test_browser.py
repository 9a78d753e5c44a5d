"""The workflows in ComfyUI's real front end: nothing missing, lost, out of range or complained about."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..workflows.graphs import to_api
from .conftest import ROOT
from .server import Server

pytestmark = [pytest.mark.comfy, pytest.mark.browser]

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FILES = sorted((ROOT / "workflows").glob("*.json"))
READY = "() => window.app?.graph && Object.keys(LiteGraph.registered_node_types).length > 50"
SETTINGS = {  # no first-start dialogs; the last two avoid an error of front end 1.27.10 itself
    "Comfy.TutorialCompleted": True,
    "Comfy.InstalledVersion": "1.27.10",
    "Comfy.Workflow.Persist": False,
    "Comfy.Canvas.LeftMouseClickBehavior": "panning",
    "Comfy.Canvas.MouseWheelScroll": "zoom",
}
LIVE = """() => app.graph.nodes.map((n) => ({
  id: n.id, type: n.type, known: n.type in LiteGraph.registered_node_types,
  linked: (n.inputs ?? []).filter((i) => i.link != null).map((i) => i.name),
  wrong: (n.widgets ?? []).filter((w) => {
    const values = typeof w.options?.values === 'function' ? w.options.values(w) : w.options?.values
    return w.type === 'combo' && Array.isArray(values) && !values.includes(w.value)
  }).map((w) => w.name),
}))"""
SHOWN = """() => [...document.querySelectorAll('[role=dialog], [role=alert], .p-toast-message')]
  .filter((e) => e.checkVisibility()).map((e) => e.innerText)"""


@pytest.fixture(scope="module")
def page(server: Server) -> Iterator[Any]:
    """The front end, ready, with nothing but loopback to talk to."""
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("Chromium is missing")
    with sync_api.sync_playwright() as playwright:
        flags = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_page()
        page.set_default_timeout(180_000)
        page.request.post(f"{server.url}/api/settings", data=SETTINGS)
        page.goto(server.url, wait_until="load")
        page.wait_for_function(READY)
        page.wait_for_timeout(1500)  # the front end opens its default graph last of all
        yield page
        browser.close()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_workflow_loads_without_a_problem(server: Server, page: Any, path: Path) -> None:
    flow = json.loads(path.read_text(encoding="utf-8"))
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.evaluate("json => app.loadGraphData(json)", flow)
    page.wait_for_timeout(800)
    live = page.evaluate(LIVE)
    assert len(live) == len(flow["nodes"])
    assert [node for node in live if not node["known"] or node["wrong"]] == []
    saved = {node["id"]: [p["name"] for p in node["inputs"] if p["link"]] for node in flow["nodes"]}
    assert {node["id"]: node["linked"] for node in live} == saved
    assert page.evaluate(SHOWN) == []
    assert faults == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_front_end_queues_the_bundled_api_form(server: Server, page: Any, path: Path) -> None:
    flow = json.loads(path.read_text(encoding="utf-8"))
    page.evaluate("json => app.loadGraphData(json)", flow)
    queued = page.evaluate("async () => (await app.graphToPrompt()).output")
    infos = server.get("/object_info")
    expected = to_api(flow, infos)
    assert {
        id_: {"class_type": node["class_type"], "inputs": node["inputs"]} for id_, node in queued.items()
    } == expected
