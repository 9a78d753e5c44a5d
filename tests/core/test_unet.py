from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from progressive_upsampling.core.config import from_dict, to_dict
from progressive_upsampling.core.unet import AttnUNet, UNetConfig, parameter_count

from .tiny import largest_difference, randomised, unet_config

SIZES = [(1, 1), (33, 47), (3, 700), (2, 1)]

ONE_LEVEL: dict[str, Any] = {
    "widths": (8,),
    "blocks": (2,),
    "self_attention": (True,),
    "channel_attention": (False,),
    "spatial_attention": (True,),
}
THREE_LEVELS: dict[str, Any] = {
    "widths": (6, 8, 8),
    "blocks": (1, 1, 1),
    "self_attention": (False, False, True),
    "channel_attention": (False, True, False),
    "spatial_attention": (True, False, False),
    "channel_window": 2,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "two levels": {},
    "one level": ONE_LEVEL,
    "one level, unshuffle 1": ONE_LEVEL | {"unshuffle": 1},
    "three levels, unshuffle 1": THREE_LEVELS | {"unshuffle": 1},
    "three levels": THREE_LEVELS,
    "rotary, unshuffle 4": {
        "unshuffle": 4,
        "position": "rotary",
        "widths": (8, 8),
        "channel_attention": (False, False),
    },
    "convolutions alone": {f"{kind}_attention": (False, False) for kind in ("self", "channel", "spatial")},
    "attention at full size": {"self_attention": (True, False), "window": 3, "channel_window": 2},
}


def random_unet(changes: dict[str, Any], size: float = 0.1) -> AttnUNet:
    return randomised(AttnUNet(unet_config(**({"in_channels": 3} | changes))), size)


def noise(height: int, width: int, channels: int = 3, batch: int = 1) -> Tensor:
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", CONFIGS)
def test_an_untrained_network_gives_zero_at_any_size(name: str, size: tuple[int, int]) -> None:
    net = AttnUNet(unet_config(**({"in_channels": 3} | CONFIGS[name])))
    with torch.no_grad():
        out = net(noise(*size))
    assert out.shape == (1, 3, *size)
    assert not out.any()


@pytest.mark.parametrize("size", SIZES)
def test_a_trained_network_gives_finite_values_at_any_size(size: tuple[int, int]) -> None:
    with torch.no_grad():
        out = random_unet(THREE_LEVELS)(noise(*size))
    assert out.shape == (1, 3, *size)
    assert out.isfinite().all() and out.std() > 0 if out.numel() > 1 else True


def test_every_weight_learns() -> None:
    net = random_unet({}).train()
    net(noise(33, 47)).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


def test_the_last_layer_learns_at_birth() -> None:
    net = AttnUNet(unet_config(in_channels=3))
    (net(noise(16, 16)) - 1).square().sum().backward()
    assert net.tail.weight.grad is not None and net.tail.weight.grad.any()


def context_along(net: AttnUNet, dim: int) -> int:
    """How far beyond a tile of one cell of the grid an input matters along one axis, by gradients of its outputs."""
    start = -(-(net.halo + 1) // net.align) * net.align
    stop = start + net.align
    length, width = start + stop, net.align
    x = noise(*((length, width) if dim == 2 else (width, length))).double().requires_grad_()
    lines = net(x).movedim(dim, 0)
    context = 0
    for place in range(start, stop):
        (grad,) = torch.autograd.grad(lines[place].sum(), x, retain_graph=True)
        touched = grad.movedim(dim, 0).flatten(1).any(1).nonzero()
        context = max(context, start - int(touched.min()), int(touched.max()) + 1 - stop)
    return context


@pytest.mark.parametrize("name", CONFIGS)
def test_the_halo_holds_all_that_matters_and_not_much_more(name: str) -> None:
    net = random_unet(CONFIGS[name], 0.15).double()
    context = max(context_along(net, 2), context_along(net, 3))
    assert context <= net.halo
    assert context >= 0.9 * net.halo


@pytest.mark.parametrize("name", CONFIGS)
def test_a_crop_with_halo_on_the_grid_gives_the_same_pixels(name: str) -> None:
    net = random_unet(CONFIGS[name])
    start, halo = net.align, -(-net.halo // net.align) * net.align  # what lies inside begins on the grid, too
    image = noise(start + halo + 21, start + halo + 34)
    with torch.no_grad():
        whole, crop = net(image)[..., start:, start:], net(image[..., start:, start:])
    assert largest_difference(crop[..., halo:, halo:], whole[..., halo:, halo:]) < 1e-5
    assert largest_difference(crop, whole) > 1e-3  # the border of the crop is another matter


@pytest.mark.parametrize(
    ("changes", "stride", "align"),
    [
        ({}, 4, 16),
        ({"window": 8, "channel_window": 4}, 4, 32),
        ({"self_attention": (False, False)}, 4, 16),
        ({"self_attention": (False, False), "channel_window": 6}, 4, 24),
        ({"self_attention": (True, False), "window": 3, "channel_window": 2}, 4, 24),
        ({"self_attention": (True, False), "window": 3, "channel_attention": (False, False)}, 4, 12),
        (CONFIGS["convolutions alone"], 4, 4),
        (THREE_LEVELS, 8, 32),
        (ONE_LEVEL | {"unshuffle": 1, "window": 7}, 1, 7),
    ],
)
def test_the_grid_is_the_least_that_all_windows_share(changes: dict[str, Any], stride: int, align: int) -> None:
    config = unet_config(**changes)
    assert (config.stride, config.align) == (stride, align)


def test_a_size_off_the_grid_is_filled_by_repeating_the_edge() -> None:
    net, image = random_unet({}), noise(33, 47)
    rows, columns = torch.arange(48).clamp(max=32), torch.arange(48).clamp(max=46)
    with torch.no_grad():
        torch.testing.assert_close(net(image[:, :, rows][..., columns])[..., :33, :47], net(image))


def test_the_batch_does_not_matter() -> None:
    net, images = random_unet({}), noise(17, 22, batch=3)
    with torch.no_grad():
        together = net(images)
        for i in range(3):
            torch.testing.assert_close(net(images[i : i + 1]), together[i : i + 1], atol=1e-5, rtol=1e-4)


def test_the_default_network_keeps_its_shape() -> None:
    # The bundled weights are of this shape: a change of names or shapes would lose them.
    net = AttnUNet(UNetConfig())
    assert parameter_count(net) == 911_530
    assert (net.halo, net.align, net.stride) == (82, 32, 4)
    names = {name.split(".")[0] for name in net.state_dict()}
    assert names == {"head", "down_levels", "downs", "middle", "ups", "up_levels", "tail"}


def test_counting_parameters_counts_every_value() -> None:
    assert parameter_count(torch.nn.Conv2d(3, 5, 3)) == 3 * 5 * 9 + 5


@pytest.mark.parametrize("changes", [{}, *CONFIGS.values()])
def test_a_config_survives_json(changes: dict[str, Any]) -> None:
    config = unet_config(**changes)
    assert from_dict(UNetConfig, json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"in_channels": 0}, ValueError, "in_channels: expected an integer >= 1, got 0"),
        ({"unshuffle": 1.5}, TypeError, "unshuffle: expected an integer >= 1, got float 1.5"),
        ({"widths": ()}, ValueError, r"widths: expected at least one level, got \(\)"),
        ({"widths": (8, 0)}, ValueError, r"widths\[1\]: expected an integer >= 4, got 0"),
        ({"widths": (0, 8)}, ValueError, r"widths\[0\]: expected an integer >= 1, got 0"),
        ({"blocks": (1,)}, ValueError, r"blocks: expected 2 entries, one a level, got \(1,\)"),
        ({"blocks": (1, 0)}, ValueError, r"blocks\[1\]: expected an integer >= 1, got 0"),
        ({"self_attention": (True,)}, ValueError, "self_attention: expected 2 entries, one a level"),
        ({"channel_attention": ()}, ValueError, "channel_attention: expected 2 entries, one a level"),
        ({"spatial_attention": (True,) * 3}, ValueError, "spatial_attention: expected 2 entries, one a level"),
        ({"heads": 5}, ValueError, "heads: expected a divisor of 12 channels, got 5"),
        ({"heads": 2, "position": "rotary"}, ValueError, "heads: expected a multiple of 4 channels a head"),
        ({"position": "none"}, ValueError, "position: expected one of 'relative', 'rotary', got str 'none'"),
        ({"window": 0}, ValueError, "window: expected an integer >= 1, got 0"),
        ({"channel_window": -1}, ValueError, "channel_window: expected an integer >= 1, got -1"),
    ],
)
def test_a_config_names_what_is_wrong(changes: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"^{words}"):
        unet_config(**changes)


def test_heads_need_not_divide_widths_without_self_attention() -> None:
    assert unet_config(widths=(7, 12)).widths == (7, 12)
