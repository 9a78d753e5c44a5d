"""Nothing that saved workflows and scripts hold on to changes unseen; see contract.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ..workflows.graphs import CORE_NODES, ports, problems_of_value, to_api
from .conftest import REAL_COMFYUI
from .contract import FLOOR, at_floor, current, plain, promised, write

WORKFLOWS = sorted((Path(__file__).resolve().parents[2] / "workflows").glob("*.json"))


def version() -> str:
    """Of the bound ComfyUI; the stand-in is made after the lowest."""
    if not REAL_COMFYUI:
        return FLOOR
    from comfyui_version import __version__

    return __version__


def test_nodes_are_as_promised(pytestconfig: pytest.Config) -> None:
    if pytestconfig.getoption("--write-object-info"):
        if not REAL_COMFYUI or version() != FLOOR:
            raise pytest.UsageError(f"COMFYUI_PATH: expected a checkout of ComfyUI {FLOOR} to write from")
        write()
    infos, promises = current(), promised()
    assert list(infos) == list(promises)
    for id_, promise in promises.items():
        info = infos[id_] if version() == FLOOR else at_floor(infos[id_], promise)
        assert info == promise, id_
        for group, names in promise["input_order"].items():  # widgets are saved by their place
            assert list(info["input"][group]) == list(promise["input"][group]) == names


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_keeps_to_the_promise(path: Path) -> None:
    infos = CORE_NODES | promised()
    flow, api = (json.loads(p.read_text(encoding="utf-8")) for p in (path, path.parent / "api" / path.name))
    prompt = to_api(flow, infos)
    assert prompt == {id_: {key: node[key] for key in ("class_type", "inputs")} for id_, node in api.items()}
    for node in prompt.values():
        known = ports(infos[node["class_type"]])
        assert set(infos[node["class_type"]]["input"]["required"]) <= set(node["inputs"]) <= set(known)
        for name, value in node["inputs"].items():
            if isinstance(value, list):
                assert infos[prompt[value[0]]["class_type"]]["output"][value[1]] == known[name][0]
            else:
                assert problems_of_value(name, value, *known[name]) == []


def changed(promise: dict[str, Any], way: str) -> dict[str, Any]:
    """A copy of the promise of Progressive Upscale, with one thing changed."""
    info = json.loads(json.dumps(promise))
    required = info["input"]["required"]
    if way == "renamed":
        required["sharpness"] = required.pop("detail")
    elif way == "retyped":
        required["detail"][0] = "INT"
    elif way == "range":
        required["detail"][1]["max"] = 2.0
    elif way == "choice gone":
        required["steps"][1]["options"].pop()
    elif way == "tooltip":
        info["output_tooltips"][0] = "Another."
    elif way == "input added":
        info["input"]["optional"]["mask"] = ["MASK", {}]
    elif way == "order":
        info["input_order"]["required"].reverse()
    return info


@pytest.mark.parametrize("way", ["renamed", "retyped", "range", "choice gone", "tooltip", "input added", "order"])
def test_a_change_is_seen_on_later_versions_too(way: str) -> None:
    promise = promised()["PU_ProgressiveUpscale"]
    assert at_floor(changed(promise, way), promise) != promise


def test_what_later_versions_add_is_no_change() -> None:
    promise = promised()["PU_ProgressiveUpscale"]
    later = json.loads(json.dumps(promise)) | {"search_aliases": []}
    later["input"]["required"]["detail"][1]["advanced"] = False
    assert at_floor(later, promise) == promise


def test_files_of_the_user_and_the_folder_of_the_pack_are_left_out() -> None:
    options = ["default", "mine.safetensors", "output/run/best.safetensors"]
    info = {"python_module": "custom_nodes.x", "input": {"required": {"model_name": ("COMBO", {"options": options})}}}
    assert plain(info) == {"input": {"required": {"model_name": ["COMBO", {"options": ["default"]}]}}}
