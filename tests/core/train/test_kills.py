"""A run killed again and again, anywhere: in a step, in a validation, in the middle of writing a file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from progressive_upsampling.core.checkpoint import read_checkpoint
from progressive_upsampling.core.config import to_dict
from progressive_upsampling.core.train.config import PhaseConfig
from progressive_upsampling.core.train.history import read_history
from progressive_upsampling.core.train.run_folder import BEST, HISTORY, LAST, STATE
from progressive_upsampling.core.whole_file import UNFINISHED

from .conftest import tiny_chain, tiny_config

KILLS = int(os.environ.get("PU_KILLS", "6"))  # PU_KILLS=100 for a thorough look
TIMES = ("seconds", "wait")

# One process imports everything and forks one child after the other, so that a kill comes soon after the last.
_PARENT = """
import importlib.util, os, random, signal, sys, time
from pathlib import Path
root, config, photos, held, run, straight, kills = *map(Path, sys.argv[1:7]), int(sys.argv[7])
spec = importlib.util.spec_from_file_location("package", root / "__init__.py", submodule_search_locations=[str(root)])
sys.modules["package"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
import torch
torch.set_num_threads(1)
from package.core.train.loop import Trainer
from package.core.train.recipe import read_config
from package.core.train.state import read_state

class Stop(Exception):
    pass

def train(out, last=None):
    def on_step(done, total, values):
        if last is not None and done >= last:
            raise Stop
    trainer = Trainer(read_config(config), photos, out, val=held, on_step=on_step)
    try:
        trainer.run(resume=True)
    except Stop:
        pass

def child(out, last=None):
    pid = os.fork()
    if pid == 0:
        try:
            train(out, last)
            os._exit(0)
        except BaseException as error:
            print("child:", repr(error), flush=True)
            os._exit(1)
    return pid

def lines():
    return history.read_bytes().count(b"\\n") if history.exists() else 0

moments, history, most = random.Random(0), run / "history.jsonl", 0
for _ in range(kills):
    pid, deadline = child(run), time.monotonic() + 60
    if moments.random() < 0.7:  # a kill after some work, on however slow a machine; else at any moment of the start
        while lines() <= most and time.monotonic() < deadline:
            time.sleep(0.02)
    time.sleep(moments.uniform(0.05, 1.5))
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    most = max(most, lines())
    assert os.WIFSIGNALED(status), "the run ended by itself: " + str(status)
    state = run / "state.safetensors"
    print("killed at", read_state(state, read_config(config))[0].step if state.exists() else 0, flush=True)
last = read_state(state, read_config(config))[0].step + 3 if state.exists() else 3
for out in (run, straight):
    _, status = os.waitpid(child(out, last), 0)
    assert status == 0, out
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_a_run_killed_again_and_again_is_the_run_never_killed(root, photos, held, tmp_path):
    phase = {"steps": 5000, "crop": 4, "batch": 2, "learning_rate": 1e-3, "warmup": 1, "noisy": 0.5}
    phases = (PhaseConfig(stages=1, **(phase | {"steps": 9})), PhaseConfig(stages=2, start_from=1, **phase))
    config = tiny_config(chain=tiny_chain(2), phases=phases, save_every=1, validate_every=4)
    (tmp_path / "config.json").write_text(json.dumps(to_dict(config)))
    run, straight = tmp_path / "run", tmp_path / "straight"
    arguments = [root, tmp_path / "config.json", photos, held, run, straight, KILLS]
    done = subprocess.run(
        [sys.executable, "-c", _PARENT, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    steps = [int(line.split()[-1]) for line in done.stdout.splitlines() if line.startswith("killed")]
    assert len(steps) == KILLS and steps == sorted(steps) and steps[-1] > 2
    assert_same(run, straight)


def assert_same(a: Path, b: Path) -> None:
    for name in (STATE, LAST, BEST):
        first, second = (read_checkpoint(run / name).tensors for run in (a, b))
        assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first), name
    told = [[{k: v for k, v in e.items() if k not in TIMES} for e in read_history(run / HISTORY)] for run in (a, b)]
    assert told[0] == told[1]
    assert not list(a.rglob(UNFINISHED))
