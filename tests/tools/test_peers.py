"""Networks of others: that they are known by their tensors, and do what their papers say.

PU_BENCHMARK_PEERS names a folder with their weights, and PU_BENCHMARK_DATA one with the folder Set5.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from progressive_upsampling.core.evaluate import evaluate_folder
from progressive_upsampling.core.layout import rgb_to_y
from progressive_upsampling.core.resample import resample

from ..core.tiny import largest_difference, picture, randomised
from .peers import __main__ as tool
from .peers.carn import CARNM
from .peers.catalogue import Peer, load_peers
from .peers.imdn import IMDN
from .peers.opencv import espcn, fsrcnn
from .peers.safmn import SAFMN
from .peers.vdsr import VDSR

WEIGHTS, DATA = os.environ.get("PU_BENCHMARK_PEERS"), os.environ.get("PU_BENCHMARK_DATA")
# Y-PSNR on Set5 by factor, measured elsewhere with the same weights
KNOWN = {
    "CARN-M": {2: 37.68, 3: 34.06, 4: 31.88},
    "IMDN_x2": {2: 38.00},
    "IMDN_x4": {4: 32.21},
    "LapSRN_x8": {8: 26.14},
    "MSLapSRN_D5R8": {2: 37.74, 4: 31.73, 8: 26.33},
    "SAFMN_x4": {4: 32.17},
    "VDSR": {2: 37.61, 3: 33.76, 4: 31.45},
}


def arrays_of(layers: list[tuple[int, int, int]], slopes: int) -> dict[str, np.ndarray]:
    """Arrays as TensorFlow has them, of (side, inputs, outputs)."""
    random, arrays = np.random.default_rng(0), {}
    for number, (side, inputs, outputs) in enumerate(layers, 1):
        arrays[f"f{number}"] = random.normal(0, 0.2, (side, side, inputs, outputs)).astype(np.float32)
        arrays[f"b{number}"] = random.normal(0, 0.2, outputs).astype(np.float32)
    return arrays | {
        f"alpha{number}": np.full(layers[number - 1][2], 0.1, np.float32) for number in range(1, slopes + 1)
    }


ESPCN = arrays_of([(5, 1, 6), (3, 6, 5), (3, 5, 9)], 0)
FSRCNN = arrays_of([(5, 1, 6), (1, 6, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3), (1, 3, 6), (1, 6, 4)], 7)
FSRCNN["b8"] = FSRCNN["b8"][:1]  # it is added after the shuffle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of all kinds with random weights, and two that are nothing known."""
    path = tmp_path / "others"
    path.mkdir()
    networks: dict[str, nn.Module] = {"carn-m": CARNM(), "vdsr": VDSR(), "imdn": IMDN(4), "safmn": SAFMN(2)}
    for name, network in networks.items():
        save_file(
            {key: value.contiguous() for key, value in randomised(network, 0.0).state_dict().items()},
            path / f"{name}.safetensors",
        )
    save_file({"weight": torch.rand(3)}, path / "other.safetensors")
    np.savez(path / "espcn.npz", **ESPCN)
    np.savez(path / "fsrcnn.npz", **FSRCNN, **{"mul/y": np.float32(0.5)})
    (path / "fsrcnn.json").write_text(json.dumps([["conv1", "Conv2D", ["x", "f1"]]]))
    np.savez(path / "unknown.npz", f1=np.zeros(1))
    np.savez(path / "graph.npz", f=np.ones((1, 1, 2, 2), np.float32))
    up = {"type": "ConvTranspose", "params": ["f"], "up": 2, "crop": [0, 0, 0, 0]}
    layers = [up | {"inp": [a], "out": [b]} for a, b in (("LR", "x2"), ("small", "half"), ("half", "x4"))]
    (path / "graph.json").write_text(json.dumps(layers))
    return path


def named(folder: Path) -> dict[str, Peer]:
    return {peer.name: peer for peer in load_peers(folder)[0]}


def test_networks_are_known_by_their_tensors(folder: Path) -> None:
    peers, unknown = load_peers(folder)
    assert unknown == ["other.safetensors", "unknown.npz"]
    assert {peer.name: peer.scales for peer in peers} == {
        "carn-m": (2, 3, 4),
        "espcn": (3,),
        "fsrcnn": (2,),
        "graph": (2, 4),
        "imdn": (4,),
        "safmn": (2,),
        "vdsr": (2, 3, 4),
    }
    with pytest.raises(ValueError, match="peers: expected a folder"):
        load_peers(folder / "missing")


@torch.no_grad()
def test_each_enlarges_by_each_of_its_factors(folder: Path) -> None:
    image = picture(19, 23)
    for peer in load_peers(folder)[0]:
        for scale in peer.scales:
            result = peer.run(image, scale)
            assert result.shape == (1, 3, 19 * scale, 23 * scale) and bool(torch.isfinite(result).all()), peer.name


def test_they_have_as_many_parameters_as_their_papers_say() -> None:
    counts = {VDSR: 665e3, CARNM: 412e3, lambda: IMDN(2): 694e3, lambda: IMDN(4): 715e3, lambda: SAFMN(4): 240e3}
    for build, count in counts.items():
        assert sum(parameter.numel() for parameter in build().parameters()) == pytest.approx(count, rel=0.015)


@torch.no_grad()
def test_a_network_that_corrects_nothing_is_bicubic(folder: Path) -> None:
    network = VDSR()
    network.output.weight.zero_()
    save_file(network.state_dict(), folder / "vdsr.safetensors")
    image = picture(19, 23)
    expected = rgb_to_y(resample(image, (57, 69)))
    assert largest_difference(rgb_to_y(named(folder)["vdsr"].run(image, 3)), expected) < 1e-5


@torch.no_grad()
def test_the_blocks_add_to_what_they_take(folder: Path) -> None:
    x = torch.rand(1, 36, 17, 21)
    block = SAFMN(2).feats[0]
    for parameter in block.parameters():
        parameter.zero_()
    assert torch.equal(block(x), x)
    distilled = IMDN(2).get_submodule("IMDB1")
    distilled.c5.weight.zero_()
    distilled.c5.bias.zero_()
    x = torch.rand(1, 64, 9, 11)
    assert torch.equal(distilled(x), x)


def by_hand(arrays: dict[str, Tensor], number: int, x: Tensor) -> Tensor:
    """A convolution with zeros around, one weight after the other."""
    weight = arrays[f"f{number}"]
    half = weight.shape[0] // 2
    padded = F.pad(x, (half,) * 4)
    rows, columns = weight.shape[:2]
    result = torch.zeros(weight.shape[3], *x.shape[-2:])
    for row in range(rows):
        for column in range(columns):
            seen = padded[0, :, row : row + x.shape[2], column : column + x.shape[3]]
            result += torch.einsum("io,ihw->ohw", weight[row, column], seen)
    return result[None]


def test_the_arrays_of_tensorflow_are_read_as_they_are_meant() -> None:
    luma = torch.rand(1, 1, 7, 9)
    arrays = {name: torch.from_numpy(values) for name, values in ESPCN.items()}
    x = (by_hand(arrays, 1, luma) + arrays["b1"].view(-1, 1, 1)).clamp(min=0)
    x = (by_hand(arrays, 2, x) + arrays["b2"].view(-1, 1, 1)).clamp(min=0)
    x = by_hand(arrays, 3, x) + arrays["b3"].view(-1, 1, 1)
    expected = x[0].reshape(3, 3, 7, 9).permute(2, 0, 3, 1).reshape(1, 1, 21, 27).tanh()
    assert largest_difference(espcn(arrays, luma), expected) < 1e-5
    arrays = {name: torch.from_numpy(values) for name, values in FSRCNN.items()}
    x = luma
    for number in range(1, 8):
        x = by_hand(arrays, number, x) + arrays[f"b{number}"].view(-1, 1, 1)
        x = torch.where(x > 0, x, 0.1 * x)
    x = by_hand(arrays, 8, x)
    expected = x[0].reshape(2, 2, 7, 9).permute(2, 0, 3, 1).reshape(1, 1, 14, 18) + arrays["b8"]
    assert largest_difference(fsrcnn(arrays, luma), expected) < 1e-5


def test_peers_and_what_is_bundled_are_measured_in_one_run(
    folder: Path, weights: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("carn-m", "imdn", "safmn"):
        (folder / f"{name}.safetensors").unlink()
    words = ["--peers", str(folder), "--data", str(data), "--json", str(tmp_path / "peers.json"), "--set", "Set5"]
    assert tool.main([*words, "--scale", "3"]) == 0
    out = capsys.readouterr().out
    assert "left out, not known: other.safetensors, unknown.npz" in out and "Set5 x3: 2 pictures" in out
    found = json.loads((tmp_path / "peers.json").read_text())
    assert list(found["bundled"]) == ["edsr_x3"] and list(found["peers"]) == ["espcn", "vdsr"]
    run = named(folder)["espcn"].run
    expected = evaluate_folder(data / "Set5", 3, {"espcn": run}).mean("espcn").psnr
    assert found["peers"]["espcn"]["results"]["Set5 x3"]["psnr"] == pytest.approx(expected, abs=1e-4)
    assert tool.main([*words, "--scale", "2", "--set", "Set14"]) == 0
    assert "Set14: left out" in capsys.readouterr().out
    later = json.loads((tmp_path / "peers.json").read_text())
    assert sorted(later["peers"]["vdsr"]["results"]) == ["Set5 x2", "Set5 x3"]
    assert sorted(later["bundled"]) == ["default", "edsr_x3"] and str(tmp_path) not in json.dumps(later)
    assert tool.main([*words, "--scale", "3", "--unrounded"]) == 0
    assert "reduced without rounding" in capsys.readouterr().out
    assert json.loads((tmp_path / "peers.json").read_text()) == later
    (tmp_path / "peers.json").write_text("{}")
    assert tool.main(words) == 1 and "expected a file that this tool has written" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not (WEIGHTS and DATA), reason="PU_BENCHMARK_PEERS and PU_BENCHMARK_DATA are not set")
@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_the_known_figures_are_met(scale: int) -> None:
    peers = {name: peer for name, peer in named(Path(WEIGHTS or ".")).items() if scale in KNOWN.get(name, {})}
    assert peers, "none of the known files is there"
    result = evaluate_folder(Path(DATA or ".") / "Set5", scale, {name: peer.run for name, peer in peers.items()})
    for name in peers:
        assert result.mean(name).psnr == pytest.approx(KNOWN[name][scale], abs=0.03)
