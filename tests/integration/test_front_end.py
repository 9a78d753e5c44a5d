"""The workflows in ComfyUI's real front ends, without ComfyUI: a stub server tells them what the nodes promise."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from ..nodes.contract import promised
from ..subgraphs.flatten import flatten
from ..workflows.graphs import CORE_NODES, Info, bypassed, to_api
from .browser import Opened, front_end
from .stub_server import Answers, front_ends, stub_server

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
BLUEPRINTS = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "subgraphs").glob("*.json")}
FRONT_ENDS = front_ends()
# Of the graph that a front end opens when it starts: known, so that it misses none of them.
DEFAULTS = "CheckpointLoaderSimple CLIPLoader CLIPTextEncode EmptyLatentImage EmptySD3LatentImage KSampler "
DEFAULTS += "ModelSamplingAuraFlow UNETLoader VAEDecode VAELoader"
OFFERED = """() => {
  const stores = document.querySelector('#vue-app').__vue_app__.config.globalProperties.$pinia._s
  const found = stores.get('nodeDef').blueprintNodeDefsByName
  return found ? [...found.values()].map((node) => node.display_name) : null
}"""
NOTHING: Info = {"input": {"required": {}}, "output": [], "output_node": False}


def object_info() -> dict[str, Info]:
    """Every node that a workflow may hold, with all that the front end wants to know."""
    infos = {}
    for name, info in (dict.fromkeys(DEFAULTS.split(), NOTHING) | CORE_NODES | promised()).items():
        outputs = list(info["output"])
        usual = {
            "name": name,
            "display_name": name,
            "description": "",
            "category": "image",
            "python_module": "custom_nodes.progressive_upsampling" if name in promised() else "nodes",
            "output_name": outputs,
            "output_is_list": [False] * len(outputs),
        }
        infos[name] = usual | info
    return infos


def i18n() -> dict[str, Any]:
    """The pack's texts, put together as a server does."""
    texts = {}
    for folder in sorted((ROOT / "locales").iterdir()):
        main, nodes = (json.loads((folder / f"{name}.json").read_text("utf-8")) for name in ("main", "nodeDefs"))
        texts[folder.name] = main | {"nodeDefs": nodes}
    return texts


@pytest.fixture(scope="module", params=sorted(FRONT_ENDS) or ["none"])
def opened(request: pytest.FixtureRequest) -> Iterator[Opened]:
    """A front end, open and ready."""
    if not FRONT_ENDS:
        pytest.skip("no comfyui-frontend-package is installed: make browser")
    answers = Answers(FRONT_ENDS[request.param], object_info(), i18n(), BLUEPRINTS)
    with stub_server(answers) as url, front_end(url) as page:
        assert page.page.evaluate("() => window.__COMFYUI_FRONTEND_VERSION__") == request.param
        yield page


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_loads_without_a_problem_and_queues_its_api_form(opened: Opened, path: Path) -> None:
    flow = json.loads(path.read_text(encoding="utf-8"))
    opened.load(flow)
    assert opened.problems(flow, CORE_NODES | promised()) == []
    assert opened.prompt() == to_api(flow, CORE_NODES | promised())


@pytest.mark.parametrize(
    "kinds",
    ["Upsample", "ResidualSkip", "MultiScaleFuse", "AdaptiveNoise InjectNoise", "InjectNoise AttnUNetDenoise"],
)
def test_bypassed_nodes_are_gone_round_as_the_tests_of_workflows_take_it(opened: Opened, kinds: str) -> None:
    flow = json.loads((ROOT / "workflows" / "progressive_128_to_1024.json").read_text(encoding="utf-8"))
    infos = CORE_NODES | promised()
    whole = to_api(flow, infos)
    off = [node for node in flow["nodes"] if node["type"].removeprefix("PU_") in kinds.split()]
    for node in off:
        node["mode"] = 4
    opened.load(flow)
    assert opened.prompt() == bypassed(whole, [str(node["id"]) for node in off], infos)


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_a_blueprint_opens_without_a_problem_and_queues_the_nodes_inside(opened: Opened, name: str) -> None:
    blueprint = json.loads(BLUEPRINTS[name])
    opened.load(blueprint)
    assert opened.problems(blueprint, promised()) == []
    prefix = f"{blueprint['nodes'][0]['id']}:"
    queued = json.loads(json.dumps(opened.prompt()).replace(f'"{prefix}', '"'))
    assert queued == flatten(blueprint, promised(), {})[0]


def test_blueprints_are_in_the_node_menu(opened: Opened) -> None:
    if opened.page.evaluate(OFFERED) is None:
        pytest.skip("this front end knows no blueprints of packs")
    opened.page.wait_for_function(f"() => ({OFFERED})()?.length >= {len(BLUEPRINTS)}", timeout=20_000)
    assert sorted(opened.page.evaluate(OFFERED)) == sorted(BLUEPRINTS)


def broken(way: str) -> dict[str, Any]:
    """The quick workflow with a fault."""
    flow = deepcopy(json.loads((ROOT / "workflows" / "progressive_quick.json").read_text(encoding="utf-8")))
    (node,) = (node for node in flow["nodes"] if node["type"] == "PU_ProgressiveUpscale")
    if way == "type":
        node["type"] = "PU_Missing"
    elif way == "choice":
        node["widgets_values"][4] = "3"
    elif way == "link":
        flow["links"][-1][1] = 99
    return flow


@pytest.mark.parametrize(
    ("way", "problem"), [("type", "PU_Missing is missing"), ("choice", "steps"), ("link", "is lost")]
)
def test_a_problem_is_seen(opened: Opened, way: str, problem: str) -> None:
    flow = broken(way)
    opened.load(flow)
    assert any(problem in text for text in opened.problems(flow, CORE_NODES | promised()))
    opened.page.keyboard.press("Escape")
