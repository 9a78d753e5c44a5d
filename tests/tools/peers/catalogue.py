"""Networks of others, recognised by the names and shapes of their tensors, behind one call."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from progressive_upsampling.core.bench.layers import LayerGraph
from progressive_upsampling.core.checkpoint import read_tensors
from progressive_upsampling.core.layout import rgb_to_ycbcr, ycbcr_to_rgb
from progressive_upsampling.core.resample import resample

from .carn import CARNM
from .imdn import IMDN
from .opencv import espcn, fsrcnn, is_espcn, is_fsrcnn, scale_of
from .safmn import SAFMN
from .vdsr import VDSR

_PROBE = 8  # side of a picture whose result tells the factor of a graph


@dataclass(frozen=True)
class Peer:
    """A network of others.

    Attributes:
        name: of its file.
        scales: the factors that it is for.
        parameters: its weights, counted once where they are shared.
        run: `[1, 3, h, w]` in 0..1 and one of the scales to `[1, 3, h·scale, w·scale]`.
    """

    name: str
    scales: tuple[int, ...]
    parameters: int
    run: Callable[[Tensor, int], Tensor]


def load_peers(folder: str | Path) -> tuple[list[Peer], list[str]]:
    """The networks of a folder.

    Args:
        folder: of .safetensors files, and of .npz files with their graphs (.json) beside them.

    Returns:
        Those that are known, in the order of their names, and the names of the files that are not.

    Raises:
        ValueError: no folder, or a file that cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"peers: expected a folder, got {folder}")
    peers, unknown = [], []
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".npz"):
            peer = _of_tensors(path) if path.suffix == ".safetensors" else _of_arrays(path)
            if peer is None:
                unknown.append(path.name)
            else:
                peers.append(peer)
    return peers, unknown


def _of_tensors(path: Path) -> Peer | None:
    tensors, _ = read_tensors(path)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if "residual_layer.0.conv.weight" in shapes:
        return _of_luma(path.stem, _loaded(VDSR(), tensors))
    if shapes.get("b1.b1.body.0.weight") == (64, 16, 3, 3):  # CARN's own has no groups
        network = _loaded(CARNM(), tensors)
        return Peer(path.stem, (2, 3, 4), _count(network), network)
    for build, known, end in (
        (IMDN, "IMDB1.c5.weight", "upsampler.0.weight"),
        (SAFMN, "norm.gamma", "to_img.0.weight"),
    ):
        if known in shapes and end in shapes:
            scale = round((shapes[end][0] / 3) ** 0.5)
            return _of_one_scale(path.stem, _loaded(build(scale), tensors), scale)
    return None


def _of_arrays(path: Path) -> Peer | None:
    graph = path.with_suffix(".json")
    layers = json.loads(graph.read_text(encoding="utf-8")) if graph.is_file() else None
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: torch.from_numpy(file[name]).float() for name in file.files}
    if isinstance(layers, list) and layers and isinstance(layers[0], dict):
        return _of_graph(path, sum(array.numel() for array in arrays.values()))
    run = espcn if is_espcn(arrays) else fsrcnn if is_fsrcnn(arrays) else None
    if run is None:
        return None
    parameters = sum(array.numel() for array in arrays.values() if array.ndim)  # single numbers are constants
    return Peer(path.stem, (scale_of(arrays),), parameters, _luma(lambda luma, _: run(arrays, luma)))


def _of_graph(path: Path, parameters: int) -> Peer:
    ends = {_factor(network): network for network in _graphs(path)}
    return Peer(path.stem, tuple(sorted(ends)), parameters, lambda image, scale: ends[scale](image))


def _graphs(path: Path) -> Iterator[LayerGraph]:
    for end in LayerGraph(path).ends:
        yield LayerGraph(path, end)


def _factor(network: LayerGraph) -> int:
    return network(torch.full((1, 3, _PROBE, _PROBE), 0.5)).shape[-1] // _PROBE


def _of_luma(name: str, network: nn.Module) -> Peer:
    """One that corrects luma which bicubic has enlarged."""
    run = _luma(lambda luma, scale: network(resample(luma, (luma.shape[2] * scale, luma.shape[3] * scale))))
    return Peer(name, (2, 3, 4), _count(network), run)


def _of_one_scale(name: str, network: nn.Module, scale: int) -> Peer:
    return Peer(name, (scale,), _count(network), lambda image, _: network(image))


def _luma(enlarge: Callable[[Tensor, int], Tensor]) -> Callable[[Tensor, int], Tensor]:
    """RGB by way of the luma of the studio range in 0..1; colour is enlarged by bicubic."""

    def run(image: Tensor, scale: int) -> Tensor:
        luma, colour = rgb_to_ycbcr(image).split((1, 2), 1)
        enlarged = enlarge(luma, scale)
        size = (enlarged.shape[2], enlarged.shape[3])
        return ycbcr_to_rgb(torch.cat([enlarged, resample(colour, size)], 1)).clamp(0, 1)

    return run


def _loaded(network: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    network.load_state_dict(dict(tensors))
    return network.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
