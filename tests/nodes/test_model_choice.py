"""Which model a node works with: the one that is connected, else what is bundled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from progressive_upsampling.core.chain import Chain, ChainConfig
from progressive_upsampling.core.layout import from_bhwc
from progressive_upsampling.nodes import _models, _runtime
from progressive_upsampling.nodes.adaptive_noise import AdaptiveNoise
from progressive_upsampling.nodes.denoise import AttnUNetDenoise

from .conftest import call

Picture = Callable[..., Tensor]


@pytest.mark.parametrize("mode", ["uniform", "gradient"])
def test_the_noise_level_is_that_of_a_connected_model(picture: Picture, chain: Any, mode: str) -> None:
    stage = chain.config.stages[0]
    model = Chain(ChainConfig((replace(stage, denoiser=replace(stage.denoiser, sigma_r=0.1)),))).eval()
    common = {"image": picture(), "mode": mode}
    (given,) = call(AdaptiveNoise, **common, base_sigma=0.5, model=model)
    torch.testing.assert_close(given, call(AdaptiveNoise, **common, base_sigma=0.1)[0])


def test_a_connected_model_takes_the_noise_out_itself(picture: Picture, chain: Any) -> None:
    sigma = torch.full((1, 21, 34), 0.1)
    (result,) = call(AttnUNetDenoise, noisy_image=picture(), sigma_map=sigma, model=chain, precision="fp32")
    expected = chain.stage(1).denoise(from_bhwc(picture()), sigma[None], dtype="fp32")
    torch.testing.assert_close(from_bhwc(result), expected)


@pytest.mark.parametrize("blind", [True, False])
def test_the_bundled_denoiser_is_brought_to_the_device_where_it_runs(
    picture: Picture, default_chain: Any, monkeypatch: pytest.MonkeyPatch, blind: bool
) -> None:
    loaded: list[nn.Module] = []
    real = _runtime.load

    def load(networks: list[nn.Module], memory: float) -> torch.device:
        loaded.extend(networks)
        return real(networks, memory)

    monkeypatch.setattr(_runtime, "load", load)
    known = {} if blind else {"conditioning": picture()}
    call(AttnUNetDenoise, noisy_image=picture(), sigma_map=torch.full((1, 21, 34), 0.1), **known)
    assert set(loaded) == ({default_chain, _models.bundled_denoiser()} if blind else {default_chain})
