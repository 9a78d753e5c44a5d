"""The bundled workflows, run node by node: the graph of parts and the one node give the same picture."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from progressive_upsampling.core.layout import from_bhwc
from progressive_upsampling.nodes import NODES, _models, _runtime
from progressive_upsampling.nodes.load_model import LoadModel
from progressive_upsampling.nodes.progressive_upscale import ProgressiveUpscale
from progressive_upsampling.nodes.upsample import Upsample

from ..nodes.conftest import chain, default_chain, picture
from ..nodes.test_runtime import Community
from .core_nodes import CORE
from .graphs import bypassed, node_infos, switched_on, to_api

__all__ = ["chain", "default_chain", "picture"]

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
API = WORKFLOWS / "api"
SIDE = 16  # in place of the 128 pixels that the workflows start from


def run(prompt: dict[str, Any], photo: torch.Tensor, upscale_model: Any = None) -> dict[str, tuple[Any, ...]]:
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
            elif node["class_type"] == "UpscaleModelLoader":
                done[id_] = (upscale_model,)
            elif node["class_type"] in CORE:
                done[id_] = (CORE[node["class_type"]](**inputs),)
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


def titled(prompt: dict[str, Any], title: str) -> str:
    (id_,) = (id_ for id_, node in prompt.items() if node["_meta"]["title"] == title)
    return id_


def study(name: str) -> dict[str, Any]:
    """A workflow that starts from few pixels and computes exactly."""
    return reduced(load(name))


def reduced(prompt: dict[str, Any]) -> dict[str, Any]:
    """The graph, with few pixels and exact numbers."""
    for node in prompt.values():
        inputs = node["inputs"]
        inputs |= {"precision": "fp32"} if "precision" in inputs else {}
        inputs |= {"width": SIDE} if inputs.get("method") == "bicubic" else {}
    return prompt


def reducer(prompt: dict[str, Any]) -> dict[str, Any]:
    """Inputs of the node that makes the picture small."""
    return prompt[titled(prompt, "Reduce to 128 px")]["inputs"]


def test_the_graph_of_parts_equals_the_one_node(chain: Any, picture: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_models, "load_once", lambda *_: chain)
    monkeypatch.setattr(_runtime, "model_path", lambda name, *_: name)
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


BYPASSES = {  # and the settings of the chain that this is the same as; None where there are none
    "PU_AdaptiveNoise": None,
    "PU_InjectNoise": None,
    "PU_AdaptiveNoise PU_InjectNoise": {"strength": 0.0},
    "PU_InjectNoise PU_AttnUNetDenoise": {"detail": 0.0},
    "PU_AdaptiveNoise PU_InjectNoise PU_AttnUNetDenoise": {"detail": 0.0},
    "PU_ResidualSkip": {"skip": 0.0},
    "PU_MultiScaleFuse": {"fusion": False},
}


@pytest.mark.parametrize("kinds", BYPASSES)
def test_parts_that_are_bypassed_are_left_out_and_the_rest_goes_on(
    chain: Any, picture: Any, monkeypatch: pytest.MonkeyPatch, kinds: str
) -> None:
    without_regression = replace(chain.stages[0].denoiser.config, regression=False)
    for stage in chain.stages:  # as the bundled model: at detail 0 its denoisers change nothing
        stage.denoiser.config = without_regression
        stage.config = replace(stage.config, denoiser=without_regression)
    monkeypatch.setattr(_models, "load_once", lambda *_: chain)
    monkeypatch.setattr(_runtime, "model_path", lambda name, *_: name)
    prompt = reduced(load("progressive_128_to_1024"))
    for node in prompt.values():
        node["inputs"] |= {"detail": 0.6} if "detail" in node["inputs"] else {}
    small = titled(prompt, "Reduce to 128 px")
    off = [id_ for id_, node in prompt.items() if node["class_type"] in kinds.split()]
    prompt = bypassed(prompt, off, node_infos())
    done = run(prompt, picture(50, 80))
    result = done[only(prompt, "SaveImage")][0]
    assert result.shape == (1, 80, 8 * SIDE, 3)
    same = BYPASSES[kinds]
    if same is None:
        return
    expected = chain(from_bhwc(done[small][0]), scale=8, dtype="fp32", **({"detail": 0.6} | same))
    torch.testing.assert_close(from_bhwc(result), expected, atol=1e-5, rtol=0)


def test_the_workflows_start_from_the_bundled_model() -> None:
    parts = load("progressive_128_to_1024")
    assert parts[only(parts, LoadModel.GET_SCHEMA().node_id)]["inputs"]["model_name"] == "default"


@pytest.mark.parametrize("name", sorted(path.stem for path in API.glob("*.json")))
def test_the_workflows_start_from_the_picture_that_comfyui_brings(name: str) -> None:
    prompt = load(name)
    assert prompt[only(prompt, "LoadImage")]["inputs"]["image"] == "example.png"
    assert reducer(prompt)["width"] == 128


@pytest.mark.usefixtures("default_chain")
def test_the_noise_study_adds_what_its_maps_show(picture: Any) -> None:
    prompt = study("progressive_noise_study")
    done = run(prompt, picture(50, 50))
    names = ("Uniform", "Gradient", "Learned", "Painted")
    maps = [done[titled(prompt, f"{name}: sigma map")][0] for name in names]
    assert maps[0].amin() == maps[0].amax() > 0
    assert all(map_.amin() < map_.amax() for map_ in maps[1:])
    seeds = {node["inputs"]["seed"] for node in prompt.values() if "seed" in node["inputs"]}
    details = {node["inputs"]["detail"] for node in prompt.values() if "detail" in node["inputs"]}
    assert len(seeds) == 1
    assert details == {0.0, 0.8}
    shown = done[titled(prompt, "Uniform, gradient / learned, painted")][0]
    assert shown.shape == (4, 2 * SIDE, 2 * SIDE, 3)
    for image, name in zip(shown, names, strict=True):
        assert torch.equal(image, done[titled(prompt, f"{name}: denoised")][0][0])
    without = done[titled(prompt, "Without noise: detail 0")][0][0]
    assert all(not torch.equal(image, without) for image in shown)
    assert torch.equal(shown[3, :3], without[:3])  # above what is painted
    assert done[titled(prompt, "Where noise has changed the picture")][0].shape == shown.shape


@pytest.mark.usefixtures("default_chain")
def test_the_fusion_study_fuses_the_same_scales_in_every_way(picture: Any) -> None:
    prompt = study("progressive_fusion_study")
    done = run(prompt, picture(50, 50))
    fuses = {id_: node for id_, node in prompt.items() if node["class_type"] == "PU_MultiScaleFuse"}
    ways = {(node["inputs"]["mode"], node["inputs"]["structure"]) for node in fuses.values()}
    assert ways == {(m, s) for m in ("weighted", "attention", "learned") for s in ("flat", "hierarchical")}
    assert len(fuses) == len(ways)
    (sources,) = {tuple(node["inputs"][f"image_{i}"][0] for i in (1, 2, 3)) for node in fuses.values()}
    assert [done[id_][0].shape[1] for id_ in sources] == [4 * SIDE, 2 * SIDE, SIDE]
    for id_ in fuses:
        image, maps = done[id_]
        assert image.shape == (1, 4 * SIDE, 4 * SIDE, 3)
        assert len(maps) == 3
        torch.testing.assert_close(sum(maps), torch.ones_like(maps[0]))
        shown = [node["inputs"] for node in prompt.values() if [id_, 1] in node["inputs"].values()]
        assert shown == [{"mask": [id_, 1]}]


@pytest.mark.usefixtures("default_chain")
def test_the_upscale_model_does_the_work_once_it_is_switched_on(picture: Any) -> None:
    flow = json.loads((WORKFLOWS / "progressive_own_upscale_model.json").read_text(encoding="utf-8"))
    off, on = study("progressive_own_upscale_model"), reduced(to_api(switched_on(flow), node_infos()))
    photo, model = picture(50, 50), Community(2)
    before, after = run(off, photo), run(on, photo, model)
    for title, node in (("In the chain", ProgressiveUpscale), ("Alone", Upsample)):
        id_ = titled(off, title)
        for prompt, done, given in ((off, before, None), (on, after, Community(2))):
            inputs = prompt[id_]["inputs"] | {"image": done[titled(off, "Reduce to 128 px")][0], "upscale_model": given}
            assert torch.equal(done[id_][0], node.execute(**inputs).args[0])
        assert not torch.equal(before[id_][0], after[id_][0])
    assert len(model.seen) == 4  # two passes each


@pytest.mark.usefixtures("default_chain")
def test_every_picture_of_the_batch_comes_out_as_it_would_alone(picture: Any) -> None:
    prompt = study("progressive_batch")
    done = run(prompt, picture(768, 768))
    result = done[only(prompt, "SaveImage")][0]
    assert result.shape == (4, 4 * SIDE, 4 * SIDE, 3)
    assert [stage.shape[0] for stage in done[titled(prompt, "Every stage: 4 × 256 px, 4 × 512 px")][0]] == [4, 4]
    for number in range(4):
        alone = study("progressive_batch")
        reducer(alone)["image"] = [titled(alone, f"Picture {number + 1}"), 0]
        one = run(alone, picture(768, 768))[only(alone, "SaveImage")][0]
        torch.testing.assert_close(result[number], one[0], atol=1e-6, rtol=0)
    assert all(not torch.equal(result[0], other) for other in result[1:])
