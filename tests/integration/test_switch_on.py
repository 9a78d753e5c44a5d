"""The upscale model of a workflow, switched on in the front end as its note says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ..workflows.graphs import switched_on, to_api
from .browser import front_end
from .conftest import ROOT
from .server import Server

pytestmark = [pytest.mark.comfy, pytest.mark.browser]

LOADER = "app.graph.nodes.find((n) => n.type === 'UpscaleModelLoader')"
TITLE = f"""() => {{
  const {{ ds, canvas }} = app.canvas, [x, y] = ds.convertOffsetToCanvas({LOADER}.pos)
  const {{ left, top }} = canvas.getBoundingClientRect()
  return {{ x: left + x + 60 * ds.scale, y: top + y - 15 * ds.scale }}
}}"""
OFFERED = f"(name) => {LOADER}.widgets[0].options.values.includes(name)"
CHOOSE = f"(name) => {{ {LOADER}.widgets[0].value = name }}"


def test_the_upscale_model_runs_once_it_is_switched_on_by_hand(server: Server, upscale_model: Path) -> None:
    flow = json.loads((ROOT / "workflows" / "progressive_own_upscale_model.json").read_text(encoding="utf-8"))
    upscale_model.rename(later := upscale_model.with_suffix(".later"))
    with front_end(server.url) as opened:
        opened.load(flow)
        later.rename(upscale_model)
        opened.page.keyboard.press("r")
        opened.page.wait_for_function(OFFERED, arg=upscale_model.name)
        place = opened.page.evaluate(TITLE)
        opened.page.mouse.click(place["x"], place["y"])
        opened.page.keyboard.press("Control+b")
        opened.page.evaluate(CHOOSE, upscale_model.name)
        prompt = opened.prompt()
    expected = to_api(switched_on(flow), server.get("/object_info"))
    (loader,) = (node for node in expected.values() if node["class_type"] == "UpscaleModelLoader")
    loader["inputs"]["model_name"] = upscale_model.name
    assert prompt == expected
    for node in prompt.values():
        node["inputs"] |= {"width": 16} if node["inputs"].get("width") == 128 else {}
    server.run(prompt)
