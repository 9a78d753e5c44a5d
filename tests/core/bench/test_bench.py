from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from progressive_upsampling.core.bench import ceiling, timing, training
from progressive_upsampling.core.bench.ceiling import Work, convolution, product, share
from progressive_upsampling.core.bench.inference import check_peer
from progressive_upsampling.core.bench.layers import LayerGraph
from progressive_upsampling.core.bench.report import Figure, Report
from progressive_upsampling.core.bench.timing import Timing, paired, timed
from progressive_upsampling.core.bench.training import BATCH, CEILING, OURS, PLAIN, bench_training
from progressive_upsampling.core.cli import _SUITES as SUITES
from progressive_upsampling.core.cli import bench, main
from progressive_upsampling.core.pictures import write_picture
from progressive_upsampling.core.train.config import LossConfig, PhaseConfig, TrainConfig
from progressive_upsampling.core.train.recipe import read_recipe

CPU = torch.device("cpu")
TINY = TrainConfig(
    upsampler={"kind": "edsr", "scale": 2, "width": 4, "blocks": 1, "tail": "classic"},
    phases=(PhaseConfig(stages=1, steps=50, crop=8, batch=2, warmup=0),),
    loss=LossConfig(upsampler=0, refine=0, blind=0, controller=0),
)


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only where a test says so."""
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def work(*seconds: float):
        left = list(seconds)

        def run() -> None:
            now[0] += left.pop(0)

        return run

    return work


@pytest.fixture
def tiny(monkeypatch):
    """The suite with a small recipe in place of EDSR-baseline."""
    monkeypatch.setattr(training, "read_recipe", lambda name: TINY)
    monkeypatch.setattr(training, "COUNT", 2)
    monkeypatch.setattr(training, "SIDE", 32)
    monkeypatch.setattr(ceiling, "SIDES", (16,))


def test_times_are_medians_and_ratios_are_paired_without_the_first_round(clock):
    rounds = []
    found = paired({"a": clock(99, 4, 6, 80), "b": clock(99, 2, 2, 8)}, 3, CPU, rounds.append)
    assert [(t.name, t.seconds, t.ratio, t.each) for t in found] == [("a", 6, 1, (4, 6, 80)), ("b", 2, 3, (2, 2, 8))]
    assert rounds == [0, 1, 2, 3]


def test_work_runs_by_turns():
    order: list[str] = []
    paired({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2, CPU, lambda done: None)
    assert order == ["a", "b"] * 3


def test_a_call_is_timed_alone(clock):
    assert timed(clock(2.5), CPU) == 2.5


def test_fewer_than_one_round_is_refused():
    with pytest.raises(ValueError, match="rounds"):
        paired({"a": lambda: None}, 0, CPU, lambda done: None)


def test_the_suite_times_the_same_network_twice(tiny):
    found = bench_training(CPU, rounds=2, steps=4)
    assert [timing.name for timing in found.timings] == [PLAIN, OURS, CEILING] and found.timings[0].ratio == 1
    assert all(timing.seconds > 0 for timing in found.timings)
    # 8² inputs of BATCH crops, not of the recipe's own number, through convolutions of 3, 4, 4, 4, 4·4 channels, and a
    # last one at 16²; three times over, less the first layer's gradient of its input
    inner = BATCH * 64 * 9 * (3 * 4 + 3 * 4 * 4 + 4 * 16) + BATCH * 256 * 9 * 4 * 3
    assert 2 * (3 * inner - BATCH * 64 * 9 * 3 * 4) == found.flops
    assert 0 <= found.waiting < 1 and found.seconds > 0 and found.ceiling.operations >= found.flops


def test_a_recipe_of_a_chain_is_refused():
    with pytest.raises(ValueError, match="recipe: expected one of a single upsampler, got 'fidelity'"):
        bench_training(CPU, recipe="fidelity")


def test_a_ceiling_is_the_fastest_convolution_as_often_as_makes_the_operations(monkeypatch):
    times = iter([3.0, 2.0, 4.0, 9.0, 8.0, 7.0])
    monkeypatch.setattr(ceiling, "timed", lambda function, device: next(times))
    monkeypatch.setattr(ceiling, "SIDES", (8, 16))
    best = convolution(CPU, torch.float32, rounds=3)
    assert best.operations == 2 * 9 * 64**2 * 16**2  # in 7 s, more a second than 8² in 2
    with torch.inference_mode():
        assert best.run().shape == (1, 64, 16, 16)
    monkeypatch.setattr(ceiling, "PRODUCT", 4)
    assert product(CPU, torch.float32).operations == 2 * 4**3


@pytest.mark.parametrize(("operations", "calls"), [(1, 1), (10, 1), (11, 2), (95.5, 10)])
def test_work_is_repeated_until_it_has_the_operations(operations, calls):
    called = []
    often = Work(lambda: called.append(torch.is_inference_mode_enabled()), 10).repeated(operations)
    often.run()
    assert called == [True] * calls and often.operations == 10 * calls


def test_a_share_is_of_what_the_ceiling_did_in_the_same_rounds():
    # 40 operations in 2, 8 and 4 s are 20, 5 and 10 a second; the ceiling did 30, 15 and 60
    mine, best = Timing("a", (2.0, 8.0, 4.0), 1.0), Timing("b", (2.0, 4.0, 1.0), 1.0)
    assert share(mine, 40, best, Work(lambda: None, 60)) == pytest.approx(1 / 3)


def test_the_command_prints_a_table_and_writes_the_figures(tiny, tmp_path, capsys):
    options = ["bench", "--suite", "training", "--rounds", "1", "--device", "cpu"]
    assert main([*options, "--json", str(tmp_path / "b.json")]) == 0
    text = capsys.readouterr().out
    assert PLAIN in text and OURS in text and "waiting for crops" in text and "1.00x" in text
    content = json.loads((tmp_path / "b.json").read_text())
    assert "torch" in content["machine"] and list(content["suites"]) == ["training"]
    assert {figure["name"] for figure in content["suites"]["training"]} >= {f"step, {PLAIN}", f"step, {OURS}"}
    assert main([*options, "--against", str(tmp_path / "b.json")]) == 0
    assert f"against {tmp_path / 'b.json'}" in capsys.readouterr().out


def test_figures_of_something_else_are_refused_before_any_work(tmp_path, capsys):
    (tmp_path / "other.json").write_text('{"suites": {"training": [{"x": 1}]}}')
    assert main(["bench", "--against", str(tmp_path / "other.json")]) == 1
    assert "expected a file that `bench --json` has written" in capsys.readouterr().err


def graph(path: Path, factor: int) -> Path:
    """A peer that repeats pixels."""
    np.savez(path, f=np.ones((1, 1, factor, factor), np.float32))
    layer = {"type": "ConvTranspose", "inp": ["LR"], "out": ["y"], "params": ["f"], "up": factor, "crop": [0] * 4}
    path.with_suffix(".json").write_text(json.dumps([layer]))
    return path


@pytest.mark.parametrize(
    ("suite", "options", "told"),
    [
        *((suite, ["--rounds", "0"], "--rounds: expected an integer >= 1, got 0") for suite in SUITES),
        ("training", ["--recipe", "nosuch"], "nosuch"),
        ("training", ["--recipe", "fidelity"], "expected one of a single upsampler"),
        ("training", ["--data", "nosuch"], "nosuch"),
        ("training", ["--data", "small"], "data: expected pictures of at least"),
        ("inference", ["--peer", "nosuch.npz"], "nosuch.npz"),
        ("inference", ["--peer", "x2.npz"], "peer: expected a network of x8"),
        ("inference", ["--quality", "nosuch"], "nosuch"),
        ("inference", ["--model", "espcn_x2"], "espcn_x2"),
        ("memory", ["--model", "espcn_x2"], "espcn_x2"),
    ],
)
def test_what_a_later_suite_cannot_use_is_said_before_the_first(tmp_path, monkeypatch, capsys, suite, options, told):
    for name in SUITES:
        monkeypatch.setattr(bench, f"bench_{name}", lambda *_, **__: pytest.fail("a suite ran"))
    graph(tmp_path / "x2.npz", 2)
    (tmp_path / "small").mkdir()
    write_picture(tmp_path / "small" / "a.png", torch.rand(1, 3, 40, 50))
    write_picture(tmp_path / "small" / "b.png", torch.rand(1, 3, 40, 50))
    monkeypatch.chdir(tmp_path)
    first = ["--suite", "training"] if suite != "training" and "--model" in options else ["--suite", "tiling"]
    assert main(["bench", *first, "--suite", suite, "--device", "cpu", *options]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and told in err


def test_a_peer_of_x8_may_stand_beside_the_chain(tmp_path):
    check_peer(LayerGraph(graph(tmp_path / "x8.npz", 8)))
    layers = json.loads((tmp_path / "x8.json").read_text())
    (tmp_path / "x8.json").write_text(json.dumps([layers[0] | {"params": ["g"]}]))
    with pytest.raises(ValueError, match="peer: x8 cannot be run: KeyError: 'g'"):
        check_peer(LayerGraph(tmp_path / "x8.npz"))


def test_a_peer_runs_on_the_device_that_it_is_brought_to(tmp_path):
    network, meta = LayerGraph(graph(tmp_path / "x8.npz", 8)), torch.device("meta")
    assert network.to(meta) is network and all(weight.is_meta for weight in network._weights.values())


def test_the_figures_of_a_suite_are_on_the_disk_before_its_table_is_shown(tmp_path, monkeypatch):
    report = Report("a title", [["a", "b"]], [], [Figure("a", 1.0, "s", "lower")])
    monkeypatch.setattr(bench, "bench_tiling", lambda *_, **__: [report])
    monkeypatch.setattr(bench, "bench_memory", lambda *_, **__: pytest.fail("nobody reads"))

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            if "a title" in text:
                raise OSError(28, "No space left on device")
            return len(text)

    monkeypatch.setattr(sys, "stdout", Full())
    options = ["--suite", "tiling", "--suite", "memory", "--device", "cpu", "--json", str(tmp_path / "b.json")]
    assert main(["bench", *options]) == 1
    assert json.loads((tmp_path / "b.json").read_text())["suites"]["tiling"][0]["name"] == "a"


def test_the_recipe_is_the_published_baseline_in_half_its_batch():
    config = read_recipe("edsr_x2")
    assert config.upsampler == {"kind": "edsr", "scale": 2, "width": 64, "blocks": 16, "tail": "classic"}
    assert (config.phases[0].batch, config.phases[0].crop) == (8, 48)
    assert replace(config, seed=1).loss.weights == {"output": 1.0}
