from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from progressive_upsampling.core import whole_file
from progressive_upsampling.core.chain import Chain
from progressive_upsampling.core.checkpoint import CheckpointError, read_checkpoint, write_checkpoint
from progressive_upsampling.core.config import to_dict
from progressive_upsampling.core.pictures import PictureError, write_picture
from progressive_upsampling.core.train.config import LossConfig, TrainConfig
from progressive_upsampling.core.train.ema import EMA
from progressive_upsampling.core.train.learner import Learner
from progressive_upsampling.core.train.setup import loss_scaler
from progressive_upsampling.core.train.state import Counters, read_state, remove_leftovers, restore, save_state
from progressive_upsampling.core.train.task import ChainTask, trainable

from .conftest import tiny_chain, tiny_config

CONFIG = tiny_config(chain=tiny_chain(1))


CPU = torch.device("cpu")


def newborn(seed: int = 0) -> Chain:
    chain = trainable(ChainTask(CONFIG.chain), None, seed, CPU)
    assert isinstance(chain, Chain)
    return chain


def parts_of(chain: Chain) -> list[Learner]:
    learner = Learner("", chain, 1.0, loss_scaler(CPU, torch.float32))
    learner.set_rate(1e-2)
    return [learner]


def load(path: Path, parts: list[Learner], ema: EMA[Chain], config: TrainConfig = CONFIG) -> Counters:
    counters, checkpoint = read_state(path, config)
    restore(checkpoint, counters, parts, ema)
    return counters


def trained(seed: int = 0) -> tuple[list[Learner], EMA[Chain]]:
    """A chain, its optimiser and its average after two steps."""
    chain = newborn(seed)
    parts, ema = parts_of(chain), EMA(chain)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(2):
        for parameter in chain.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        parts[0].optimizer.step()
        ema.update(chain)
    return parts, ema


def everything(parts: list[Learner], ema: EMA[Chain]) -> list[torch.Tensor]:
    state = parts[0].optimizer.state_dict()["state"]
    moments = [value for _, moment in sorted(state.items()) for _, value in sorted(moment.items())]
    return [*parts[0].network.state_dict().values(), *ema.model.state_dict().values(), *moments]


def save(path: Path, parts: list[Learner], ema: EMA[Chain], counters: Counters | None = None) -> None:
    save_state(path, parts, ema, counters or Counters(step=2), CONFIG, {"recipe": "test"})


def test_a_state_comes_back_to_the_bit(tmp_path):
    counters = Counters(3, 0, 2, 1, 30.25, 2, 1.5, "abc", 1024.0, 7, "def")
    parts, ema = trained()
    save(tmp_path / "s.safetensors", parts, ema, counters)
    other_parts, other_ema = trained(seed=1)
    other_ema.updates = 0
    loaded = load(tmp_path / "s.safetensors", other_parts, other_ema)
    assert loaded == replace(counters, ema_updates=2) and other_ema.updates == 2
    assert read_state(tmp_path / "s.safetensors", CONFIG)[1].provenance == {"recipe": "test"}
    pairs = list(zip(everything(parts, ema), everything(other_parts, other_ema), strict=True))
    assert len(pairs) > 100 and all(torch.equal(a, b) and a.stride() == b.stride() for a, b in pairs)


def test_a_state_without_moments_empties_the_optimiser(tmp_path):
    chain = newborn()
    save(tmp_path / "s.safetensors", parts_of(chain), EMA(chain))
    parts, ema = trained()
    load(tmp_path / "s.safetensors", parts, ema)
    assert not parts[0].optimizer.state


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
@pytest.mark.parametrize("fused", [False, True])
def test_the_step_of_an_optimiser_comes_back_to_where_it_counts(tmp_path, fused):
    parts, ema = trained()
    save(tmp_path / "s.safetensors", parts, ema)
    # no GPU here: "meta" is a device other than the CPU, and the mark is all that a state has to go by
    there = parts_of(newborn().to("meta"))
    for group in there[0].optimizer.param_groups:
        group["fused"] = fused
    load(tmp_path / "s.safetensors", there, ema)
    states = list(there[0].optimizer.state.values())
    assert len(states) == len(list(there[0].network.parameters()))
    for state in states:
        assert state["step"].device.type == ("meta" if fused else "cpu") and state["step"].dtype is torch.float32
        assert state["exp_avg"].device.type == state["exp_avg_sq"].device.type == "meta"


def test_another_config_is_refused_by_the_name_of_what_changed(tmp_path):
    parts, ema = trained()
    save(tmp_path / "s.safetensors", parts, ema)
    before = [tensor.clone() for tensor in everything(parts, ema)]
    changed = replace(CONFIG, seed=5, loss=LossConfig(output=2.0))
    with pytest.raises(CheckpointError, match="different: loss, seed"):
        load(tmp_path / "s.safetensors", parts, ema, changed)
    assert all(torch.equal(a, b) for a, b in zip(before, everything(parts, ema), strict=True))


def test_what_a_run_started_from_does_not_count(tmp_path):
    parts, ema = trained()
    path = tmp_path / "s.safetensors"
    save_state(path, parts, ema, Counters(step=2), replace(CONFIG, init="default"), {})
    for init in ("", "other.safetensors"):
        assert read_state(path, replace(CONFIG, init=init))[0] == Counters(step=2, ema_updates=2)


def test_a_state_from_before_a_setting_existed_is_still_read(tmp_path):
    parts, ema = trained()
    save(tmp_path / "s.safetensors", parts, ema)
    old = read_checkpoint(tmp_path / "s.safetensors")
    run = to_dict(CONFIG)
    del run["clip"], run["loss"]["blind"]
    config = {"run": run, "step": 2, "ema_updates": 2}
    write_checkpoint(tmp_path / "s.safetensors", old.tensors, kind=old.kind, config=config, provenance={})
    counters = load(tmp_path / "s.safetensors", parts, ema)
    assert counters == Counters(step=2, ema_updates=2)


@pytest.mark.parametrize("config", [{}, {"run": {"novel": 1}, "step": 1}, {"run": to_dict(CONFIG), "step": "x"}])
def test_a_damaged_state_is_refused(tmp_path, config):
    parts, ema = trained()
    path = tmp_path / "s.safetensors"
    save(path, parts, ema)
    write_checkpoint(path, read_checkpoint(path).tensors, kind="training state", config=config, provenance={})
    with pytest.raises(CheckpointError, match="safetensors: "):
        load(path, parts, ema)


def test_a_model_is_no_state(tmp_path):
    parts, ema = trained()
    ema.model.save(tmp_path / "model.safetensors", {})
    with pytest.raises(CheckpointError, match="training state"):
        load(tmp_path / "model.safetensors", parts, ema)


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_writing_that_fails_leaves_the_old_state(tmp_path, monkeypatch, where):
    parts, ema = trained()
    path = tmp_path / "s.safetensors"
    save(path, parts, ema)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, where, fail)
    with pytest.raises(CheckpointError, match="No space"):
        save(path, parts, ema, Counters(step=9))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_leftovers_of_killed_writings_go_and_nothing_else(tmp_path):
    for name in ("samples", "other"):
        (tmp_path / name).mkdir()
    mine = [whole_file.beside(tmp_path / "state.safetensors"), whole_file.beside(tmp_path / "samples" / "1.png")]
    others = [tmp_path / name for name in ("state.safetensors", ".hidden", "notes.part", ".0a1b.part", "samples/1.png")]
    others.append(whole_file.beside(tmp_path / "other" / "1.png"))
    for path in mine + others:
        path.write_text("x")
    remove_leftovers(tmp_path)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(others)


def test_what_a_killed_writing_of_a_picture_leaves_goes(tmp_path, monkeypatch):
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError))  # where the kill strikes
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    with pytest.raises(PictureError):
        write_picture(tmp_path / "curves.png", torch.rand(1, 3, 4, 4))
    monkeypatch.undo()
    assert len(list(tmp_path.iterdir())) == 1
    remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())


_KILLS = 12
_KILL_WRITERS = """
import importlib.util, os, random, signal, sys, time
from pathlib import Path
root, target, kills = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
spec = importlib.util.spec_from_file_location("package", root / "__init__.py", submodule_search_locations=[str(root)])
sys.modules["package"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
import torch
from package.core.checkpoint import read_checkpoint, write_checkpoint
tensors = {f"t{i}": torch.full((64, 64, 9), float(i)) for i in range(20)}
moments = random.Random(0)

def write(step):
    write_checkpoint(target, tensors, kind="training state", config={"step": step}, provenance={})

write(0)
for _ in range(kills):
    child = os.fork()
    if child == 0:
        for step in range(1, 10_000):
            write(step)
        os._exit(0)
    time.sleep(moments.uniform(0.01, 0.2))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print(read_checkpoint(target).config["step"])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
@pytest.mark.slow
def test_a_writer_killed_at_any_moment_leaves_a_readable_file(tmp_path, root):
    command = [sys.executable, "-c", _KILL_WRITERS, str(root), str(tmp_path / "state.safetensors"), str(_KILLS)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    steps = [int(line) for line in done.stdout.split()]
    assert len(steps) == _KILLS and max(steps) > 1
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]
