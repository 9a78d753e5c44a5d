"""The bundled workflows, run node by node: the graph of parts and the one node give the same picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from progressive_upsampling.nodes import NODES, _runtime
from progressive_upsampling.nodes.load_model import LoadModel

from ..nodes.conftest import chain, picture

__all__ = ["chain", "picture"]

API = Path(__file__).resolve().parents[2] / "workflows" / "api"
SIDE = 16  # in place of the 128 pixels that the workflows start from


def run(prompt: dict[str, Any], photo: torch.Tensor) -> dict[str, tuple[Any, ...]]:
    """Outputs of every node, by id."""
    classes = {node.GET_SCHEMA().node_id: node for node in NODES}
    done: dict[str, tuple[Any, ...]] = {}

    def outputs(id_: str) -> tuple[Any, ...]:
        if id_ not in done:
            node = prompt[id_]
            inputs = {
                name: outputs(value[0])[value[1]] if isinstance(value, list) else value
                for name, value in node["inputs"].items()
            }
            if node["class_type"] == "LoadImage":
                done[id_] = (photo, torch.zeros(1, *photo.shape[1:3]))
            elif node["class_type"] in ("PreviewImage", "SaveImage"):
                done[id_] = (inputs["images"],)
            else:
                done[id_] = classes[node["class_type"]].execute(**inputs).args
        return done[id_]

    for id_ in prompt:
        outputs(id_)
    return done


def load(name: str) -> dict[str, Any]:
    return json.loads((API / f"{name}.json").read_text(encoding="utf-8"))


def only(prompt: dict[str, Any], kind: str) -> str:
    (id_,) = (id_ for id_, node in prompt.items() if node["class_type"] == kind)
    return id_


def reducer(prompt: dict[str, Any]) -> dict[str, Any]:
    """Inputs of the node that makes the picture small."""
    (inputs,) = (node["inputs"] for node in prompt.values() if node["_meta"]["title"] == "Reduce to 128 px")
    return inputs


def test_the_graph_of_parts_equals_the_one_node(chain: Any, picture: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_runtime, "load_once", lambda *_: chain)
    monkeypatch.setattr(_runtime, "model_path", lambda name: name)
    parts, quick = load("progressive_128_to_1024"), load("progressive_quick")
    for prompt in (parts, quick):
        reducer(prompt)["width"] = SIDE
        for node in prompt.values():  # with noise, so that all parts count
            node["inputs"] |= {"detail": 0.6} if "detail" in node["inputs"] else {}
    photo = picture(50, 80)
    separate, whole = run(parts, photo), run(quick, photo)
    result = separate[only(parts, "SaveImage")][0]
    expected = whole[only(quick, "PU_ProgressiveUpscale")]
    assert result.shape == (1, 80, 8 * SIDE, 3)
    torch.testing.assert_close(result, expected[0], atol=1e-5, rtol=0)
    previews = [separate[id_][0] for id_, node in parts.items() if node["class_type"] == "PreviewImage"]
    for shown, stage in zip(previews, expected[1], strict=True):
        torch.testing.assert_close(shown, stage, atol=1e-5, rtol=0)


def test_the_workflows_start_from_the_bundled_model() -> None:
    parts = load("progressive_128_to_1024")
    assert parts[only(parts, LoadModel.GET_SCHEMA().node_id)]["inputs"]["model_name"] == "default"


@pytest.mark.parametrize("name", sorted(path.stem for path in API.glob("*.json")))
def test_the_workflows_start_from_the_picture_that_comfyui_brings(name: str) -> None:
    prompt = load(name)
    assert prompt[only(prompt, "LoadImage")]["inputs"]["image"] == "example.png"
    assert reducer(prompt)["width"] == 128
