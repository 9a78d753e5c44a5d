"""The pack in a real ComfyUI server: it loads, runs, agrees with core, cancels and explains errors."""

from __future__ import annotations

import json
import time
import urllib.request
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from progressive_upsampling import core
from progressive_upsampling.core.cli import main
from progressive_upsampling.nodes import NODES
from progressive_upsampling.nodes.progressive_upscale import ProgressiveUpscale
from progressive_upsampling.nodes.upsample import Upsample

from ..workflows.graphs import CORE_NODES, Info, ports, switched_on, to_api
from .conftest import FOLDER, ROOT
from .server import Refused, Server, failure

pytestmark = pytest.mark.comfy

SMALL = "2"  # the node that reduces the picture, in both workflows
FILES = sorted((ROOT / "workflows" / "api").glob("*.json"))


def prompt_of(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))


def keep(prompt: dict[str, Any], **what: list[Any]) -> dict[str, Any]:
    """The graph with KeepImage nodes in place of those that show and save."""
    kept = {i: n for i, n in prompt.items() if n["class_type"] not in ("PreviewImage", "SaveImage", "PU_Compare")}
    for name, source in what.items():
        kept[f"keep {name}"] = {"class_type": "KeepImage", "inputs": {"image": source, "name": name}}
    return kept


def find(prompt: dict[str, Any], kind: str) -> str:
    (id_,) = (id_ for id_, node in prompt.items() if node["class_type"] == kind)
    return id_


def chain_prompt(side: int = 16, **inputs: Any) -> dict[str, Any]:
    """Progressive Upscale with the tiny model on the example, reduced."""
    prompt = deepcopy(prompt_of("progressive_quick"))
    prompt[SMALL]["inputs"]["width"] = side
    prompt["tiny"] = {"class_type": "PU_LoadModel", "inputs": {"model_name": "tiny.safetensors"}}
    prompt[find(prompt, "PU_ProgressiveUpscale")]["inputs"] |= {"model": ["tiny", 0], **inputs}
    return prompt


@pytest.fixture(scope="module")
def infos(server: Server) -> dict[str, Info]:
    return server.get("/object_info")


def test_every_node_is_offered_as_its_schema_says(infos: dict[str, Info]) -> None:
    for node in NODES:
        schema = node.GET_SCHEMA()
        info = infos[schema.node_id]
        assert info["display_name"] == schema.display_name
        assert set(ports(info)) == {port.id for port in schema.inputs}
        assert info["output"] == [port.io_type for port in schema.outputs]
        assert info["python_module"] == f"custom_nodes.{FOLDER}"


def test_the_log_shows_no_fault_of_the_pack(server: Server) -> None:
    log = server.log.read_text(errors="replace")
    failed = [line for line in log.splitlines() if "IMPORT FAILED" in line]  # ComfyUI's own may: torchaudio is optional
    assert not [line for line in failed if FOLDER in line]
    assert "could not be loaded" not in log


def test_comfyuis_own_nodes_are_as_the_workflow_tests_take_them(infos: dict[str, Info]) -> None:
    for name, expected in CORE_NODES.items():
        info = infos[name]
        assert info["output"][: len(expected["output"])] == expected["output"]  # 0.29 adds one to SaveImage
        assert info["output_node"] == expected["output_node"]
        for port, (kind, options) in ports(expected).items():
            found_kind, found = ports(info)[port]
            if isinstance(kind, list):
                assert set(kind) <= set(found_kind if isinstance(found_kind, list) else found["options"])
            else:
                assert found_kind == kind
            assert all(found[key] == value for key, value in options.items())


def test_the_workflows_are_offered_as_templates(server: Server) -> None:
    templates = server.get("/workflow_templates")
    assert set(templates[FOLDER]) == {path.stem for path in FILES}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_help_and_translations_are_served(server: Server, language: str) -> None:
    texts = server.get("/i18n")[language]["nodeDefs"]
    for node in NODES:
        id_ = node.GET_SCHEMA().node_id
        assert texts[id_]["display_name"]
        url = f"{server.url}/extensions/{FOLDER}/docs/{id_}/{language}.md"
        with urllib.request.urlopen(url) as reply:
            assert reply.read().decode().startswith("# ")


@pytest.mark.slow
def test_graph_and_node_and_chain_agree_on_the_bundled_model(server: Server) -> None:
    parts, quick = prompt_of("progressive_128_to_1024"), prompt_of("progressive_quick")
    for node in (*parts.values(), *quick.values()):  # with noise, so that all parts count
        node["inputs"] |= {"detail": 0.4} if "detail" in node["inputs"] else {}
    result = parts[find(parts, "SaveImage")]["inputs"]["images"]
    server.run(keep(parts, small=[SMALL, 0], graph=result), 1200)
    server.run(keep(quick, node=[find(quick, "PU_ProgressiveUpscale"), 0]), 1200)
    settings = quick[find(quick, "PU_ProgressiveUpscale")]["inputs"]
    image = torch.from_numpy(server.kept("small")).movedim(-1, 1)
    chain = core.Chain.from_pretrained()
    names = ("seed", "strength", "detail", "noise", "skip", "fusion")
    chosen = {name: settings[name] for name in names} | {"steps": int(settings["steps"])}
    with torch.no_grad():
        expected = chain(image, scale=settings["scale"], **chosen).movedim(1, -1).numpy()
    assert expected.shape == (1, 1024, 1024, 3)
    np.testing.assert_allclose(server.kept("graph"), server.kept("node"), atol=1e-5, rtol=0)
    np.testing.assert_allclose(server.kept("node"), expected, atol=1e-5, rtol=0)


def test_the_terminal_gives_the_same_picture(server: Server, tmp_path: Path) -> None:
    photo = server.base / "input" / "photo.png"
    with Image.open(server.base / "input" / "example.png") as example:
        example.convert("RGB").resize((33, 47)).save(photo)
    prompt = chain_prompt(scale=4.0, detail=0.6, steps="2", seed=11, precision="fp32")
    prompt[find(prompt, "LoadImage")]["inputs"]["image"] = photo.name
    upscale = find(prompt, "PU_ProgressiveUpscale")
    prompt[upscale]["inputs"]["image"] = [find(prompt, "LoadImage"), 0]
    server.run(keep(prompt, photo=[upscale, 0]))
    model = server.base / "models" / "progressive_upsampling" / "tiny.safetensors"
    arguments = ["--scale", "4", "--detail", "0.6", "--steps", "2", "--seed", "11", "--dtype", "fp32"]
    assert main(["upscale", str(photo), str(tmp_path / "out.png"), "--model", str(model), *arguments]) == 0
    with Image.open(tmp_path / "out.png") as picture:
        ours = np.asarray(picture).astype(int)
    theirs = np.round(server.kept("photo")[0] * 255).astype(int)
    assert ours.shape == theirs.shape == (188, 132, 3)
    assert np.abs(ours - theirs).max() <= 1  # numbers that agree to 1e-5 may round apart
    assert (ours != theirs).mean() < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_workflows_run_as_they_are(server: Server, path: Path) -> None:
    outputs = server.run(json.loads(path.read_text(encoding="utf-8")), 1200)
    shown = [image for output in outputs.values() for image in output.get("images", [])]
    assert len(shown) >= 3
    folders = {"output": "output", "temp": "temp"}
    assert all((server.base / folders[image["type"]] / image["filename"]).is_file() for image in shown)


def test_an_upscale_model_works_in_the_chain_once_it_is_switched_on(
    server: Server, infos: dict[str, Info], upscale_model: Path, chain: core.Chain
) -> None:
    flow = json.loads((ROOT / "workflows" / "progressive_own_upscale_model.json").read_text(encoding="utf-8"))
    prompt = to_api(switched_on(flow), infos)
    prompt[SMALL]["inputs"]["width"] = 24
    prompt[find(prompt, "UpscaleModelLoader")]["inputs"]["model_name"] = upscale_model.name
    prompt["tiny"] = {"class_type": "PU_LoadModel", "inputs": {"model_name": "tiny.safetensors"}}
    upscale = find(prompt, "PU_ProgressiveUpscale")
    (alone,) = (id_ for id_, node in prompt.items() if node["class_type"] == "PU_Upsample" and id_ != SMALL)
    prompt[upscale]["inputs"] |= {"model": ["tiny", 0], "precision": "fp32"}
    server.run(keep(prompt, small=[SMALL, 0], in_chain=[upscale, 0], alone=[alone, 0]))
    descriptor = pytest.importorskip("spandrel").ModelLoader().load_from_file(upscale_model)
    given = {"image": torch.from_numpy(server.kept("small")), "upscale_model": descriptor}
    in_chain = ProgressiveUpscale.execute(**prompt[upscale]["inputs"] | given | {"model": chain}).args[0]
    np.testing.assert_allclose(server.kept("in_chain"), in_chain, atol=1e-5, rtol=0)
    by_it = Upsample.execute(**prompt[alone]["inputs"] | given).args[0]
    np.testing.assert_allclose(server.kept("alone"), by_it, atol=1e-5, rtol=0)
    given |= {"upscale_model": None}
    without = ProgressiveUpscale.execute(**prompt[upscale]["inputs"] | given | {"model": chain}).args[0]
    assert np.abs(server.kept("in_chain") - without.numpy()).max() > 1e-3


def test_the_same_graph_gives_the_same_numbers_again(server: Server) -> None:
    results = []
    for name in ("first", "second"):
        prompt = chain_prompt(detail=1.0, scale=4.0)
        server.run(keep(prompt, **{name: [find(prompt, "PU_ProgressiveUpscale"), 0]}))
        results.append(server.kept(name))
    assert np.array_equal(*results)


def test_cancel_takes_effect_in_the_middle_of_a_node(server: Server) -> None:
    id_ = server.submit(chain_prompt(side=256, scale=16.0, detail=1.0, steps="8", tile=128, precision="fp32"))
    while not server.get("/queue")["queue_running"]:
        time.sleep(0.02)
    time.sleep(1.5)
    start = time.monotonic()
    server.post("/interrupt", {"prompt_id": id_})
    entry = server.wait(id_, 60)
    assert failure(entry).startswith("execution_interrupted: PU_ProgressiveUpscale")
    assert time.monotonic() - start < 30
    server.run(chain_prompt(scale=2.0))  # and the server goes on


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"scale": 0.0}, "Value 0.0 smaller than min of 0.05"),
        ({"scale": -1.0}, "Value -1.0 smaller than min of 0.05"),
        ({"scale": 1e9}, "bigger than max of 64.0"),
        ({"seed": -1}, "smaller than min of 0"),
    ],
)
def test_values_out_of_range_are_refused_before_anything_runs(
    server: Server, inputs: dict[str, Any], message: str
) -> None:
    with pytest.raises(Refused, match=message):
        server.submit(chain_prompt(**inputs))


def assert_explained(server: Server, prompt: dict[str, Any], message: str) -> None:
    """The node says what is wrong with a choice, or already the server: later than 0.3.64 it checks them itself."""
    try:
        entry = server.wait(server.submit(prompt))
    except Refused as refused:
        assert "not in list" in str(refused).lower() and "expected one of" in message
    else:
        assert message in failure(entry)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"noise": "pink"}, "noise: expected one of"),
        ({"distribution": "none"}, "distribution: expected one of"),
        ({"precision": "fp99"}, "precision: expected one of"),
    ],
)
def test_wrong_choices_are_explained(server: Server, inputs: dict[str, Any], message: str) -> None:
    assert_explained(server, chain_prompt(**inputs), message)


def test_a_damaged_model_is_explained(server: Server) -> None:
    (server.base / "models" / "progressive_upsampling" / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    prompt = chain_prompt()
    prompt["tiny"]["inputs"]["model_name"] = "cut.safetensors"
    message = failure(server.wait(server.submit(prompt)))
    assert "PU_LoadModel" in message
    assert "cut.safetensors: damaged, truncated or no safetensors file" in message


def test_a_saved_model_is_offered_at_once(server: Server) -> None:
    prompt = {
        "1": {"class_type": "PU_LoadModel", "inputs": {"model_name": "tiny.safetensors"}},
        "2": {
            "class_type": "PU_SaveModel",
            "inputs": {"model": ["1", 0], "filename_prefix": "sub/copy", "precision": "fp16"},
        },
    }
    server.run(prompt)
    _, options = ports(server.get("/object_info/PU_LoadModel")["PU_LoadModel"])["model_name"]
    assert str(Path("sub") / "copy_00001.safetensors") in options["options"]
    again = chain_prompt(scale=2.0)
    again["tiny"]["inputs"]["model_name"] = str(Path("sub") / "copy_00001.safetensors")
    server.run(again)
