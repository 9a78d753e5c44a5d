"""ESPCN (Shi 2016) and FSRCNN (Dong 2016): the networks, and colour around a network that sees Y alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.color import rgb2ycbcr, ycbcr2rgb
from torch import Tensor, nn

from progressive_upsampling.core.resample import resample
from progressive_upsampling.core.upsamplers import ESPCN, FSRCNN, ESPCNConfig, FSRCNNConfig

SCALES = (2, 3, 4)
NETWORKS = [ESPCN(ESPCNConfig(s)) for s in SCALES] + [FSRCNN(FSRCNNConfig(s)) for s in SCALES]


@pytest.mark.parametrize(("scale", "thousands"), [(2, 21.3), (3, 22.7), (4, 24.8)])
def test_espcn_has_the_papers_parameters(scale: int, thousands: float) -> None:
    network = ESPCN(ESPCNConfig(scale))
    assert round(sum(p.numel() for p in network.parameters()) / 1e3, 1) == thousands


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    ("config", "weights"),
    [(FSRCNNConfig(), 12464), (FSRCNNConfig(d=32, s=5, m=1), 3937), (FSRCNNConfig.small(), 3937)],
)
def test_fsrcnn_has_the_papers_weights_at_every_scale(scale: int, config: FSRCNNConfig, weights: int) -> None:
    network = FSRCNN(FSRCNNConfig(scale, config.d, config.s, config.m))
    assert sum(p.numel() for p in network.parameters() if p.ndim == 4) == weights


def test_fsrcnn_has_a_prelu_per_channel() -> None:
    sizes = [m.num_parameters for m in FSRCNN(FSRCNNConfig()).modules() if isinstance(m, nn.PReLU)]
    assert sizes == [56, 12, 12, 12, 12, 12, 56]


def test_espcn_activations_are_tanh() -> None:
    kinds = [type(layer) for layer in ESPCN(ESPCNConfig()).features]
    assert kinds == [nn.Conv2d, nn.Tanh, nn.Conv2d, nn.Tanh]


def test_initialisation_is_the_papers() -> None:
    torch.manual_seed(0)
    espcn, fsrcnn = ESPCN(ESPCNConfig(2)), FSRCNN(FSRCNNConfig(2))
    expected = [
        (espcn.features[0], (2 / (64 * 25)) ** 0.5),
        (espcn.features[2], (2 / (32 * 9)) ** 0.5),
        (espcn.last, 0.001),
        (fsrcnn.extract[0], (2 / (56 * 25)) ** 0.5),
        (fsrcnn.shrink[0], (2 / 12) ** 0.5),
        (fsrcnn.map[2], (2 / (12 * 9)) ** 0.5),
        (fsrcnn.expand[0], (2 / 56) ** 0.5),
        (fsrcnn.deconv, 0.001),
    ]
    for layer, std in expected:
        assert layer.weight.std().item() == pytest.approx(std, rel=0.1)
        assert abs(layer.weight.mean().item()) < 0.15 * std
        assert not layer.bias.any()


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: f"{type(n).__name__}x{n.scale}")
@pytest.mark.parametrize("size", [(33, 47), (1, 1), (3, 700)])
def test_output_is_scale_times_the_input(picture, network: ESPCN | FSRCNN, size: tuple[int, int]) -> None:
    with torch.no_grad():
        output = network(picture(*size, batch=2))
    assert output.shape == (2, 3, size[0] * network.scale, size[1] * network.scale)
    assert output.dtype == torch.float32


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: f"{type(n).__name__}x{n.scale}")
def test_grey_stays_grey(picture, randomised, network: ESPCN | FSRCNN) -> None:
    grey = picture().mean(1, keepdim=True).expand(-1, 3, -1, -1)
    with torch.no_grad():
        output = randomised(network)(grey)
    assert float((output.amax(1) - output.amin(1)).max()) < 1e-5
    assert float(output.std()) > 1e-3


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: f"{type(n).__name__}x{n.scale}")
def test_colour_around_a_bicubic_network_is_bicubic(
    picture, network: ESPCN | FSRCNN, monkeypatch: pytest.MonkeyPatch
) -> None:
    s = network.scale

    def bicubic(luma: Tensor) -> Tensor:
        return resample(luma, (luma.shape[2] * s, luma.shape[3] * s))

    monkeypatch.setattr(network, "upsample_luma", bicubic)
    rgb = picture(batch=2)
    expected = resample(rgb, (33 * s, 47 * s))
    torch.testing.assert_close(network(rgb), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: f"{type(n).__name__}x{n.scale}")
def test_network_sees_matlabs_studio_range_luma(picture, randomised, network: ESPCN | FSRCNN) -> None:
    rgb = picture(9, 11)
    randomised(network)
    ycbcr = rgb2ycbcr(rgb[0].permute(1, 2, 0).double().numpy()) / 255.0
    luma = torch.from_numpy(ycbcr[..., :1]).permute(2, 0, 1)[None].float()
    chroma = torch.from_numpy(ycbcr[..., 1:]).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        planes = [network.upsample_luma(luma), resample(chroma, (9 * network.scale, 11 * network.scale))]
        output = network(rgb)[0].permute(1, 2, 0).numpy()
    expected = ycbcr2rgb(255.0 * torch.cat(planes, 1)[0].permute(1, 2, 0).double().numpy())
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: f"{type(n).__name__}x{n.scale}")
def test_bfloat16_pixels_are_finer_than_bfloat16(picture, randomised, network: ESPCN | FSRCNN) -> None:
    luma = picture()[:, :1]
    randomised(network)
    with torch.no_grad():
        whole = network.upsample_luma(luma)
        with torch.autocast("cpu", torch.bfloat16):
            half = network.upsample_luma(luma)
    assert half.dtype == torch.float32
    assert float((half - half.bfloat16().float()).abs().max()) > 0
    assert float((half - whole).abs().max()) < 0.05 * float(whole.abs().max())


@pytest.mark.parametrize("network", [NETWORKS[0], NETWORKS[3]], ids=["ESPCN", "FSRCNN"])
def test_wrong_shape_names_what_came(network: ESPCN | FSRCNN) -> None:
    with pytest.raises(ValueError, match=r"rgb: expected \[B, 3, H, W\], got \(1, 1, 5, 5\)"):
        network(torch.zeros(1, 1, 5, 5))


@pytest.mark.parametrize(
    ("config", "values", "name"),
    [
        (ESPCNConfig, {"scale": 8}, "scale"),
        (ESPCNConfig, {"width": 0}, "width"),
        (ESPCNConfig, {"width2": 0}, "width2"),
        (FSRCNNConfig, {"scale": 0}, "scale"),
        (FSRCNNConfig, {"d": 0}, "d"),
        (FSRCNNConfig, {"s": -1}, "s"),
        (FSRCNNConfig, {"m": -1}, "m"),
    ],
)
def test_bad_config_names_the_field(config: type, values: dict, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        config(**values)
