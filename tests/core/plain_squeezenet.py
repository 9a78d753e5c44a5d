"""SqueezeNet 1.0 as its original, a Caffe network, lists it, in NumPy's terms: what the tests compare with."""

from __future__ import annotations

import numpy as np
from torch import Tensor

# name, input, channels in, channels out, side, stride, padding; the table of Iandola 2016 in the order of the layers
_FIRES = [(2, "pool1", 96, 16, 64), (3, "fire2", 128, 16, 64), (4, "fire3", 128, 32, 128)]
_FIRES += [(5, "pool4", 256, 32, 128), (6, "fire5", 256, 48, 192), (7, "fire6", 384, 48, 192)]
_FIRES += [(8, "fire7", 384, 64, 256), (9, "pool8", 512, 64, 256)]
_POOLS = {"pool1": "conv1", "pool4": "fire4", "pool8": "fire8"}
MEAN = np.array([123.0, 117.0, 104.0])


def random_arrays(seed: int = 0, classifier: bool = True) -> dict[str, np.ndarray]:
    """Weights by their original names, with which features keep about their size."""
    generator, arrays = np.random.default_rng(seed), {}

    def add(name: str, inputs: int, outputs: int, side: int, gain: float = 1.0) -> None:
        scale = gain * (2 / (inputs * side**2)) ** 0.5
        arrays[f"{name}.weight"] = (scale * generator.standard_normal((outputs, inputs, side, side))).astype(np.float32)
        arrays[f"{name}.bias"] = (0.3 * generator.standard_normal(outputs)).astype(np.float32)

    add("conv1", 3, 96, 7, 1 / 64)
    for k, _, inputs, squeezed, expanded in _FIRES:
        add(f"fire{k}.conv1x1_1", inputs, squeezed, 1)
        add(f"fire{k}.conv1x1_2", squeezed, expanded, 1)
        add(f"fire{k}.conv3x3_2", squeezed, expanded, 3)
    if classifier:
        add("conv_final", 512, 1000, 1)
    return arrays


def plain_features(image: Tensor, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """conv1 and fire2..fire9, float64 `[C, h, w]`, of one image `[1, 3, H, W]` in 0..1, by the original's rules."""
    pixels = 255 * image[0].double().numpy() - MEAN[:, None, None]
    features = {"conv1": np.maximum(_convolve(pixels, arrays, "conv1", stride=2), 0)}
    for k, source, *_ in _FIRES:
        if source in _POOLS:
            features[source] = _maximum(features[_POOLS[source]])
        squeezed = np.maximum(_convolve(features[source], arrays, f"fire{k}.conv1x1_1"), 0)
        small = _convolve(squeezed, arrays, f"fire{k}.conv1x1_2")
        large = _convolve(np.pad(squeezed, ((0, 0), (1, 1), (1, 1))), arrays, f"fire{k}.conv3x3_2")
        features[f"fire{k}"] = np.maximum(np.concatenate([small, large]), 0)
    return {name: value for name, value in features.items() if name not in _POOLS}


def _convolve(x: np.ndarray, arrays: dict[str, np.ndarray], name: str, stride: int = 1) -> np.ndarray:
    weight, bias = arrays[f"{name}.weight"].astype(np.float64), arrays[f"{name}.bias"].astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=(1, 2))[:, ::stride, ::stride]
    return np.einsum("chwij,ocij->ohw", windows, weight, optimize=True) + bias[:, None, None]


def _maximum(x: np.ndarray) -> np.ndarray:
    """Over 3x3 in steps of 2; a window may hang over the far edges, as in Caffe."""
    height, width = (-(-(side - 3) // 2) + 1 for side in x.shape[1:])
    result = [[x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((1, 2)) for j in range(width)] for i in range(height)]
    return np.moveaxis(np.array(result), 2, 0)
