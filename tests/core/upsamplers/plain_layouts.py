"""State dicts in every foreign layout, and plain functional code that computes what each one's own code does.

Nothing here comes from the package: keys and structure follow the public repositories' model files.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]
MEAN = torch.tensor([0.4488, 0.4371, 0.4040])


class Maker:
    """Makes a state dict entry by entry from seeded noise."""

    def __init__(self, seed: int) -> None:
        self.state: State = {}
        self.generator = torch.Generator().manual_seed(seed)

    def conv(self, name: str, out: int, channels: int, kernel: int, bias: float = 0.1) -> None:
        weight = torch.randn(out, channels, kernel, kernel, generator=self.generator)
        self.state[f"{name}.weight"] = weight / (channels * kernel**2) ** 0.5
        self.state[f"{name}.bias"] = bias * torch.randn(out, generator=self.generator)

    def prelu(self, name: str, channels: int) -> None:
        self.state[f"{name}.weight"] = torch.rand(channels, generator=self.generator)


def conv(x: Tensor, state: State, name: str) -> Tensor:
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)


# EDSR-PyTorch: head.0, body.i.body.0/2, body.N, tail.0.0[.2], tail.1; sub_mean, add_mean are 1x1 convolutions


def edsr_pytorch(scale: int, width: int = 8, blocks: int = 2, span: float = 255.0, shift: bool = True) -> State:
    m = Maker(scale)
    if shift:
        for name, sign in (("sub_mean", -1), ("add_mean", 1)):
            m.state[f"{name}.weight"] = torch.eye(3).view(3, 3, 1, 1)
            m.state[f"{name}.bias"] = sign * span * MEAN
    m.conv("head.0", width, 3, 3)
    for i in range(blocks):
        m.conv(f"body.{i}.body.0", width, width, 3)
        m.conv(f"body.{i}.body.2", width, width, 3)
    m.conv(f"body.{blocks}", width, width, 3)
    for i in range(2 if scale == 4 else 1):
        m.conv(f"tail.0.{2 * i}", width * (9 if scale == 3 else 4), width, 3)
    m.conv("tail.1", 3, width, 3)
    return m.state


def run_edsr_pytorch(state: State, rgb: Tensor, scale: int, res_scale: float = 1.0, span: float = 255.0) -> Tensor:
    x = F.conv2d(rgb * span, torch.eye(3).view(3, 3, 1, 1), -span * MEAN)
    x = head = conv(x, state, "head.0")
    i = 0
    while f"body.{i}.body.0.weight" in state:
        x = x + res_scale * conv(F.relu(conv(x, state, f"body.{i}.body.0")), state, f"body.{i}.body.2")
        i += 1
    x = conv(x, state, f"body.{i}") + head
    for j in (0, 2) if scale == 4 else (0,):
        x = F.pixel_shuffle(conv(x, state, f"tail.0.{j}"), 3 if scale == 3 else 2)
    return (conv(x, state, "tail.1") + span * MEAN.view(1, 3, 1, 1)) / span


# BasicSR: conv_first, body.i.conv1/2, conv_after_body, upsample.0[.2], conv_last; the mean is not stored


def basicsr(scale: int, width: int = 8, blocks: int = 2) -> State:
    m = Maker(10 + scale)
    m.conv("conv_first", width, 3, 3)
    for i in range(blocks):
        m.conv(f"body.{i}.conv1", width, width, 3)
        m.conv(f"body.{i}.conv2", width, width, 3)
    m.conv("conv_after_body", width, width, 3)
    for i in range(2 if scale == 4 else 1):
        m.conv(f"upsample.{2 * i}", width * (9 if scale == 3 else 4), width, 3)
    m.conv("conv_last", 3, width, 3)
    return m.state


def run_basicsr(state: State, rgb: Tensor, scale: int, res_scale: float = 1.0) -> Tensor:
    mean = MEAN.view(1, 3, 1, 1)
    first = conv((rgb - mean) * 255.0, state, "conv_first")
    x, i = first, 0
    while f"body.{i}.conv1.weight" in state:
        x = x + res_scale * conv(F.relu(conv(x, state, f"body.{i}.conv1")), state, f"body.{i}.conv2")
        i += 1
    x = conv(x, state, "conv_after_body") + first
    for j in (0, 2) if scale == 4 else (0,):
        x = F.pixel_shuffle(conv(x, state, f"upsample.{j}"), 3 if scale == 3 else 2)
    return conv(x, state, "conv_last") / 255.0 + mean


# the networks of Y: yjn870 first_part, mid_part, last_part; Lornatang's names for every part


def espcn(scale: int, features: str, last: str, width: int = 64, width2: int = 32) -> State:
    m = Maker(20 + scale)
    m.conv(f"{features}.0", width, 1, 5)
    m.conv(f"{features}.2", width2, width, 3)
    m.conv(f"{last}.0", scale**2, width2, 3)
    return m.state


def run_espcn(state: State, luma: Tensor, scale: int, features: str, last: str) -> Tensor:
    x = torch.tanh(conv(luma, state, f"{features}.0"))
    x = torch.tanh(conv(x, state, f"{features}.2"))
    return F.pixel_shuffle(conv(x, state, f"{last}.0"), scale)


def yjn870_keys(m: int) -> list[str]:
    middle = [f"mid_part.{2 * i}" for i in range(m + 2)]
    return ["first_part.0", *middle, "last_part"]


def lornatang_keys(m: int) -> list[str]:
    middle = [f"map.{2 * i}" for i in range(m)]
    return ["feature_extraction.0", "shrink.0", *middle, "expand.0", "deconv"]


def own_keys(m: int) -> list[str]:
    return ["extract.0", *lornatang_keys(m)[1:]]


def activation(name: str) -> str:
    stem, number = name.rsplit(".", 1)
    return f"{stem}.{int(number) + 1}"


def fsrcnn(scale: int, keys: list[str], d: int = 56, s: int = 12, flat_greys: bool = True) -> State:
    """With `flat_greys` the network keeps the brightness of a flat picture, as a trained one does."""
    maker = Maker(30 + scale)
    channels = [1, d, *[s] * (len(keys) - 3), d]
    for i, name in enumerate(keys[:-1]):
        maker.conv(name, channels[i + 1], channels[i], 5 if i == 0 else 3, bias=0.0 if flat_greys else 0.1)
        if i in (1, len(keys) - 2):
            maker.state[f"{name}.weight"] = maker.state[f"{name}.weight"][:, :, 1:2, 1:2].contiguous()
        maker.prelu(activation(name), channels[i + 1])
    maker.conv(keys[-1], d, 1, 9, bias=0.0)
    maker.state[f"{keys[-1]}.bias"] = torch.zeros(1)
    if flat_greys:
        # without biases the network is homogeneous, so one gain serves every grey
        flat = run_fsrcnn(maker.state, torch.ones(1, 1, 40, 40), scale, keys)
        maker.state[f"{keys[-1]}.weight"] /= flat[..., 15 * scale : 25 * scale, 15 * scale : 25 * scale].mean()
    return maker.state


def run_fsrcnn(state: State, luma: Tensor, scale: int, keys: list[str]) -> Tensor:
    x = luma
    for name in keys[:-1]:
        x = F.prelu(conv(x, state, name), state[f"{activation(name)}.weight"])
    # a transposed convolution is a convolution by the flipped kernel over the input with zeros between
    B, C, H, W = x.shape
    spread = torch.zeros(B, C, H * scale, W * scale)
    spread[..., ::scale, ::scale] = x
    kernel = state[f"{keys[-1]}.weight"].flip(2, 3).transpose(0, 1)
    return F.conv2d(spread, kernel, state[f"{keys[-1]}.bias"], padding=4)
