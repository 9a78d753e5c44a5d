"""What the calling program has told torch in general, or done to the weights, and what the package makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from progressive_upsampling.core import separable
from progressive_upsampling.core.chain import Chain
from progressive_upsampling.core.denoise import denoise, regress
from progressive_upsampling.core.denoiser_file import load_denoiser, save_denoiser
from progressive_upsampling.core.noise import KINDS, draw
from progressive_upsampling.core.upsample import upsample
from progressive_upsampling.core.upsamplers import load_upsampler, recognise

from .tiny import denoiser, picture, random_chain

FP32: dict[str, Any] = {"dtype": "fp32"}
REFINED: dict[str, Any] = {"scale": 2.5, "detail": 0.7, "seed": 3, **FP32}
NOISES = ["learned", "gradient", "uniform"]


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def _default_device() -> Iterator[None]:
    separable._blocks.cache_clear()  # what is kept was made on the CPU
    with torch.device("meta"):
        yield


FOREIGN = {
    "float64": lambda: _default_dtype(torch.float64),
    "bfloat16": lambda: _default_dtype(torch.bfloat16),
    "meta": _default_device,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


@pytest.fixture(params=FOREIGN)
def foreign(request: pytest.FixtureRequest) -> AbstractContextManager[Any]:
    """A context in which torch makes other tensors than usual, or computes in another format."""
    return FOREIGN[request.param]()


@pytest.fixture(scope="module")
def chain() -> Chain:
    """A small chain of two stages of which every part does something."""
    return random_chain()


def same(result: Tensor, expected: Tensor) -> bool:
    return result.device.type == "cpu" and result.dtype is torch.float32 and torch.equal(result, expected)


def plain(network: nn.Module) -> bool:
    tensors = [*network.parameters(), *network.buffers()]
    return all(t.device.type == "cpu" and (t.dtype is torch.float32 or not t.is_floating_point()) for t in tensors)


# Runs.


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("distribution", KINDS)
def test_a_chain_gives_the_same_picture(foreign, chain: Chain, noise: str, distribution: str) -> None:
    image, run = picture(channels=4), {"noise": noise, "distribution": distribution, **REFINED}
    expected = chain(image, **run)
    with foreign:
        result = chain(image, **run)
    assert same(result, expected)


def test_a_chain_runs_another_upsampler_a_mask_and_strips_of_rows(foreign, chain: Chain) -> None:
    image, mask = picture(), picture(9, 11, channels=1, seed=1)
    run = {"upsampler": "nearest", "detail_mask": mask, "tile": 20, "steps": 4, **REFINED}
    expected = chain(image, **run)
    with foreign:
        result = chain(image, **run)
    assert same(result, expected)


@pytest.mark.parametrize("noise", NOISES)
def test_the_parts_of_a_stage_give_the_same(foreign, chain: Chain, noise: str) -> None:
    stage, image, small = chain.stage(1), picture(66, 94), picture()

    def parts() -> list[Tensor]:
        return [stage.sigma(image, noise), stage.skip(image, small), *stage.fuse([small, image])]

    expected = parts()
    with foreign:
        results = parts()
    assert all(map(same, results, expected))


@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_float32_of_its_seed(foreign, kind: str) -> None:
    expected = draw((1, 3, 33, 47), seed=7, kind=kind)
    with foreign:
        noise = draw((1, 3, 33, 47), seed=7, kind=kind)
    assert same(noise, expected)


@pytest.mark.parametrize("name", ["espcn_x2", "fsrcnn_x3", "edsr_x2"])
def test_an_upsampler_loads_and_gives_the_same_picture(foreign, name: str) -> None:
    image = picture(9, 13)
    expected = upsample(image, (31, 44), load_upsampler(name), **FP32)
    with foreign:
        network = load_upsampler(name)
        result = upsample(image, (31, 44), network, **FP32)
    assert plain(network) and same(result, expected)


# Loading.


def test_a_chain_loads_as_it_was_saved(foreign, chain: Chain, tmp_path) -> None:
    chain.save(tmp_path / "x.safetensors", {})
    expected = Chain.from_pretrained(tmp_path / "x.safetensors")(picture(), **REFINED)
    with foreign:
        loaded = Chain.from_pretrained(tmp_path / "x.safetensors")
    assert plain(loaded) and same(loaded(picture(), **REFINED), expected)


def test_a_denoiser_loads_as_it_was_saved(foreign, tmp_path) -> None:
    sigma = torch.full((1, 1, 33, 47), 0.1)
    save_denoiser(denoiser(), tmp_path / "x.safetensors", provenance={})
    expected = denoise(load_denoiser(tmp_path / "x.safetensors"), picture(), sigma, **FP32)
    with foreign:
        loaded = load_denoiser(tmp_path / "x.safetensors")
    assert plain(loaded) and same(denoise(loaded, picture(), sigma, **FP32), expected)


@pytest.mark.parametrize("name", ["fsrcnn_x3", "edsr_x2"])
def test_weights_are_recognised(foreign, name: str) -> None:
    network = load_upsampler(name)
    with foreign:
        found = recognise(network.state_dict())
    assert plain(found) and found.config == network.config


def test_the_mean_shift_of_foreign_weights_is_recognised(foreign) -> None:
    own = load_upsampler("edsr_x2").state_dict()
    mean = torch.tensor([0.4488, 0.4371, 0.4040])
    width = own["head.weight"].shape[0]
    state = {
        "sub_mean.weight": torch.eye(3).view(3, 3, 1, 1), "sub_mean.bias": -255 * mean,
        "add_mean.weight": torch.eye(3).view(3, 3, 1, 1), "add_mean.bias": 255 * mean,
        "head.0.weight": own["head.weight"], "head.0.bias": own["head.bias"],
        "body.0.weight": torch.ones(width, width, 3, 3), "body.0.bias": torch.ones(width),
        "tail.0.0.weight": torch.ones(4 * width, width, 3, 3), "tail.0.0.bias": torch.ones(4 * width),
        "tail.1.weight": torch.ones(3, width, 3, 3), "tail.1.bias": torch.ones(3),
    }  # fmt: skip
    with foreign:
        assert plain(recognise(state))


# Weights that were cast.


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_chain_that_was_cast_is_refused(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=rf"^chain: expected .*float32 weights, got {dtype}; the setting dtype"):
        random_chain(1).to(dtype)(picture(), scale=2)


@pytest.mark.parametrize("name", ["edsr_x2", "espcn_x2", "fsrcnn_x2"])
@pytest.mark.parametrize("tile", [None, 8])
def test_an_upsampler_that_was_cast_is_refused(name: str, tile: int | None) -> None:
    network, message = load_upsampler(name).half(), "expected .*float32 weights, got torch.float16; the setting dtype"
    with pytest.raises(TypeError, match=message):
        upsample(picture(), (66, 94), network, tile=tile)
    with pytest.raises(TypeError, match=message):
        random_chain(1)(picture(), scale=2, upsampler=network)


def test_a_denoiser_that_was_cast_is_refused() -> None:
    image, sigma = picture(), torch.full((1, 1, 33, 47), 0.1)
    with pytest.raises(TypeError, match=r"^model: .*got torch\.float16; the setting dtype"):
        denoise(denoiser().half(), image, sigma)
    with pytest.raises(TypeError, match=r"^blind: .*got torch\.float16; the setting dtype"):
        denoise(denoiser(), image, sigma, blind=denoiser().half())
    with pytest.raises(TypeError, match=r"^model: .*got torch\.float16; the setting dtype"):
        regress(denoiser().half(), image)
