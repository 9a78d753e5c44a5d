from __future__ import annotations

import json
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from progressive_upsampling.core.bench import ceiling, inference, memory, tiles
from progressive_upsampling.core.bench.inference import bench_inference
from progressive_upsampling.core.bench.layers import LayerGraph
from progressive_upsampling.core.bench.memory import Size, bench_memory
from progressive_upsampling.core.bench.pictures import sample
from progressive_upsampling.core.bench.plain import (
    PlainChain,
    blended_tiles,
    full_attention,
    naive_window_attention,
)
from progressive_upsampling.core.bench.report import Figure, Report, against, read_figures, to_json
from progressive_upsampling.core.bench.tiles import bench_tiling
from progressive_upsampling.core.chain import Chain
from progressive_upsampling.core.layout import rgb_to_ycbcr, ycbcr_to_rgb
from progressive_upsampling.core.pictures import write_picture
from progressive_upsampling.core.progress import OnStep
from progressive_upsampling.core.resample import resample

from ..tiny import largest_difference, picture, random_chain, randomised

CPU = torch.device("cpu")


@pytest.fixture
def chain() -> Chain:
    return random_chain()


def test_the_plain_chain_gives_what_the_chain_gives(chain: Chain) -> None:
    image = picture(33, 47)
    expected = chain(image, 4, dtype="fp32")
    assert largest_difference(PlainChain(chain)(image, 2), expected) < 1e-5
    assert expected.sub(resample(image, (132, 188))).abs().max() > 1e-2  # they do something


def test_the_plain_chain_leaves_the_chain_alone(chain: Chain) -> None:
    before = [parameter.stride() for parameter in chain.parameters()]
    PlainChain(chain)(picture(16, 16), 1)
    assert [parameter.stride() for parameter in chain.parameters()] == before


@pytest.mark.parametrize("size", [(100, 70), (64, 64), (65, 200), (20, 20)])
def test_blended_tiles_of_a_network_without_reach_are_the_whole(size: tuple[int, int]) -> None:
    image = picture(*size)

    def double(crop: torch.Tensor) -> torch.Tensor:
        return crop.repeat_interleave(2, 2).repeat_interleave(2, 3)

    assert largest_difference(blended_tiles(double, image, 2, tile=64, overlap=8), double(image)) < 1e-5


def test_blended_tiles_show_seams_where_a_network_reaches_further() -> None:
    image = picture(150, 150)

    def blur(crop: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(crop, 61, 1, 30, count_include_pad=False)

    assert largest_difference(blended_tiles(blur, image, 1, tile=64, overlap=8), blur(image)) > 1e-3


@torch.no_grad()
def test_the_peers_of_attention_are_the_same_layer() -> None:
    layer = randomised(inference.WindowAttention(12, 3, 4), 0.3)
    x = torch.randn(2, 12, 8, 12)
    assert largest_difference(naive_window_attention(layer, x), layer(x)) < 1e-5
    whole = randomised(inference.WindowAttention(12, 3, 8), 0.3)
    whole.bias_table.zero_()
    square = torch.randn(2, 12, 8, 8)  # one window: every token looks at every other
    assert largest_difference(full_attention(whole, square), whole(square)) < 1e-5


def test_a_graph_of_layers_is_run_as_it_is_written(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    weights = {
        "a_f": random.normal(size=(4, 1, 3, 3)),
        "a_b": random.normal(size=4),
        "up_f": random.normal(size=(4, 1, 4, 4)),
        "img_f": random.normal(size=(1, 1, 4, 4)),
    }
    weights = {name: values.astype(np.float32) for name, values in weights.items()}
    layers = [  # out of order, with a layer that nothing needs
        {"type": "Sum", "inp": ["base", "detail"], "out": ["sum"], "params": []},
        {"type": "Conv", "inp": ["LR"], "out": ["a"], "params": ["a_f", "a_b"], "pad": [1, 1, 1, 1]},
        {"type": "Conv", "inp": ["a"], "out": ["unused"], "params": ["missing"], "pad": [1, 1, 1, 1]},
        {"type": "ReLU", "inp": ["a"], "out": ["b"], "params": [], "leak": 0.2},
        {"type": "ConvTranspose", "inp": ["b"], "out": ["detail"], "params": ["up_f"], "up": 2, "crop": [1, 1, 1, 1]},
        {"type": "ConvTranspose", "inp": ["LR"], "out": ["base"], "params": ["img_f"], "up": 2, "crop": [1, 1, 1, 1]},
    ]
    layers.insert(0, layers.pop(2))
    np.savez(tmp_path / "net.npz", **weights)
    (tmp_path / "net.json").write_text(json.dumps(layers))
    rgb = picture(9, 11)
    w = {name: torch.from_numpy(values) for name, values in weights.items()}
    luma, colour = rgb_to_ycbcr(rgb).split((1, 2), 1)
    detail = F.leaky_relu(F.conv2d(luma, w["a_f"], w["a_b"], padding=1), 0.2)
    y = F.conv_transpose2d(detail, w["up_f"], stride=2, padding=1)
    y = y + F.conv_transpose2d(luma, w["img_f"], stride=2, padding=1)
    expected = ycbcr_to_rgb(torch.cat([y, resample(colour, (18, 22))], 1)).clamp(0, 1)
    graph = LayerGraph(tmp_path / "net.npz")
    assert graph.name == "net"
    assert largest_difference(graph(rgb), expected) < 1e-5


def test_a_graph_with_several_ends_gives_the_one_asked_for(tmp_path: Path) -> None:
    np.savez(tmp_path / "net.npz", f=np.full((1, 1, 2, 2), 1.0, np.float32))
    up = {"type": "ConvTranspose", "params": ["f"], "up": 2, "crop": [0, 0, 0, 0]}
    layers = [up | {"inp": [a], "out": [b]} for a, b in (("LR", "x2"), ("small", "half"), ("half", "x4"))]
    (tmp_path / "net.json").write_text(json.dumps(layers))
    rgb, path = picture(5, 7), tmp_path / "net.npz"
    assert LayerGraph(path).ends == ["x2", "x4"]
    for end, factor in ((None, 4), ("x4", 4), ("half", 2), ("x2", 2)):
        assert LayerGraph(path, end)(rgb).shape == (1, 3, 5 * factor, 7 * factor)
    with pytest.raises(ValueError, match=r"end: expected a layer of .*, as 'x4', got 'x3'"):
        LayerGraph(path, "x3")


def test_weights_that_are_no_npz_are_named(tmp_path: Path) -> None:
    (tmp_path / "net.npz").write_bytes(b"\x89PNG")
    (tmp_path / "net.json").write_text("[]")
    with pytest.raises(ValueError, match=r"net\.npz: no readable \.npz file"):
        LayerGraph(tmp_path / "net.npz")


def test_a_graph_of_other_layers_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "net.npz", a=np.zeros(1))
    (tmp_path / "net.json").write_text(json.dumps([{"type": "Pool", "inp": ["x"], "out": ["y"]}]))
    with pytest.raises(ValueError, match="expected layers of type Conv, ConvTranspose, ReLU, Sum, got 'Pool'"):
        LayerGraph(tmp_path / "net.npz")


@pytest.mark.parametrize(
    "content", ["[]", "{}", "[1]", "x8", '[{"type": "Sum"}]', '[{"type": "Sum", "inp": [], "out": []}]']
)
def test_a_file_without_a_graph_is_named(tmp_path: Path, content: str) -> None:
    np.savez(tmp_path / "net.npz", a=np.zeros(1))
    (tmp_path / "net.json").write_text(content)
    with pytest.raises(ValueError, match=r"net\.json: expected a graph of layers: \w+: "):
        LayerGraph(tmp_path / "net.npz")


def names(reports: list[Report]) -> set[str]:
    return {figure.name for report in reports for figure in report.figures}


def test_the_inference_suite_measures_everything(chain: Chain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(inference, "SIDE", 16)
    monkeypatch.setattr(inference, "TOKENS", (8, 16))
    monkeypatch.setattr(inference, "COUNT", 4)
    monkeypatch.setattr(ceiling, "SIDES", (8,))
    monkeypatch.setattr(ceiling, "PRODUCT", 16)
    monkeypatch.setattr(inference, "_formats", lambda device: ["bf16", "fp32"])
    write_picture(tmp_path / "a.png", picture(100, 90))
    reports = bench_inference(CPU, chain, data=tmp_path, rounds=1)
    found = names(reports)
    assert "chain 128 to 1024, this chain, bf16: share of the convolution ceiling" in found
    assert {"attention, 8² tokens", "100 small pictures, together", "Y-PSNR ×8, this chain, fp32"} <= found
    for report in reports:
        assert all(len(row) == len(report.table[0]) for row in report.table)
    assert "differ by at most" in reports[-1].notes[0]


def test_the_tiling_suite_finds_ours_exact_and_the_other_not(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "OUTPUTS", (64,))
    monkeypatch.setattr(tiles, "SEAM_SIDE", 300)
    monkeypatch.setattr(tiles, "SEAM_TILE", 64)
    monkeypatch.setattr(tiles, "OVERLAP", 4)
    (report,) = bench_tiling(CPU, chain, rounds=1)
    errors = {figure.name: figure.value for figure in report.figures if figure.name.startswith("seam")}
    assert errors["seam error, exact strips"] < 1e-2 < errors["seam error, blended tiles"]


def test_the_memory_suite_runs_each_size_by_itself(
    chain: Chain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chain.save(tmp_path / "small.safetensors")
    (report,) = bench_memory(CPU, tmp_path / "small.safetensors", sides=(64, 128), seconds=0.0)
    assert [row[0] for row in report.table[1:]] == ["64²", "128²"]
    beside = "128², × of 64² beside it"
    assert names([report]) >= {"64²", "128², peak", "128², beyond input and result", beside}


class Clock:
    """What takes time, and tells it."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.mark.parametrize(("least", "runs", "yardsticks"), [(1.0, 1, 2), (24.0, 2, 5)])
def test_the_smallest_size_is_run_while_the_others_are(
    monkeypatch: pytest.MonkeyPatch, least: float, runs: int, yardsticks: int
) -> None:
    clock, run = Clock(), []
    monkeypatch.setattr(memory, "time", clock)

    def chain(image: torch.Tensor, scale: int, on_step: OnStep | None = None) -> torch.Tensor:
        run.append(image.shape[2])
        if on_step is None:
            clock.now += 3.0
        else:
            for step in range(5):
                clock.now += 1.0
                on_step(step + 1, 5, None)
        return torch.zeros(1, 3, 1, 1)

    found = memory._by_turns(cast(Chain, chain), sample(64, 64), sample(8, 8), least)
    assert found == (5.0, 3.0)
    assert (run.count(64), run.count(8)) == (runs, yardsticks)


def test_a_size_that_is_done_at_once_is_measured_beside_the_smallest_too(chain: Chain) -> None:
    seconds, yardstick = memory._by_turns(chain, sample(16, 16), sample(8, 8), 0.0)
    assert seconds > 0 and yardstick > 0


def test_peaks_are_those_of_a_run_without_others_inside(
    chain: Chain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chain.save(tmp_path / "small.safetensors")
    told = iter([100, 250, 900])
    monkeypatch.setattr(memory, "peak_memory", lambda device: next(told))
    monkeypatch.setattr(memory, "_by_turns", lambda *_: (next(told) / 900, 2.0))
    found = memory._run("cpu", str(tmp_path / "small.safetensors"), 64, 16, torch.get_num_threads(), 0.0)
    assert (found.seconds, found.yardstick, found.peak, found.before) == (1.0, 2.0, 250, 100)


def test_growth_is_of_the_time_for_each_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter([Size(16, 1.0, 1.0, 2, 1), Size(64, 24.0, 1.25, 2, 1)])

    class Pool:
        def __enter__(self) -> Pool:
            return self

        def __exit__(self, *_: object) -> None: ...

        def apply(self, *_: object) -> Size:
            return next(sizes)

    context = SimpleNamespace(Pool=lambda count: Pool())
    monkeypatch.setattr(memory.multiprocessing, "get_context", lambda method: context)
    (report,) = bench_memory(CPU, "any", sides=(16, 64))
    growth = {figure.name: figure.value for figure in report.figures if "beside" in figure.name}
    assert growth == {"16², × of 16² beside it": pytest.approx(1.0), "64², × of 16² beside it": pytest.approx(1.2)}


def test_a_result_is_not_kept_while_the_next_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[torch.Tensor]] = []

    class Fake:
        def to(self, device: torch.device) -> Fake:
            return self

        def __call__(self, image: torch.Tensor, scale: int, on_step: OnStep | None = None) -> torch.Tensor:
            assert not any(result() is not None for result in made)
            result = torch.zeros(1, 3, 8, 8)
            made.append(weakref.ref(result))
            return result

    monkeypatch.setattr(memory.Chain, "from_pretrained", lambda model: Fake())
    memory._run("cpu", "fake", 64, 64, torch.get_num_threads(), 0.01)
    assert len(made) > 3


def test_memory_beyond_input_and_result_leaves_both_out() -> None:
    size = Size(side=80, seconds=1, yardstick=1, peak=1_000_000, before=300_000)
    assert size.beyond == 1_000_000 - 300_000 - 12 * (80 * 80 + 10 * 10)


def test_a_system_that_tells_no_memory_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "peak_memory", lambda device: None)
    with pytest.raises(ValueError, match="memory: this system does not tell"):
        bench_memory(CPU, "default")


def test_sample_pictures_are_pictures() -> None:
    image = sample(20, 30, 2)
    assert image.shape == (2, 3, 20, 30) and image.min() >= 0 and image.max() <= 1 and image.std() > 0.05
    assert torch.equal(image, sample(20, 30, 2))


FIGURES = (Figure("a", 2.0, "s", "lower"), Figure("b", 3.0, "x", "higher"), Figure("c", 1.0, "s", "lower"))


def test_figures_come_back_from_json(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    path.write_text(to_json("a machine", "1.2", {"tiling": [Report("", [], [], FIGURES)]}))
    assert read_figures(path) == ("a machine, version 1.2", {"tiling": list(FIGURES)})


@pytest.mark.parametrize("content", [b"\x89PNG\xff" * 1000, b"[]", b'{"suites": {}}'])
def test_other_files_are_no_figures_and_are_not_printed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other").write_bytes(content)
    with pytest.raises(ValueError, match="other: expected a file that `bench --json` has written") as caught:
        read_figures(tmp_path / "other")
    assert len(str(caught.value)) < 300


def test_a_ratio_above_one_is_better_whichever_way_a_figure_is_good() -> None:
    now = [replace(FIGURES[0], value=1.0), replace(FIGURES[1], value=1.5), replace(FIGURES[2], value=1.01)]
    table = against({"s": [Report("", [], [], [*now, Figure("new", 1.0, "s", "lower")])]}, {"s": FIGURES})
    assert [row[1:] for row in table[1:]] == [
        ["a", "2", "1", "s", "2.00x", "better"],
        ["b", "3", "1.5", "x", "0.50x", "worse"],
        ["c", "1", "1.01", "s", "0.99x", ""],
    ]
