"""A mask limits where detail is added: pixel by pixel in the denoiser, and in every stage of the chain."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from progressive_upsampling.core.chain import Chain, Settings
from progressive_upsampling.core.denoise import denoise
from progressive_upsampling.core.noise import inject_noise
from progressive_upsampling.core.sizes import stage_sizes

from .noisy import WHOLE, noised
from .tiny import denoiser, largest_difference, picture, random_chain

RUN: dict[str, Any] = {"steps": 2, "dtype": "fp32"}


@pytest.fixture(scope="module")
def chain() -> Chain:
    """A small chain of two stages of which every part does something."""
    return random_chain()


def halves(height: int, width: int, batch: int = 1) -> Tensor:
    """1 on the left, 0 on the right, a ramp between, shifted from image to image; `[B, 1, H, W]`."""
    x = torch.linspace(1.5, -0.5, width).expand(batch, 1, height, width)
    return (x + 0.1 * torch.arange(batch).reshape(-1, 1, 1, 1)).clamp(0, 1)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("detail", [0.6, 1.0])
def test_a_mask_of_ones_changes_nothing_and_one_of_zeros_is_detail_0(known: bool, detail: float) -> None:
    net, (y, noisy, s) = denoiser(0.2), noised(batch=2)
    conditioning, ones = y if known else None, torch.ones(1, 1, 33, 47)
    plain = denoise(net, noisy, s, conditioning, detail=detail, **RUN)
    assert torch.equal(denoise(net, noisy, s, conditioning, detail=detail, detail_mask=ones, **RUN), plain)
    none = denoise(net, noisy, s, conditioning, **RUN)
    assert torch.equal(denoise(net, noisy, s, conditioning, detail=detail, detail_mask=0 * ones, **RUN), none)
    assert largest_difference(plain, none) > 0.01


@pytest.mark.parametrize("known", [True, False])
def test_every_pixel_has_the_detail_of_the_mask_there(known: bool) -> None:
    net, (y, noisy, s) = denoiser(0.2), noised(batch=2)
    conditioning, mask = y if known else None, halves(33, 47, 2)
    out = denoise(net, noisy, s, conditioning, detail=0.8, detail_mask=mask, **RUN)
    for value in (0.0, 0.5, 1.0):
        alike = denoise(net, noisy, s, conditioning, detail=0.8 * value, **RUN)
        at = (mask == value if value in (0.0, 1.0) else (mask - value).abs() < 1e-6).expand_as(out)
        if value == 0.0:
            assert torch.equal(out[at], alike[at])
        else:
            torch.testing.assert_close(out[at], alike[at], atol=1e-5, rtol=0)
    assert (mask == 0).any() and (mask == 1).any()


def test_tiles_do_not_show() -> None:
    net, (y, noisy, s), mask = denoiser(0.2), noised(height=129, width=100), halves(129, 100)
    whole, tiled = (denoise(net, noisy, s, y, detail=0.8, detail_mask=mask, tile=tile, **RUN) for tile in (WHOLE, 64))
    assert largest_difference(tiled, whole) < 1e-4


def test_the_mask_is_not_changed_and_may_be_of_half_precision() -> None:
    net, (y, noisy, s), mask = denoiser(0.2), noised(), halves(33, 47).half()
    before = mask.clone()
    out = denoise(net, noisy, s, y, detail=0.8, detail_mask=mask, **RUN)
    assert torch.equal(mask, before)
    assert largest_difference(out, denoise(net, noisy, s, y, detail=0.8, detail_mask=mask.float(), **RUN)) == 0


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (torch.ones(1, 1, 5, 5), r"detail_mask: expected \[1, 1, 33, 47\] to match the image, got \(1, 1, 5, 5\)"),
        (torch.full((1, 1, 33, 47), -0.1), "detail_mask: expected values >= 0, got a minimum of -0.1"),
        (torch.full((1, 1, 33, 47), 1.5), "detail_mask: expected values <= 1, got a maximum of 1.5"),
    ],
)
def test_masks_that_do_not_fit_are_refused(mask: Tensor, words: str) -> None:
    y, noisy, s = noised()
    with pytest.raises(ValueError, match=words):
        denoise(denoiser(), noisy, s, y, detail=0.5, detail_mask=mask)


# The chain.


def test_in_the_chain_too_ones_change_nothing_and_zeros_are_detail_0(chain: Chain) -> None:
    image = picture(12, 17)
    plain, none = chain.stages_of(image, 4, detail=0.8, **RUN), chain.stages_of(image, 4, **RUN)
    for size in ((12, 17), (48, 68), (5, 3), (1, 1), (150, 131)):
        ones = torch.ones(1, 1, *size)
        for a, b in zip(chain.stages_of(image, 4, detail=0.8, detail_mask=ones, **RUN), plain, strict=True):
            assert largest_difference(a, b) < 1e-5  # bilinear weights add up to 1 only nearly
        for a, b in zip(chain.stages_of(image, 4, detail=0.8, detail_mask=0 * ones, **RUN), none, strict=True):
            assert torch.equal(a, b)


def test_far_from_the_mask_the_chain_adds_no_detail(chain: Chain) -> None:
    image, mask = picture(8, 120), torch.zeros(1, 1, 8, 120)
    mask[..., :20] = 1
    out, none = (chain(image, 4, detail=detail, detail_mask=mask, **RUN) for detail in (1.0, 0.0))
    assert largest_difference(out[..., :60], none[..., :60]) > 0.01
    # 2e-6: an attention's rounding may depend on what else is computed
    assert largest_difference(out[..., 400:], none[..., 400:]) < 2e-6


@pytest.mark.parametrize("group", [1, 2, 100])
@pytest.mark.parametrize("masks", [1, 3])
def test_every_image_of_a_batch_has_its_mask(
    chain: Chain, group: int, masks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("progressive_upsampling.core.chain.GROUP_PIXELS", group * 24 * 34)
    images, mask = picture(12, 17, batch=3), halves(9, 17, masks)
    together = chain(images, 2, detail=0.8, detail_mask=mask, seed=[4, 5, 6], **RUN)
    for i in range(3):
        own = mask[i : i + 1] if masks > 1 else mask
        alone = chain(images[i : i + 1], 2, detail=0.8, detail_mask=own, seed=4 + i, **RUN)
        assert largest_difference(together[i : i + 1], alone) < 1e-5


def test_a_graph_of_the_stages_methods_is_the_chain(chain: Chain) -> None:
    image, mask = picture(9, 11), halves(20, 20)
    expected = chain.stages_of(image, 4, detail=0.8, detail_mask=mask, seed=3, **RUN)
    for number, size in enumerate(stage_sizes(9, 11, 36, 44), 1):
        stage = chain.stage(number)
        up = stage.upsample(image, size, dtype="fp32")
        sigma = stage.sigma(up)
        noisy = inject_noise(up, sigma, 3, number)
        clean = stage.denoise(noisy, sigma, up, detail=0.8, detail_mask=mask, **RUN)
        image = stage.fuse([image, stage.skip(clean, image)], dtype="fp32")[0]
        assert largest_difference(image, expected[number - 1]) < 1e-5


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (torch.ones(2, 1, 5, 5), "detail_mask: expected one, or one for each of 3 images, got 2"),
        (torch.ones(1, 3, 5, 5), r"detail_mask: expected \[B, 1, H, W\], got \(1, 3, 5, 5\)"),
        (torch.full((1, 1, 5, 5), 1.1), "detail_mask: expected values <= 1, got a maximum of 1.1"),
        (torch.full((1, 1, 5, 5), -1.0), "detail_mask: expected values >= 0, got a minimum of -1"),
    ],
)
def test_the_chain_refuses_masks_that_do_not_fit(chain: Chain, mask: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        chain(picture(8, 8, batch=3), 2, detail=0.5, detail_mask=mask)


def test_settings_with_masks_can_be_compared() -> None:
    mask = halves(4, 4)
    assert Settings(detail_mask=mask) == Settings(detail_mask=mask)
    assert hash(Settings(detail_mask=mask)) == hash(Settings())
