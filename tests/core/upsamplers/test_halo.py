"""Every upsampler: a crop with its halo gives the crop of the whole, and no smaller halo would."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from progressive_upsampling.core.upsamplers import (
    EDSR,
    ESPCN,
    FSRCNN,
    EDSRConfig,
    ESPCNConfig,
    FSRCNNConfig,
)

CONFIGS = [
    *(EDSRConfig(s, width=8, blocks=1, tail=tail) for s in (2, 3, 4) for tail in ("classic", "direct")),
    EDSRConfig(2, width=4, blocks=0, tail="direct"),
    EDSRConfig(2, width=8, blocks=3, res_scale=0.5),
    *(ESPCNConfig(s, width=8, width2=4) for s in (2, 3, 4)),
    *(FSRCNNConfig(s, d=8, s=4, m=m) for s in (2, 3, 4) for m in (0, 2)),
]


def build(config) -> EDSR | ESPCN | FSRCNN:
    return {EDSRConfig: EDSR, ESPCNConfig: ESPCN, FSRCNNConfig: FSRCNN}[type(config)](config)


def from_tile(network: EDSR | ESPCN | FSRCNN, rgb: Tensor, box: tuple[int, int, int, int], halo: int) -> Tensor:
    """Upsample rows y0..y1 and columns x0..x1 from a crop with `halo` around, where the picture has it."""
    y0, y1, x0, x1 = box
    H, W = rgb.shape[2:]
    top, left = max(y0 - halo, 0), max(x0 - halo, 0)
    crop = rgb[:, :, top : min(y1 + halo, H), left : min(x1 + halo, W)]
    s = network.scale
    return network(crop)[:, :, (y0 - top) * s : (y1 - top) * s, (x0 - left) * s : (x1 - left) * s]


def worst(network: EDSR | ESPCN | FSRCNN, rgb: Tensor, halo: int) -> float:
    s = network.scale
    boxes = [(15, 22, 14, 25), (0, 7, 0, 9), (26, 33, 38, 47), (0, 33, 20, 21), (16, 17, 23, 24)]
    with torch.no_grad():
        whole = network(rgb)
        return max(
            float((from_tile(network, rgb, box, halo) - whole[:, :, t * s : b * s, u * s : v * s]).abs().max())
            for box in boxes
            for t, b, u, v in [box]
        )


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_crop_with_halo_is_the_crop_of_the_whole(picture, randomised, config) -> None:
    network = randomised(build(config))
    assert worst(network, picture(), network.halo) < 1e-5


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_halo_is_no_larger_than_needed(picture, randomised, config) -> None:
    network = randomised(build(config))
    assert worst(network, picture(), network.halo - 1) > 5e-5


@pytest.mark.parametrize("config", [EDSRConfig(3, 4, 0, tail="direct"), FSRCNNConfig(3, d=4, s=2, m=0)], ids=str)
def test_crop_far_from_the_corner_is_as_exact(picture, randomised, config) -> None:
    # coordinates in float32 would be off by 1e-4 pixels out there
    network = randomised(build(config))
    rgb = picture(5, 4000)
    with torch.no_grad():
        whole = network(rgb)[..., 3 * 3900 : 3 * 3950]
        part = from_tile(network, rgb, (0, 5, 3900, 3950), network.halo)
    assert float((whole - part).abs().max()) < 1e-5
