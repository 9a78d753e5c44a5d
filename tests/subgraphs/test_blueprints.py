"""The subgraph blueprints: well-formed, in step with the nodes, and the same picture as the one node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from progressive_upsampling.nodes.progressive_upscale import ProgressiveUpscale

from ..nodes.conftest import call, chain, default_chain, picture
from ..nodes.contract import promised
from ..workflows.graphs import is_widget, ports, problems_of_value, widget_names
from ..workflows.test_run import run
from .flatten import ENTRY, EXIT, flatten

__all__ = ["chain", "default_chain", "picture"]

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "subgraphs").glob("*.json"))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def blueprint(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def node(blueprint: dict[str, Any]) -> dict[str, Any]:
    (node,) = blueprint["nodes"]
    return node


@pytest.fixture
def graph(blueprint: dict[str, Any]) -> dict[str, Any]:
    (graph,) = blueprint["definitions"]["subgraphs"]
    return graph


def test_there_is_one() -> None:
    assert FILES


def test_the_name_is_the_files_and_no_other_packs(path: Path, node: dict[str, Any], graph: dict[str, Any]) -> None:
    assert path.stem == graph["name"] == node["title"]
    assert path.stem.startswith("Progressive Upscal")
    assert graph["description"].endswith(".")
    assert graph["category"] == "Progressive Upsampling"


def test_every_encoding_reads_it(path: Path) -> None:
    """Some servers read it in the system's encoding, and the registry's archive leaves out names beyond ASCII."""
    assert path.read_bytes().isascii()
    assert path.name.isascii()


def test_the_node_outside_has_the_ports_of_the_graph_inside(node: dict[str, Any], graph: dict[str, Any]) -> None:
    assert node["type"] == graph["id"]
    for side in ("inputs", "outputs"):
        assert [(p["name"], p["type"]) for p in node[side]] == [(p["name"], p["type"]) for p in graph[side]]
    widgets = [port["name"] for port in node["inputs"] if is_widget(port["type"])]
    assert [port["widget"]["name"] for port in node["inputs"] if "widget" in port] == widgets
    assert len(node["widgets_values"]) == len(widgets)


def test_links_join_what_they_say(graph: dict[str, Any]) -> None:
    nodes = {node["id"]: node for node in graph["nodes"]}
    links = {link["id"]: link for link in graph["links"]}
    assert len(nodes) == len(graph["nodes"]) and len(links) == len(graph["links"])
    for id_, link in links.items():
        start, end = link["origin_id"], link["target_id"]
        out = graph["inputs"][link["origin_slot"]] if start == ENTRY else nodes[start]["outputs"][link["origin_slot"]]
        into = graph["outputs"][link["target_slot"]] if end == EXIT else nodes[end]["inputs"][link["target_slot"]]
        assert id_ in out["linkIds" if start == ENTRY else "links"]
        assert id_ in into["linkIds"] if end == EXIT else id_ == into["link"]
        assert out["type"] == into["type"] == link["type"]
    ends = [port["link"] for node in graph["nodes"] for port in node["inputs"] if port["link"] is not None]
    ends += [id_ for port in graph["outputs"] for id_ in port["linkIds"]]
    assert sorted(ends) == sorted(links)


def test_nodes_inside_keep_to_the_promise(graph: dict[str, Any]) -> None:
    infos = promised()
    for inner in graph["nodes"]:
        info = infos[inner["type"]]
        known = ports(info)
        assert {port["name"]: port["type"] for port in inner["inputs"]} == {
            name: kind for name, (kind, _) in known.items()
        }
        assert [port["type"] for port in inner["outputs"]] == info["output"]
        for name, value in zip(widget_names(info), inner["widgets_values"], strict=True):
            assert name is None or problems_of_value(name, value, *known[name]) == []


def test_one_model_serves_every_node_inside(blueprint: dict[str, Any]) -> None:
    infos = promised()
    prompt, _ = flatten(blueprint, infos, {"model": ["m", 0]})
    for inner in prompt.values():
        assert inner["inputs"].get("model") == (["m", 0] if "model" in ports(infos[inner["class_type"]]) else None)


def test_values_outside_reach_every_stage(blueprint: dict[str, Any], node: dict[str, Any]) -> None:
    plain, _ = flatten(blueprint, promised(), {})
    for name in (port["name"] for port in node["inputs"] if is_widget(port["type"])):
        prompt, _ = flatten(blueprint, promised(), {name: "changed"})
        assert sum(prompt[id_] != plain[id_] for id_ in plain) == 3, name


@pytest.mark.parametrize("settings", [{}, {"detail": 0.6, "steps": "2", "strength": 0.5, "seed": 7}])
def test_it_gives_the_picture_of_the_one_node(
    blueprint: dict[str, Any], default_chain: Any, picture: Any, settings: dict[str, Any]
) -> None:
    photo = picture(9, 13)
    prompt, results = flatten(blueprint, promised(), {"image": ["photo", 0], **settings})
    done = run({"photo": {"class_type": "LoadImage", "inputs": {}}, **prompt}, photo)
    expected, stages = call(ProgressiveUpscale, image=photo, scale=8.0, **settings)
    assert expected.shape == (1, 72, 104, 3)
    for (id_, slot), stage in zip((results[n] for n in ("stage_1", "stage_2", "image")), stages, strict=True):
        torch.testing.assert_close(done[id_][slot], stage, atol=1e-5, rtol=0)
