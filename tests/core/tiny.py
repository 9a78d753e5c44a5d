"""Small networks with random weights, and pictures, for the tests of the networks and the chain."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from progressive_upsampling.core.adaptive_noise import NoiseControllerConfig
from progressive_upsampling.core.chain import Chain, ChainConfig
from progressive_upsampling.core.denoiser import Denoiser, DenoiserConfig
from progressive_upsampling.core.dynamic_weights import DynamicWeightsConfig
from progressive_upsampling.core.stage import Stage, StageConfig
from progressive_upsampling.core.unet import UNetConfig

Net = TypeVar("Net", bound=nn.Module)

UPSAMPLER = {"kind": "edsr", "scale": 2, "width": 8, "blocks": 1, "tail": "direct"}


def randomised(network: Net, size: float = 0.05, seed: int = 0) -> Net:
    """The network with noise added to every weight, so that no branch is 0; ready to run.

    What torch drew from its global generator is drawn again, so that every run of the tests has the same weights.
    """
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.min() < parameter.max():
                inputs = parameter[0].numel() if parameter.ndim > 1 else math.inf
                parameter.copy_(torch.randn(parameter.shape, generator=random) / math.sqrt(3 * inputs))
            parameter += size * torch.randn(parameter.shape, generator=random)
    return network.eval()


def picture(height: int = 33, width: int = 47, batch: int = 1, channels: int = 3, seed: int = 0) -> Tensor:
    """Smooth shapes with some texture, `[B, C, H, W]` in 0..1; no two images of a batch alike."""
    random = torch.Generator().manual_seed(seed)
    y = torch.linspace(0, 6, height)[:, None]
    x = torch.linspace(0, 9, width)
    c = torch.arange(batch * channels, dtype=torch.float32).reshape(batch, channels, 1, 1)
    waves = 0.5 + 0.3 * torch.sin(x + c) * torch.cos(y * (1 + seed) - c)
    return (waves + 0.1 * torch.rand(batch, channels, height, width, generator=random)).clamp(0, 1)


def unet_config(**changes: Any) -> UNetConfig:
    """Two levels with every attention at the coarse one."""
    return UNetConfig(**({"widths": (8, 12), "blocks": (1, 1), "heads": 2, "window": 4} | changes))


def denoiser(size: float = 0.05, seed: int = 0, **changes: Any) -> Denoiser:
    """A small denoiser with random weights."""
    return randomised(Denoiser(DenoiserConfig(unet_config(**changes))), size, seed)


def stage_config(**changes: Any) -> StageConfig:
    """A small stage."""
    unet = changes.pop("unet", unet_config())
    small: dict[str, Any] = {
        "upsampler": UPSAMPLER,
        "denoiser": DenoiserConfig(unet),
        "controller": NoiseControllerConfig(width=4),
        "fusion": DynamicWeightsConfig(width=4),
    }
    return StageConfig(**(small | changes))


def untrained_chain(stages: int = 2) -> Chain:
    """A small chain as it is at birth."""
    return Chain(ChainConfig((stage_config(),) * stages)).eval()


def random_chain(stages: int = 2, size: float = 0.04) -> Chain:
    """A small chain of which every part does something."""
    chain = randomised(untrained_chain(stages), size)
    for number in range(1, stages + 1):
        lively(chain.stage(number))
    return chain


def lively(stage: Stage) -> Stage:
    """The stage with a skip and a fusion that show."""
    with torch.no_grad():
        stage.skip_weights.weights.copy_(torch.tensor([0.1, 0.2, 0.3]))
        stage.weights.prior.fill_(math.log(math.expm1(1.0)))  # the coarse image weighs e^-1
    return stage


def largest_difference(a: Tensor, b: Tensor) -> float:
    """The largest absolute difference."""
    assert a.shape == b.shape
    return (a.double() - b.double()).abs().max().item()
