"""Denoisers whose regression is left out: the conditioning image takes its place, wherever they are used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from progressive_upsampling.core.bench.plain import PlainChain
from progressive_upsampling.core.chain import Chain, ChainConfig
from progressive_upsampling.core.config import from_dict, to_dict
from progressive_upsampling.core.cost import chain_cost
from progressive_upsampling.core.denoise import denoise, regress
from progressive_upsampling.core.denoiser import Denoiser, DenoiserConfig
from progressive_upsampling.core.resample import resample
from progressive_upsampling.core.stage import StageConfig

from .noisy import flat, noised
from .tiny import denoiser, picture, random_chain


def without(net: Denoiser) -> Denoiser:
    """The same weights, with the regression left out."""
    bare = Denoiser(replace(net.config, regression=False))
    bare.load_state_dict(net.state_dict())
    return bare.eval()


@pytest.fixture(scope="module")
def chains() -> tuple[Chain, Chain]:
    """A chain, and one of the same weights whose denoisers have no regression."""
    chain = random_chain()
    stages = tuple(replace(stage, denoiser=replace(stage.denoiser, regression=False)) for stage in chain.config.stages)
    bare = Chain(ChainConfig(stages))
    bare.load_state_dict(chain.state_dict())
    return chain, bare.eval()


def test_files_from_before_have_it() -> None:
    stored = to_dict(DenoiserConfig())
    del stored["regression"]
    assert from_dict(DenoiserConfig, stored).regression


@pytest.mark.parametrize("detail", [0.0, 0.6])
def test_no_noise_means_the_image_itself(detail: float) -> None:
    net, y = without(denoiser()), picture()
    heard: list[tuple[float, float]] = []
    out = denoise(net, y, flat(0.0), y, detail=detail, on_step=lambda done, total, _: heard.append((done, total)))
    assert torch.equal(out, y) and out is not y
    assert heard[-1][0] == heard[-1][1]
    assert torch.equal(regress(net, y), y) and regress(net, y) is not y
    assert regress(net, y, out=y) is y


def test_progress_of_a_regression_that_is_left_out_comes_to_its_end() -> None:
    heard: list[tuple[float, float]] = []
    regress(without(denoiser()), picture(), on_step=lambda done, total, _: heard.append((done, total)))
    assert heard == [(1, 1)]


def test_detail_blends_with_the_image_itself_and_evaluates_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    net, (y, noisy, s) = without(denoiser()), noised()
    refined = denoise(net, noisy, s, y, detail=1.0, steps=2, dtype="fp32")
    assert torch.equal(refined, denoise(denoiser(), noisy, s, y, detail=1.0, steps=2, dtype="fp32"))
    half = denoise(net, noisy, s, y, detail=0.5, steps=2, dtype="fp32")
    inside = (refined > 0) & (refined < 1)
    torch.testing.assert_close(half[inside], (0.5 * y + 0.5 * refined)[inside])
    calls = []
    forward = type(net.unet).forward
    monkeypatch.setattr(type(net.unet), "forward", lambda self, x: calls.append(1) or forward(self, x))
    denoise(net, noisy, s, y, detail=0.5, steps=2)
    assert len(calls) == 2


def test_without_a_conditioning_image_nothing_changes() -> None:
    net, (_, noisy, s) = denoiser(), noised()
    assert torch.equal(denoise(without(net), noisy, s, dtype="fp32"), denoise(net, noisy, s, dtype="fp32"))


def test_a_chain_at_detail_0_is_upsampler_skip_and_fusion(chains: tuple[Chain, Chain]) -> None:
    bare, image = chains[1], picture(11, 14)
    x: Tensor = image
    for number in (1, 2):
        stage, size = bare.stage(number), (11 * 2**number, 14 * 2**number)
        up = stage.upsample(x, size, dtype="fp32")
        kept = stage.skip(up, x)
        x = stage.fuse([resample(x, size).clamp(0, 1), kept], dtype="fp32")[0]
    torch.testing.assert_close(bare(image, 4, dtype="fp32"), x, atol=1e-6, rtol=0)


@pytest.mark.parametrize("detail", [0.0, 0.5, 1.0])
def test_progress_of_a_chain_comes_to_its_end(chains: tuple[Chain, Chain], detail: float) -> None:
    heard: list[tuple[float, float]] = []
    chains[1](picture(11, 14), 4, detail=detail, on_step=lambda done, total, _: heard.append((done, total)))
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)
    assert heard[-1][0] == heard[-1][1]


def test_the_plain_peer_does_the_same(chains: tuple[Chain, Chain]) -> None:
    image = picture(12, 16)
    torch.testing.assert_close(PlainChain(chains[1])(image, 2), chains[1](image, 4, dtype="fp32"), atol=1e-5, rtol=0)


def test_it_costs_nothing_at_detail_0(chains: tuple[Chain, Chain]) -> None:
    cost, bare = (chain_cost(chain, 4) for chain in chains)
    of = {part.name: part.macs for part in bare.parts}
    assert of["stage 1 denoiser"] == of["stage 2 denoiser"] == 0
    denoisers = sum(part.macs for part in cost.parts if part.name.endswith("denoiser"))
    assert denoisers > 0 and bare.macs == pytest.approx(cost.macs - denoisers)


def test_it_is_kept_in_files(chains: tuple[Chain, Chain], tmp_path: Path) -> None:
    chains[1].save(tmp_path / "bare.safetensors")
    again = Chain.from_pretrained(tmp_path / "bare.safetensors")
    assert again.config == chains[1].config and isinstance(again.config.stages[0], StageConfig)
    image = picture(9, 9)
    assert torch.equal(again(image, 2, dtype="fp32"), chains[1](image, 2, dtype="fp32"))
