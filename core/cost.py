"""What a network costs: parameters, multiply-adds (MACs) per output pixel, halo."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from .chain import Chain
from .unet import parameter_count
from .upsamplers import Upsampler

CHAIN_SCALE = 8
_SIDE = 32  # input pixels, where nothing asks for more
_WHOLE = 1 << 16  # a tile that no picture here fills


@dataclass(frozen=True)
class PartCost:
    """One part of a network.

    Attributes:
        name: as "stage 1 denoiser".
        parameters: number of trained values.
        macs: multiply-adds for each pixel of the whole network's result.
        halo: input pixels of context that a tile needs; None for a part without.
    """

    name: str
    parameters: int
    macs: float
    halo: int | None


@dataclass(frozen=True)
class Cost:
    """A whole network.

    Attributes:
        scale: the factor it was run at.
        parameters: number of trained values.
        macs: multiply-adds for each pixel of the result, convolutions and matrix products alone.
        stages: of a chain, the multiply-adds of each stage for each pixel of that stage's own result.
        parts: what it is made of.
    """

    scale: int
    parameters: int
    macs: float
    stages: tuple[float, ...]
    parts: tuple[PartCost, ...]


def chain_cost(chain: Chain, scale: int = CHAIN_SCALE) -> Cost:
    """Cost of a chain at detail 0, counted on a run of it.

    Args:
        chain: the chain, on any device.
        scale: factor, a power of two of at least 2.

    Returns:
        The cost; parts that only work with detail above 0 (the noise controller, a denoiser without regression) have
        0 MACs.

    Raises:
        ValueError: the scale is none of these.
    """
    stages = scale.bit_length() - 1
    if scale < 2 or scale != 2**stages:
        raise ValueError(f"scale: expected a power of two >= 2, got {scale}")
    # Whole windows at every level from the first stage on, or padding would be counted.
    side = math.lcm(_SIDE, *(chain.stage(k).denoiser.align for k in range(1, len(chain.stages) + 1))) // 2
    image = torch.zeros(1, 3, side, side)
    modules: dict[str, nn.Module] = {}
    for number in range(1, len(chain.stages) + 1):
        stage = chain.stage(number)
        modules |= {
            f"stage {number} upsampler": stage.upsampler,
            f"stage {number} denoiser": stage.denoiser.unet,
            f"stage {number} noise controller": stage.controller,
            f"stage {number} fusion weights": stage.weights,
            f"stage {number} skip weights": stage.skip_weights,
        }
    totals = [0]
    by_part: Mapping[str, int] = {}
    for k in range(1, stages + 1):

        def run(factor: int = 2**k) -> None:
            chain.stages_of(image, factor, dtype="fp32", tile=_WHOLE)

        total, by_part = _count(run, modules)
        totals.append(total)
    pixels = (side * scale) ** 2
    each = tuple((totals[k] - totals[k - 1]) / (side * 2**k) ** 2 for k in range(1, stages + 1))
    parts = tuple(_part(name, module, by_part[name] / pixels) for name, module in modules.items())
    return Cost(scale, parameter_count(chain), totals[-1] / pixels, each, parts)


def upsampler_cost(network: Upsampler) -> Cost:
    """Cost of one upsampler, counted on a run of it.

    Args:
        network: the network.

    Returns:
        The cost at its own scale.
    """
    device = next(network.parameters()).device
    image = torch.zeros(1, 3, _SIDE, _SIDE, device=device)
    total, _ = _count(lambda: network(image), {})
    macs = total / (_SIDE * network.scale) ** 2
    return Cost(network.scale, parameter_count(network), macs, (), (_part("upsampler", network, macs),))


def _count(run: Callable[[], Tensor | None], modules: Mapping[str, nn.Module]) -> tuple[int, dict[str, int]]:
    """Multiply-adds of a run in all and of each module in it."""
    counts = dict.fromkeys(modules, 0)
    counter = FlopCounterMode(display=False)
    handles = []
    for name, module in modules.items():

        def before(*_: object, name: str = name) -> None:
            counts[name] -= counter.get_total_flops()

        def after(*_: object, name: str = name) -> None:
            counts[name] += counter.get_total_flops()

        handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    try:
        # The plain kernel: the counter does not know the fused ones of every device.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            run()
    finally:
        for handle in handles:
            handle.remove()
    # A multiply-add is two operations.
    return counter.get_total_flops() // 2, {name: count // 2 for name, count in counts.items()}


def _part(name: str, module: nn.Module, macs: float) -> PartCost:
    halo = getattr(module, "halo", None)
    return PartCost(name, parameter_count(module), macs, halo if isinstance(halo, int) else None)
