from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from progressive_upsampling.core.checkpoint import read_checkpoint
from progressive_upsampling.core.config import to_dict
from progressive_upsampling.core.train.adversarial import AdversarialConfig
from progressive_upsampling.core.train.config import LossConfig, PhaseConfig, TrainConfig
from progressive_upsampling.core.train.discriminators import DiscriminatorConfig
from progressive_upsampling.core.train.distributed import World, joined
from progressive_upsampling.core.train.history import read_history
from progressive_upsampling.core.train.run_folder import HISTORY, LAST, STATE
from progressive_upsampling.core.train.task import ChainTask, trainable

from .conftest import tiny_chain, tiny_config

_LAUNCHER = """
import importlib.util, sys
root = {root!r}
spec = importlib.util.spec_from_file_location(
    "progressive_upsampling", root + "/__init__.py", submodule_search_locations=[root])
module = importlib.util.module_from_spec(spec)
sys.modules["progressive_upsampling"] = module
spec.loader.exec_module(module)
from progressive_upsampling.core.cli import main
sys.exit(main(sys.argv[1:]))
"""

PHASE = PhaseConfig(stages=2, steps=4, crop=6, batch=4, learning_rate=1e-3, warmup=0, noisy=0.5)


def adversarial_config() -> TrainConfig:
    """Pixels first, then with a discriminator whose penalty is due; nothing whose mean is over the whole batch."""
    judge = AdversarialConfig("vanilla", DiscriminatorConfig("patch", 2, 1, 1), r1=10.0, r1_every=2)
    return tiny_config(
        chain=tiny_chain(2),
        phases=(replace(PHASE, stages=1, steps=2), replace(PHASE, steps=2, accumulate=2, adversarial=True)),
        loss=LossConfig(adversarial=0.1, feature_matching=0.1),
        adversarial=judge,
    )


@pytest.fixture
def launch(root, tmp_path):
    """Starts `train` in some processes that train together."""
    launcher = tmp_path / "launcher.py"
    launcher.write_text(_LAUNCHER.format(root=str(root)))

    def start(processes: int, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command = command if processes > 1 else [sys.executable]
        return subprocess.Popen(
            [*command, str(launcher), "train", *(str(argument) for argument in arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )

    return start


def written(config: TrainConfig, folder: Path) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(to_dict(config)))
    return path


def difference(a: Path, b: Path, config: TrainConfig) -> float:
    """How far two runs are apart, in parts of the way that they have come."""
    first, second = (read_checkpoint(run / LAST).tensors for run in (a, b))
    start = trainable(ChainTask(config.chain), None, config.seed, torch.device("cpu")).state_dict()
    apart = sum(float((first[key] - second[key]).square().sum()) for key in first) ** 0.5
    return apart / sum(float((first[key] - start[key]).square().sum()) for key in first) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pixel", "adversarial"])
def test_two_processes_learn_what_one_does(launch, photos, held, tmp_path, name):
    config = tiny_config(phases=(PHASE,)) if name == "pixel" else adversarial_config()
    file = written(config, tmp_path)
    options = ["--data", photos, "--val", held, "--device", "cpu"]
    for processes, out in ((1, "one"), (2, "two")):
        process = launch(processes, "--config", file, *options, "--out", tmp_path / out)
        text, _ = process.communicate(timeout=300)
        assert process.returncode == 0, text
    assert (
        difference(tmp_path / "one", tmp_path / "two", config) < 1e-2
    )  # Adam turns the rounding of small gradients into steps
    one, two = (read_history(tmp_path / out / HISTORY) for out in ("one", "two"))
    assert [entry["step"] for entry in two] == [0, 1, 2, 3]  # written once
    for a, b in zip(one, two, strict=True):
        names = a.keys() - {"seconds", "wait"}
        assert names == b.keys() - {"seconds", "wait"}
        # how often the discriminator is right jumps where two logits are nearly equal
        for key in names - {"discriminator_right"}:
            assert a[key] == pytest.approx(b[key], rel=2e-3, abs=2e-5), key
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == sorted(p.name for p in (tmp_path / "two").iterdir())


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs signals to groups of processes")
def test_processes_that_are_stopped_save_together_and_any_number_goes_on(launch, photos, tmp_path):
    config = tiny_config(phases=(replace(PHASE, steps=4000),), save_every=5000, validate_every=0)
    options = ["--config", written(config, tmp_path), "--data", photos, "--out", tmp_path / "run", "--device", "cpu"]
    process = launch(2, *options)
    deadline = time.monotonic() + 120
    while len(read_history(tmp_path / "run" / HISTORY)) < 3 and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=120)
    assert process.returncode != 0 and "--resume goes on there" in text
    steps = read_checkpoint(tmp_path / "run" / STATE).config["step"]
    assert 3 <= steps == len(read_history(tmp_path / "run" / HISTORY)) < 4000
    process = launch(1, *options, "--resume")
    while len(read_history(tmp_path / "run" / HISTORY)) < steps + 2 and time.monotonic() < deadline + 120:
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert read_checkpoint(tmp_path / "run" / STATE).config["step"] >= steps + 2


def test_a_process_alone_goes_through_no_exchange(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined(torch.device("cpu")) as (world, device):
        assert world == World() and world.first and device == torch.device("cpu")
        network = torch.nn.Linear(1, 1)
        assert world.wrap(network) is network and world.any(True, device) and not world.any(False, device)
        assert world.mean({"a": 1.0}, device) == {"a": 1.0} and world.sums([2.0, 3.0], device) == [2.0, 3.0]
        world.wait()
