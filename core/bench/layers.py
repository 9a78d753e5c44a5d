"""A peer from outside as a list of layers: its weights (.npz) and its graph (.json) lie beside each other.

The graph is a list of layers, each {"type", "inp", "out", "params"} with, by type: Conv ("pad": top, bottom, left,
right), ConvTranspose ("up": factor, "crop": as the pad), ReLU ("leak") and Sum. What no layer makes is the network's
input; its ends are those that no layer takes, of which a network for several factors has one each. Such graphs are
what models of the MatConvNet age are read into. The network sees luma in 0..1 of the studio range; colour is enlarged
by bicubic.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..imagenet import read_npz
from ..layout import rgb_to_ycbcr, ycbcr_to_rgb
from ..resample import resample


class LayerGraph:
    """A network that enlarges.

    Args:
        weights: the .npz file; the graph is the .json beside it.
        end: name of the layer whose result is wanted; None takes the last end.

    Attributes:
        name: of the file.
        ends: the layers that no other takes, in order.

    Raises:
        OSError, ValueError: a file cannot be read, or holds something else; no such layer.
    """

    def __init__(self, weights: str | Path, end: str | None = None) -> None:
        path = Path(weights)
        self.name = path.stem
        self._weights = {key: torch.from_numpy(array).float() for key, array in read_npz(path).items()}
        graph = path.with_suffix(".json")
        try:
            layers: list[dict[str, Any]] = json.loads(graph.read_text(encoding="utf-8"))
            kinds = [layer["type"] for layer in layers]
            taken = {name for layer in layers for name in layer["inp"]}
            self.ends = [layer["out"][0] for layer in layers if layer["out"][0] not in taken]
            last = self.ends[-1]
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(f"{graph}: expected a graph of layers: {type(error).__name__}: {error}") from error
        if foreign := [kind for kind in kinds if kind not in _TYPES]:
            raise ValueError(f"{path}: expected layers of type {', '.join(_TYPES)}, got {foreign[0]!r}")
        self._output = last if end is None else end
        if self._output not in (layer["out"][0] for layer in layers):
            raise ValueError(f"end: expected a layer of {path}, as {last!r}, got {end!r}")
        self._order = _order({layer["out"][0]: layer for layer in layers}, self._output)

    def to(self, device: torch.device) -> LayerGraph:
        """The network with its weights on a device; in place."""
        self._weights = {key: weight.to(device) for key, weight in self._weights.items()}
        return self

    @torch.no_grad()
    def __call__(self, rgb: Tensor) -> Tensor:
        """[1, 3, H, W] in 0..1 to [1, 3, H·scale, W·scale], on the device of the weights."""
        luma, colour = rgb_to_ycbcr(rgb).split((1, 2), 1)
        values: dict[str, Tensor] = {}
        last = {name: number for number, layer in enumerate(self._order) for name in layer["inp"]}
        for number, layer in enumerate(self._order):
            inputs = [values.get(name, luma) for name in layer["inp"]]
            values[layer["out"][0]] = _TYPES[layer["type"]](layer, inputs, self._weights)
            for name in {name for name in layer["inp"] if last[name] == number}:
                values.pop(name, None)  # nothing else will ask for it
        enlarged = values[self._output]
        colour = resample(colour, (enlarged.shape[2], enlarged.shape[3]))
        return ycbcr_to_rgb(torch.cat([enlarged, colour], 1)).clamp(0, 1)


def _order(layers: Mapping[str, dict[str, Any]], output: str) -> list[dict[str, Any]]:
    """The layers that a result depends on, each after those that it takes."""
    order: list[dict[str, Any]] = []
    done: set[str] = set()
    waiting = [output]
    while waiting:
        name = waiting[-1]
        missing = [given for given in layers[name]["inp"] if given in layers and given not in done]
        if missing:
            waiting += missing
            continue
        waiting.pop()
        if name not in done:
            done.add(name)
            order.append(layers[name])
    return order


def _parameters(layer: Mapping[str, Any], weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
    names = layer["params"]
    return weights[names[0]], weights[names[1]] if len(names) > 1 else None


def _convolution(layer: Mapping[str, Any], inputs: list[Tensor], weights: Mapping[str, Tensor]) -> Tensor:
    top, bottom, left, right = layer["pad"]
    weight, bias = _parameters(layer, weights)
    return F.conv2d(F.pad(inputs[0], (left, right, top, bottom)), weight, bias)


def _transposed(layer: Mapping[str, Any], inputs: list[Tensor], weights: Mapping[str, Tensor]) -> Tensor:
    top, bottom, left, right = layer["crop"]
    weight, bias = _parameters(layer, weights)
    x = F.conv_transpose2d(inputs[0], weight, bias, stride=layer["up"])
    return x[..., top : x.shape[2] - bottom, left : x.shape[3] - right]


def _relu(layer: Mapping[str, Any], inputs: list[Tensor], weights: Mapping[str, Tensor]) -> Tensor:
    return F.leaky_relu(inputs[0], layer.get("leak", 0.0))


def _sum(layer: Mapping[str, Any], inputs: list[Tensor], weights: Mapping[str, Tensor]) -> Tensor:
    return torch.stack(inputs).sum(0)


_TYPES = {"Conv": _convolution, "ConvTranspose": _transposed, "ReLU": _relu, "Sum": _sum}
