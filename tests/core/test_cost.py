"""Multiply-adds as counted by torch against those computed from the shapes of the layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from progressive_upsampling.core.attention import WindowAttention
from progressive_upsampling.core.chain import Chain
from progressive_upsampling.core.cost import chain_cost, upsampler_cost
from progressive_upsampling.core.upsamplers import build_upsampler

from .tiny import UPSAMPLER, random_chain

SIDE = 16


def computed(network: nn.Module, run: nn.Module, *inputs: torch.Tensor) -> int:
    """Multiply-adds of the convolutions and attentions of a network, from the sizes of what they return."""
    total = 0

    def convolution(layer: nn.Module, _: object, out: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(layer, nn.Conv2d)
        rows, columns = layer.kernel_size
        total += out.numel() * layer.in_channels // layer.groups * rows * columns

    def attention(layer: nn.Module, _: object, out: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(layer, WindowAttention)
        total += 2 * out.numel() * layer.window**2  # queries by keys, weights by values

    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(convolution)
        if isinstance(part, WindowAttention):
            part.register_forward_hook(attention)
    with torch.no_grad():
        run(*inputs)
    return total


@pytest.fixture
def chain() -> Chain:
    return random_chain(1)


def test_each_network_of_a_chain_costs_what_its_layers_do(chain: Chain) -> None:
    costs = {part.name: part.macs for part in chain_cost(chain, 2).parts}
    image = torch.zeros(1, 3, SIDE, SIDE)
    network, unet = chain.stage(1).upsampler, chain.stage(1).denoiser.unet
    pixels = (2 * SIDE) ** 2
    assert costs["stage 1 denoiser"] == computed(unet, unet, torch.zeros(1, 8, 2 * SIDE, 2 * SIDE)) / pixels
    # the bicubic base is a product of matrices, not a layer
    layers = computed(network, network, image) / pixels
    assert layers == (3 * 8 + 2 * 8 * 8 + 8 * 8 + 8 * 12) * 9 / 4
    assert layers <= costs["stage 1 upsampler"] < layers + 200


def test_the_parts_are_nearly_the_whole(chain: Chain) -> None:
    cost = chain_cost(chain, 4)
    parts = sum(part.macs for part in cost.parts)
    assert 0.8 * cost.macs < parts <= cost.macs  # the rest is resampling
    assert cost.parameters == sum(parameter.numel() for parameter in chain.parameters())


def test_a_single_network_costs_what_its_layers_do() -> None:
    network = build_upsampler(UPSAMPLER | {"tail": "classic"})
    layers = (3 * 8 + 2 * 8 * 8 + 8 * 8 + 8 * 32) * 9 / 4 + 8 * 3 * 9
    assert upsampler_cost(network).macs == layers


@pytest.mark.parametrize("scale", [0, 1, 3, 6])
def test_other_scales_are_refused(chain: Chain, scale: int) -> None:
    with pytest.raises(ValueError, match=f"scale: expected a power of two >= 2, got {scale}"):
        chain_cost(chain, scale)
