"""EDSR as in Lim 2017, and its direct tail."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from progressive_upsampling.core.resample import resample
from progressive_upsampling.core.upsamplers import EDSR, EDSRConfig

SCALES = (2, 3, 4)


def parameters(config: EDSRConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in EDSR(config).parameters())


@pytest.mark.parametrize(("scale", "millions"), [(2, 1.37), (3, 1.55), (4, 1.52)])
def test_baseline_has_the_papers_parameters(scale: int, millions: float) -> None:
    assert round(parameters(EDSRConfig(scale)) / 1e6, 2) == millions


@pytest.mark.parametrize(("scale", "millions"), [(2, 40.7), (3, 43.7), (4, 43.1)])
def test_full_edsr_has_the_papers_parameters(scale: int, millions: float) -> None:
    assert round(parameters(EDSRConfig(scale, width=256, blocks=32, res_scale=0.1)) / 1e6, 1) == millions


def test_no_batch_norm() -> None:
    kinds = {type(module) for module in EDSR(EDSRConfig(blocks=2)).modules()}
    assert nn.BatchNorm2d not in kinds


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("size", [(33, 47), (1, 1), (3, 70)])
def test_untrained_direct_tail_is_bicubic(picture, scale: int, size: tuple[int, int]) -> None:
    network = EDSR(EDSRConfig(scale, width=8, blocks=1, tail="direct"))
    rgb = picture(*size, batch=2)
    expected = resample(rgb, (size[0] * scale, size[1] * scale))
    assert torch.equal(network(rgb), expected)


def test_untrained_direct_tail_is_bicubic_in_bfloat16_too(picture) -> None:
    network = EDSR(EDSRConfig(2, width=8, blocks=1, tail="direct")).to(memory_format=torch.channels_last)
    rgb = picture().contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        output = network(rgb)
    assert output.dtype == torch.float32
    assert torch.equal(output, resample(rgb, (66, 94)))


def test_zero_tail_still_learns(picture) -> None:
    network = EDSR(EDSRConfig(2, width=8, blocks=1, tail="direct"))
    network(picture()).square().mean().backward()
    assert network.tail[0].weight.grad.abs().max() > 0


@pytest.mark.parametrize("tail", ["classic", "direct"])
def test_bfloat16_stays_close_to_float32(picture, randomised, tail: str) -> None:
    network = randomised(EDSR(EDSRConfig(2, width=16, blocks=2, tail=tail)))
    with torch.no_grad():
        whole = network(picture())
        with torch.autocast("cpu", torch.bfloat16):
            half = network(picture())
    assert half.dtype == torch.float32
    spread = (whole - whole.mean()).abs().max()
    assert 0 < (half - whole).abs().max() < 0.03 * spread


def test_classic_pixels_are_made_in_float32_under_bfloat16(picture, randomised) -> None:
    network = randomised(EDSR(EDSRConfig(2, width=16, blocks=1)))
    dtypes = {}
    for name in ("head", "tail"):
        layer = network.head if name == "head" else network.tail[-1]
        layer.register_forward_hook(lambda _m, _i, output, name=name: dtypes.update({name: output.dtype}))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        network(picture())
    assert dtypes == {"head": torch.bfloat16, "tail": torch.float32}


def test_classic_of_the_mean_colour_sees_zero() -> None:
    network = EDSR(EDSRConfig(2, width=8, blocks=1))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
        mean = torch.tensor([0.4488, 0.4371, 0.4040]).view(1, 3, 1, 1)
        output = network(mean.expand(1, 3, 5, 5))
    torch.testing.assert_close(output, mean.expand(1, 3, 10, 10), rtol=0, atol=1e-6)


def test_res_scale_weighs_the_residual_branch(picture, randomised) -> None:
    full = randomised(EDSR(EDSRConfig(2, width=8, blocks=1, res_scale=1.0)))
    tenth = EDSR(EDSRConfig(2, width=8, blocks=1, res_scale=0.1))
    tenth.load_state_dict(full.state_dict())
    with torch.no_grad():
        full.blocks[0].conv2.weight.mul_(0.1)
        full.blocks[0].conv2.bias.mul_(0.1)
        torch.testing.assert_close(tenth(picture()), full(picture()), rtol=1e-4, atol=1e-5)


def test_input_is_not_changed(picture, randomised) -> None:
    rgb = picture()
    before = rgb.clone()
    for tail in ("classic", "direct"):
        randomised(EDSR(EDSRConfig(2, width=8, blocks=1, tail=tail)))(rgb)
    assert torch.equal(rgb, before)


@pytest.mark.parametrize("shape", [(4, 4), (1, 1, 5, 5), (1, 4, 5, 5), (3, 5, 5)])
def test_wrong_shape_names_what_came(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"rgb: expected \[B, 3, H, W\], got \(" + str(shape[0])):
        EDSR(EDSRConfig(blocks=0, width=4))(torch.zeros(shape))


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"scale": 5}, "scale"),
        ({"scale": 1}, "scale"),
        ({"width": 0}, "width"),
        ({"blocks": -1}, "blocks"),
        ({"res_scale": 0.0}, "res_scale"),
        ({"res_scale": float("nan")}, "res_scale"),
        ({"tail": "round"}, "tail"),
    ],
)
def test_bad_config_names_the_field(values: dict, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        EDSRConfig(**values)
