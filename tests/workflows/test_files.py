"""The bundled workflows: both formats fit the nodes and each other, and nothing overlaps."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from .graphs import (
    CONTROLS,
    NOTES,
    Flow,
    Info,
    is_widget,
    node_infos,
    ports,
    problems_of_value,
    runs,
    to_api,
    widget_names,
)

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "workflows").glob("*.json"))
TITLE = 30  # height of a node's title bar, which lies above its position
PREVIEW = 270  # a square preview grows a node by so much at the width the workflows use, as Nodes 2.0 draw it
TEXT = 70  # and text so much
GROWING = {
    "PU_Upsample": PREVIEW,
    "PU_AttnUNetDenoise": PREVIEW,
    "PU_ProgressiveUpscale": PREVIEW,
    "PU_TrainingData": TEXT,
    "PU_Train": 2 * PREVIEW + TEXT,  # Nodes 2.0 show the last live preview and the samples
}


@pytest.fixture(scope="module")
def infos() -> dict[str, Info]:
    return node_infos()


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def flow(path: Path) -> Flow:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def api(path: Path) -> dict[str, Any]:
    return json.loads((path.parent / "api" / path.name).read_text(encoding="utf-8"))


def test_the_workflows_of_the_readme_are_there() -> None:
    listed = re.findall(r"^- `(progressive_\w+)`:", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == [path.stem for path in FILES]


def test_names_are_prefixed_so_that_no_other_pack_has_them() -> None:
    assert all(path.stem.startswith("progressive_") for path in FILES)


def test_every_workflow_has_an_api_form_and_no_api_form_is_left_over() -> None:
    api = {path.name for path in (ROOT / "workflows" / "api").glob("*.json")}
    assert api == {path.name for path in FILES}


def test_every_workflow_has_a_thumbnail(path: Path) -> None:
    picture = path.with_suffix(".jpg")
    with Image.open(picture) as image:
        assert image.format == "JPEG"
        assert 480 <= image.width <= 1600
    assert picture.stat().st_size < 300_000


def test_api_inputs_are_those_of_the_nodes(api: dict[str, Any], infos: dict[str, Info]) -> None:
    problems = []
    for id_, node in api.items():
        info = infos[node["class_type"]]
        known = ports(info)
        problems += [f"{id_}: unknown input {name}" for name in node["inputs"] if name not in known]
        required = info["input"].get("required", {})
        problems += [f"{id_}: {name} is missing" for name in required if name not in node["inputs"]]
        for name, value in node["inputs"].items():
            kind, options = known[name]
            if isinstance(value, list):
                source = infos[api[value[0]]["class_type"]]["output"][value[1]]
                problems += [f"{id_}: {name}: {source} into {kind}"] if source != kind else []
            else:
                problems += [f"{id_}: {p}" for p in problems_of_value(name, value, kind, options)]
    assert problems == []


def test_both_formats_are_the_same_graph(flow: Flow, api: dict[str, Any], infos: dict[str, Info]) -> None:
    bare = {id_: {"class_type": node["class_type"], "inputs": node["inputs"]} for id_, node in api.items()}
    assert to_api(flow, infos) == bare


def test_no_two_nodes_do_the_same_which_fails_in_comfyui_0_3_64_without_cache(api: dict[str, Any]) -> None:
    what = [json.dumps([node["class_type"], node["inputs"]], sort_keys=True) for node in api.values()]
    assert len(set(what)) == len(what)


def test_titles_are_the_same_in_both_formats(flow: Flow, api: dict[str, Any], infos: dict[str, Info]) -> None:
    for node in flow["nodes"]:
        if runs(node) and "title" in node:
            assert api[str(node["id"])]["_meta"]["title"] == node["title"]


def test_widget_values_are_complete_and_in_order(flow: Flow, infos: dict[str, Info]) -> None:
    for node in flow["nodes"]:
        if node["type"] in NOTES:
            continue
        info = infos[node["type"]]
        names, values = widget_names(info), node.get("widgets_values", [])
        assert len(names) == len(values), node["id"]
        for name, value in zip(names, values, strict=True):
            if name is None:
                assert value in (*CONTROLS, "image")
            else:
                assert problems_of_value(name, value, *ports(info)[name]) == []


def test_seeds_stay_fixed_so_that_a_workflow_shows_what_it_promises(flow: Flow, infos: dict[str, Info]) -> None:
    for node in flow["nodes"]:
        if node["type"] not in NOTES and "seed" in ports(infos[node["type"]]):
            assert "fixed" in node["widgets_values"]


def test_sockets_are_the_nodes_own_in_their_order(flow: Flow, infos: dict[str, Info]) -> None:
    for node in flow["nodes"]:
        if node["type"] in NOTES:
            continue
        info = infos[node["type"]]
        sockets = [(name, kind) for name, (kind, _) in ports(info).items() if not is_widget(kind)]
        assert [(port["name"], port["type"]) for port in node["inputs"]] == sockets
        assert [port["type"] for port in node["outputs"]] == info["output"]


def test_links_join_what_they_say(flow: Flow) -> None:
    nodes = {node["id"]: node for node in flow["nodes"]}
    assert len(nodes) == len(flow["nodes"])
    assert flow["last_node_id"] >= max(nodes)
    assert flow["last_link_id"] >= max(link[0] for link in flow["links"])
    for id_, origin, slot, target, socket, kind in flow["links"]:
        out, into = nodes[origin]["outputs"][slot], nodes[target]["inputs"][socket]
        assert id_ in out["links"]
        assert into["link"] == id_
        assert out["type"] == into["type"] == kind
    linked = [port["link"] for node in flow["nodes"] for port in node["inputs"] if port["link"]]
    assert sorted(linked) == sorted(link[0] for link in flow["links"])


def test_nodes_that_are_off_have_nothing_to_pass_on_and_are_told_of(flow: Flow) -> None:
    off = [node for node in flow["nodes"] if node["type"] not in NOTES and not runs(node)]
    text = " ".join(note["widgets_values"][0] for note in flow["nodes"] if note["type"] in NOTES)
    assert [node["id"] for node in off if node["inputs"] or node["title"] not in text] == []


def test_every_node_lies_in_a_group_or_is_a_note(flow: Flow) -> None:
    for node in flow["nodes"]:
        if node["type"] not in NOTES:
            assert any(inside(box(node), group["bounding"]) for group in flow["groups"]), node["id"]


def test_nothing_overlaps_even_when_previews_have_grown(flow: Flow) -> None:
    boxes = [(node["id"], box(node)) for node in flow["nodes"]]
    for i, (one, a) in enumerate(boxes):
        for other, b in boxes[i + 1 :]:
            apart = a[0] >= b[0] + b[2] or b[0] >= a[0] + a[2] or a[1] >= b[1] + b[3] or b[1] >= a[1] + a[3]
            assert apart, f"{one} and {other}"
    for i, a in enumerate(flow["groups"]):
        for b in flow["groups"][i + 1 :]:
            (x, y, w, h), (x2, y2, w2, h2) = a["bounding"], b["bounding"]
            assert x >= x2 + w2 or x2 >= x + w or y >= y2 + h2 or y2 >= y + h, f"{a['title']}, {b['title']}"


def test_the_workflow_explains_itself(flow: Flow) -> None:
    notes = [node for node in flow["nodes"] if node["type"] == "MarkdownNote"]
    assert notes
    assert all(len(note["widgets_values"][0]) > 100 for note in notes)


def box(node: dict[str, Any]) -> tuple[float, float, float, float]:
    """(left, top, width, height) with the title bar and a preview to come."""
    (x, y), (w, h) = node["pos"], node["size"]
    return x, y - TITLE, w, h + TITLE + GROWING.get(node["type"], 0)


def inside(inner: tuple[float, ...], outer: list[float]) -> bool:
    (x, y, w, h), (left, top, width, height) = inner, outer
    return left <= x and top <= y and x + w <= left + width and y + h <= top + height
