"""Back-projection: an enlarged image that, reduced, is the small one again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from progressive_upsampling.core.back_projection import back_project
from progressive_upsampling.core.bench.plain import PlainChain
from progressive_upsampling.core.chain import Chain, ChainConfig
from progressive_upsampling.core.config import from_dict, to_dict
from progressive_upsampling.core.resample import resample

from .tiny import largest_difference, picture, random_chain

SIZES = [((64, 94), (8, 11)), ((67, 41), (40, 21)), ((1, 1), (1, 1)), ((2, 300), (1, 151)), ((131, 7), (17, 1))]
FP32: dict[str, Any] = {"dtype": "fp32"}


def pair(size: tuple[int, int], before: tuple[int, int], batch: int = 1, channels: int = 3) -> tuple[Tensor, Tensor]:
    """An enlarged image that does not agree with the small one, and that."""
    small = picture(*before, batch, channels)
    noise = 0.1 * torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(1))
    return (resample(small, size) + noise).clamp(0, 1), small


def resized_by_pillow(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC))


@pytest.mark.parametrize(("size", "before"), SIZES)
def test_it_adds_what_the_reduced_image_lacks(size: tuple[int, int], before: tuple[int, int]) -> None:
    current, small = pair(size, before, 2)
    for strength in (0.3, 1.0):
        ours = back_project(current, small, strength)
        for i in range(2):
            for c in range(3):
                large = current[i, c].numpy()
                lacking = small[i, c].numpy() - resized_by_pillow(large, before)
                truth = np.clip(large + strength * resized_by_pillow(lacking, size), 0, 1)
                np.testing.assert_allclose(ours[i, c].numpy(), truth, atol=2e-6)


@pytest.mark.parametrize("factor", [2, 3, 8])
def test_the_result_agrees_far_better_with_the_small_image(factor: int) -> None:
    current, small = pair((22 * factor, 31 * factor), (22, 31))
    lacking = [
        (small - resample(image, (22, 31))).square().mean().sqrt().item()
        for image in (current, back_project(current, small))
    ]
    assert lacking[1] < 0.6 * lacking[0]


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("size", "before"), SIZES)
def test_bands_of_rows_give_what_the_whole_image_gives(
    size: tuple[int, int], before: tuple[int, int], channels: int
) -> None:
    current, small = pair(size, before, 3, channels)
    kept = current.clone(), small.clone()
    whole = back_project(current, small, band=10**9)
    for band in (1, 300, 5000):
        torch.testing.assert_close(back_project(current, small, band=band), whole, atol=1e-6, rtol=0)
    for i in range(3):
        alone = back_project(current[i : i + 1], small[i : i + 1])
        torch.testing.assert_close(alone, whole[i : i + 1], atol=1e-6, rtol=0)
    assert torch.equal(current, kept[0]) and torch.equal(small, kept[1])


def test_it_writes_over_the_image_where_asked_to() -> None:
    current, small = pair((50, 70), (20, 30))
    expected = back_project(current, small)
    assert back_project(current, small, overwrite=True) is current
    assert torch.equal(current, expected)


def test_strength_is_honest() -> None:
    current, small = pair((50, 70), (20, 30))
    assert torch.equal(back_project(current, small, 0.0), current)
    changes = [largest_difference(back_project(current, small, s), current) for s in (0.0, 0.2, 0.5, 1.0)]
    assert changes == sorted(changes) and changes[1] > 1e-3


def test_alpha_stays_and_colour_is_corrected_as_without_it() -> None:
    current, small = pair((50, 70), (20, 30), channels=4)
    current[:, 3:].clamp_(min=0.1)  # what alpha hides is another matter, see test_transparency
    ours = back_project(current, small)
    assert torch.equal(ours[:, 3:], current[:, 3:])
    torch.testing.assert_close(ours[:, :3], back_project(current[:, :3], small[:, :3]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_it_computes_in_float32_and_keeps_the_format(dtype: torch.dtype) -> None:
    current, small = (image.to(dtype) for image in pair((50, 70), (20, 30)))
    ours = back_project(current, small)
    assert ours.dtype is dtype
    torch.testing.assert_close(ours, back_project(current.float(), small.float()).to(dtype))


def test_images_that_ask_for_a_gradient_are_corrected_without_one() -> None:
    current, small = pair((50, 70), (20, 30))
    expected = back_project(current, small)
    for now, before in ((False, True), (True, False), (True, True)):
        ours = back_project(current.clone().requires_grad_(now), small.clone().requires_grad_(before))
        assert torch.equal(ours, expected) and not ours.requires_grad


def test_every_band_is_reported_and_may_cancel() -> None:
    calls: list[tuple[float, float]] = []
    current, small = pair((20, 30), (10, 15), 2)
    back_project(current, small, band=300, on_step=lambda done, total, _: calls.append((done, total)))
    assert calls == [(10, 40), (20, 40), (30, 40), (40, 40)]

    def cancel(done: float, total: float, preview: Tensor | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        back_project(current, small, on_step=cancel)


def test_what_is_wrong_is_named() -> None:
    current, small = pair((20, 30), (10, 15))
    with pytest.raises(ValueError, match=r"previous: expected \[1, 3, H, W\] as current, got \(2, 3, 10, 15\)"):
        back_project(current, small.repeat(2, 1, 1, 1))
    with pytest.raises(ValueError, match=r"strength: expected a number in 0\.\.1, got 1\.5"):
        back_project(current, small, 1.5)


# In a chain.


@pytest.fixture(scope="module")
def chains() -> tuple[Chain, Chain]:
    """A chain, and one of the same weights that is projected back."""
    chain = random_chain()
    projected = Chain(ChainConfig(chain.config.stages, back_projection=True))
    projected.load_state_dict(chain.state_dict())
    return chain, projected.eval()


@pytest.mark.parametrize("settings", [{}, {"detail": 0.7, "seed": 3}, {"skip": 0.4}, {"fusion": False}], ids=str)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_chain_ends_with_it(chains: tuple[Chain, Chain], channels: int, settings: dict[str, Any]) -> None:
    image = picture(11, 14, 2, channels)
    plain, projected = (chain.stages_of(image, 3.5, **FP32, **settings) for chain in chains)
    assert torch.equal(plain[0], projected[0])
    expected = back_project(plain[1], image, settings.get("skip", 1.0))
    torch.testing.assert_close(projected[1], expected, atol=1e-6, rtol=0)
    assert largest_difference(projected[1], plain[1]) > 1e-3


def test_skip_0_turns_it_off(chains: tuple[Chain, Chain]) -> None:
    image = picture(11, 14)
    plain, projected = (chain(image, 4, skip=0.0, **FP32) for chain in chains)
    assert torch.equal(plain, projected)


@pytest.mark.parametrize("upsampler", ["bicubic", "espcn_x2"])
def test_another_upsampler_is_not_projected_back(chains: tuple[Chain, Chain], upsampler: str) -> None:
    image = picture(11, 14)
    plain, projected = (chain(image, 4, upsampler=upsampler, **FP32) for chain in chains)
    assert torch.equal(plain, projected)


def test_the_size_of_the_picture_itself_gives_that_picture(chains: tuple[Chain, Chain]) -> None:
    image = picture(11, 14)
    assert torch.equal(chains[1](image, 1), image)


def test_progress_comes_to_its_end_with_the_last_preview(chains: tuple[Chain, Chain]) -> None:
    heard: list[tuple[float, float]] = []
    previews: list[Tensor] = []

    def on_step(done: float, total: float, preview: Tensor | None) -> None:
        heard.append((done, total))
        if preview is not None:
            previews.append(preview)

    result = chains[1](picture(11, 14), 4, on_step=on_step, **FP32)
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)
    assert heard[-1][0] == heard[-1][1] and len({total for _, total in heard}) == 1
    torch.testing.assert_close(previews[-1], result)


def test_the_plain_peer_does_the_same(chains: tuple[Chain, Chain]) -> None:
    image = picture(12, 16)
    torch.testing.assert_close(PlainChain(chains[1])(image, 2), chains[1](image, 4, **FP32), atol=1e-5, rtol=0)


def test_files_keep_it_and_those_from_before_have_none(chains: tuple[Chain, Chain], tmp_path: Path) -> None:
    chains[1].save(tmp_path / "projected.safetensors")
    assert Chain.from_pretrained(tmp_path / "projected.safetensors").config == chains[1].config
    stored = to_dict(chains[1].config)
    del stored["back_projection"]
    assert not from_dict(ChainConfig, stored).back_projection
    with pytest.raises(ValueError, match="back_projection"):
        from_dict(ChainConfig, stored | {"back_projection": 1})
    with pytest.raises(ValueError, match="back_projection: expected one of"):
        ChainConfig(back_projection="yes")  # type: ignore[arg-type]
