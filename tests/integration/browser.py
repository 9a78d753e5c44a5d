"""Opening workflows in ComfyUI's front end, in headless Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from ..workflows.graphs import Flow, Info, ports, widget_names

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# Nothing but loopback to talk to, and no shared memory, of which containers have little.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]
SETTINGS = {  # no first-start dialogs; the last two avoid an error of front end 1.27.10 itself
    "Comfy.TutorialCompleted": True,
    "Comfy.InstalledVersion": "1.27.10",
    "Comfy.Canvas.LeftMouseClickBehavior": "panning",
    "Comfy.Canvas.MouseWheelScroll": "zoom",
}
# The pack's nodes are known, and the default graph, which is opened last of all, is there.
READY = """() => window.app?.graph && 'PU_Upsample' in LiteGraph.registered_node_types
  && app.extensionManager.workflow.activeWorkflow?.activeState && app.graph.nodes.length"""
# What an untouched front end says where a server has no user.css and the like, where no network is there, and where
# the server forbids it to ask other hosts about the models of its default graph.
NOISE = ("Failed to load resource", "Content Security Policy")
# Not awaited here, since playwright's evaluate has no limit of time.
LOAD = """(json) => {
  window.workflowIsLoaded = false
  app.loadGraphData(json).then(() => { window.workflowIsLoaded = true })
}"""
LIVE = """() => app.graph.nodes.map((n) => ({
  id: Number(n.id), type: n.type, known: n.type in LiteGraph.registered_node_types || n.isSubgraphNode?.() === true,
  inputs: (n.inputs ?? []).map((i) => i.name),
  widgets: Object.fromEntries((n.widgets ?? []).map((w) => [w.name, w.value])),
  wrong: n.mode ? [] : (n.widgets ?? []).filter((w) => {  // a node that is off may wait for a file
    const values = typeof w.options?.values === 'function' ? w.options.values(w) : w.options?.values
    return w.type === 'combo' && Array.isArray(values) && !values.includes(w.value)
  }).map((w) => w.name),
}))"""
LINKS = """() => app.graph.nodes.flatMap((n) => (n.inputs ?? []).filter((i) => i.link != null).map((i) => {
  const link = app.graph.links.get?.(i.link) ?? app.graph.links[i.link]
  const there = app.graph.getNodeById(link?.origin_id)?.outputs?.[link.origin_slot] != null
  return there ? [Number(link.origin_id), link.origin_slot, Number(n.id), i.name] : []
}))"""
SHOWN = """() => [...document.querySelectorAll('[role=dialog], [role=alertdialog], [role=alert], .p-toast-message')]
  .filter((e) => e.checkVisibility()).map((e) => e.innerText.replace(/\\s+/g, ' ').trim()).filter(Boolean)"""


@dataclass
class Opened:
    """A front end that is open, ready and heard.

    Attributes:
        page: playwright's page.
        faults: what the page has thrown, and what its console has called an error, since they were last taken.
    """

    page: Any
    faults: list[str] = field(default_factory=list)

    def load(self, flow: Flow) -> None:
        """Open a UI-format workflow."""
        self.faults.clear()
        self.page.evaluate(LOAD, flow)
        self.page.wait_for_function("() => window.workflowIsLoaded")

    def prompt(self) -> dict[str, Any]:
        """What would be queued: class and inputs of every node, by id."""
        queued = self.page.evaluate("async () => (await app.graphToPrompt()).output")
        return {id_: {key: node[key] for key in ("class_type", "inputs")} for id_, node in queued.items()}

    def problems(self, flow: Flow, infos: dict[str, Info]) -> list[str]:
        """What is not as in the file that was loaded, or is complained about.

        Args:
            flow: the file.
            infos: of every node in it that a server knows.
        """
        live = {node["id"]: node for node in self.page.evaluate(LIVE)}
        problems = [f"node {node['id']}: {node['type']} is missing" for node in live.values() if not node["known"]]
        problems += [f"node {node['id']}: no choice of {name}" for node in live.values() for name in node["wrong"]]
        if sorted(live) != sorted(node["id"] for node in flow["nodes"]):
            problems.append(f"nodes: {len(flow['nodes'])} in the file, {len(live)} in the graph")
        for node in flow["nodes"]:
            if node["id"] not in live or node["type"] not in infos:
                continue
            now, info = live[node["id"]], infos[node["type"]]
            if missing := set(ports(info)) - set(now["inputs"]):
                problems.append(f"node {node['id']}: no input {sorted(missing)}")
            for name, value in zip(widget_names(info), node.get("widgets_values", []), strict=True):
                if name and now["widgets"].get(name) != value:
                    problems.append(f"node {node['id']}: {name} is {now['widgets'].get(name)!r}, not {value!r}")
        nodes = {node["id"]: node for node in flow["nodes"]}
        saved = sorted([o, slot, t, nodes[t]["inputs"][socket]["name"]] for _, o, slot, t, socket, _ in flow["links"])
        linked = sorted(filter(None, self.page.evaluate(LINKS)))
        problems += [f"link {link} is lost" for link in saved if link not in linked]
        problems += [f"link {link} is new" for link in linked if link not in saved]
        problems += [f"shown: {text}" for text in self.page.evaluate(SHOWN)]
        return problems + self.faults


@contextmanager
def front_end(url: str) -> Iterator[Opened]:
    """Open a front end in a browser of its own; without playwright or Chromium, the test is skipped.

    Args:
        url: where it is served.
    """
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make browser")
    if CHROMIUM is None:
        pytest.skip("Chromium is missing (Debian's package: chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            page = browser.new_page()
            page.set_default_timeout(120_000)
            opened = Opened(page)
            page.on("pageerror", lambda error: opened.faults.append(f"page error: {error.stack or error}"))
            page.on("console", lambda message: _hear(message, opened.faults))
            page.request.post(f"{url}/api/settings", data=SETTINGS)
            page.goto(url, wait_until="load")
            page.wait_for_function(READY)
            yield opened
        finally:
            browser.close()


def _hear(message: Any, faults: list[str]) -> None:
    text = f"{message.text} {message.location.get('url', '')}"
    if message.type == "error" and not any(part in text for part in NOISE):
        faults.append(f"console error: {text}")
