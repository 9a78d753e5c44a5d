"""Training in a real ComfyUI server: cancelled, resumed, and used by other nodes."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from progressive_upsampling import core

from .server import Server, failure
from .test_server import assert_explained, find, keep, prompt_of

pytestmark = pytest.mark.comfy

QUICK = {"batch": 2, "crop": 8, "precision": "fp32", "validate_every": 0}


def training_prompt(**inputs: Any) -> dict[str, Any]:
    """The bundled workflow with the tiny model, and nothing of it saved but the run."""
    prompt = {id_: node for id_, node in prompt_of("progressive_train").items() if node["class_type"] != "PU_SaveModel"}
    prompt[find(prompt, "PU_LoadModel")]["inputs"]["model_name"] = "tiny.safetensors"
    prompt[find(prompt, "PU_Train")]["inputs"] |= QUICK | inputs
    return prompt


def run_of(server: Server, name: str) -> Path:
    return server.base / "output" / "progressive_upsampling" / name


def steps_of(run: Path) -> list[dict[str, Any]]:
    path = run / "history.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def test_a_cancelled_run_is_resumed_bit_for_bit(server: Server) -> None:
    whole, cut = (training_prompt(steps=150, run_name=name) for name in ("whole", "cut"))
    server.run(whole)
    id_ = server.submit(cut)
    deadline = time.monotonic() + 120
    while len(steps_of(run_of(server, "cut"))) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    start = time.monotonic()
    server.post("/interrupt", {"prompt_id": id_})
    assert failure(server.wait(id_, 60)).startswith("execution_interrupted: PU_Train")
    assert time.monotonic() - start < 30
    done = len(steps_of(run_of(server, "cut")))
    assert 3 <= done < 150
    log = server.log.read_text(errors="replace")
    assert f"stopped after {done} of 150 steps; to go on: resume on, run_name cut" in log
    server.run(training_prompt(steps=150, run_name="cut", resume=True))
    one, other = (core.Chain.from_pretrained(run_of(server, name) / "last.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())
    losses = [[step["loss"] for step in steps_of(run_of(server, name))] for name in ("whole", "cut")]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 150


def test_other_nodes_use_the_trained_model_and_the_first_one_is_as_it_was(server: Server) -> None:
    prompt = training_prompt(steps=5, run_name="used", learning_rate=1e-3)
    upscale, small = find(prompt, "PU_ProgressiveUpscale"), find(prompt, "PU_Upsample")
    prompt["before"] = {"class_type": "PU_ProgressiveUpscale", "inputs": dict(prompt[upscale]["inputs"])}
    prompt["before"]["inputs"]["model"] = [find(prompt, "PU_LoadModel"), 0]
    prompt[upscale]["inputs"] |= {"precision": "fp32"}
    prompt["before"]["inputs"] |= {"precision": "fp32"}
    server.run(keep(prompt, trained=[upscale, 0], untrained=["before", 0], small=[small, 0]))
    image = torch.from_numpy(server.kept("small")).movedim(-1, 1)
    tiny = server.base / "models" / "progressive_upsampling" / "tiny.safetensors"
    for name, path in (("trained", run_of(server, "used") / "last.safetensors"), ("untrained", tiny)):
        with torch.no_grad():
            expected = core.Chain.from_pretrained(path)(image, scale=2.0, dtype="fp32").movedim(1, -1).numpy()
        np.testing.assert_allclose(server.kept(name), expected, atol=1e-5, rtol=0)
    assert np.abs(server.kept("trained") - server.kept("untrained")).max() > 1e-3


def test_a_folder_of_the_input_folder_is_trained_on_and_measured(server: Server) -> None:
    folder = server.base / "input" / "mine" / "deep"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(4):
        coarse = Image.fromarray(random.integers(0, 256, (9, 11, 3), dtype=np.uint8))
        coarse.resize((80, 70), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    prompt = training_prompt(steps=3, run_name="folder")
    data = find(prompt, "PU_TrainingData")
    prompt[data]["inputs"] |= {"folder": "mine", "validation_share": 0.5}
    del prompt[data]["inputs"]["images"]
    (report,) = server.run({data: prompt[data]})[data]["text"]  # alone
    assert "1 left out:" in report and "broken.png" in report
    train = find(prompt, "PU_Train")
    sources = [value[0] for value in prompt[train]["inputs"].values() if isinstance(value, list)]
    shown = server.run({id_: prompt[id_] for id_ in (train, *sources)})[train]
    assert len(shown["images"]) == 1
    assert re.fullmatch(r"folder: 3 steps in 0:0\d\n×2 \d\d\.\d\d → \d\d\.\d\d dB", shown["text"][0])
    (last,) = (step for step in steps_of(run_of(server, "folder")) if "x2" in step)
    assert last["step"] == 2
    _, options = server.get("/object_info/PU_LoadModel")["PU_LoadModel"]["input"]["required"]["model_name"]
    assert {"output/folder/last.safetensors", "output/folder/best.safetensors"} <= set(options["options"])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"run_name": "../away"}, "run_name: expected a name inside"),
        ({"crop": 512}, "data: expected pictures of at least 1032x1032 px"),
        ({"accumulate": 3}, "accumulate: expected at most the batch of 2, got 3"),
        ({"strategy": "none"}, "strategy: expected one of"),
    ],
)
def test_what_will_not_do_is_explained(server: Server, inputs: dict[str, Any], message: str) -> None:
    assert_explained(server, training_prompt(steps=2, **inputs), message)
