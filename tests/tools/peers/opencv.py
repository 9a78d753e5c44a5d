"""ESPCN and FSRCNN as OpenCV's contributors trained them: arrays named f1, b1, … in the layout of TensorFlow.

ESPCN (Shi 2016, arXiv 1609.05158) with ReLU inside and tanh after the shuffle; FSRCNN (Dong 2016, arXiv 1608.00367)
with a 1×1 convolution and a pixel shuffle in the place of its deconvolution. Both see luma.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

ESPCN_LAYERS, FSRCNN_LAYERS = 3, 8


def is_espcn(arrays: Mapping[str, Tensor]) -> bool:
    """Whether these are the arrays of ESPCN."""
    return set(arrays) == {f"{kind}{number}" for kind in "fb" for number in range(1, ESPCN_LAYERS + 1)}


def is_fsrcnn(arrays: Mapping[str, Tensor]) -> bool:
    """Whether these are the arrays of FSRCNN."""
    names = {f"{kind}{number}" for kind in "fb" for number in range(1, FSRCNN_LAYERS + 1)}
    names |= {f"alpha{number}" for number in range(1, FSRCNN_LAYERS)}
    return names <= set(arrays)


def scale_of(arrays: Mapping[str, Tensor]) -> int:
    """The factor, from the channels that the last convolution makes."""
    last = ESPCN_LAYERS if is_espcn(arrays) else FSRCNN_LAYERS
    return round(arrays[f"f{last}"].shape[-1] ** 0.5)


def espcn(arrays: Mapping[str, Tensor], luma: Tensor) -> Tensor:
    """[B, 1, H, W] to [B, 1, H·scale, W·scale]."""
    x = _convolution(arrays, 1, luma).relu()
    x = _convolution(arrays, 2, x).relu()
    return F.pixel_shuffle(_convolution(arrays, 3, x), scale_of(arrays)).tanh()


def fsrcnn(arrays: Mapping[str, Tensor], luma: Tensor) -> Tensor:
    """[B, 1, H, W] to [B, 1, H·scale, W·scale]."""
    x = luma
    for number in range(1, FSRCNN_LAYERS):
        x = F.prelu(_convolution(arrays, number, x), arrays[f"alpha{number}"])
    last = f"f{FSRCNN_LAYERS}"
    shuffled = F.pixel_shuffle(F.conv2d(x, arrays[last].permute(3, 2, 0, 1)), scale_of(arrays))
    return shuffled + arrays[f"b{FSRCNN_LAYERS}"]


def _convolution(arrays: Mapping[str, Tensor], number: int, x: Tensor) -> Tensor:
    weight = arrays[f"f{number}"].permute(3, 2, 0, 1)  # TensorFlow's rows, columns, inputs, outputs
    return F.conv2d(x, weight, arrays[f"b{number}"], padding=weight.shape[-1] // 2)
