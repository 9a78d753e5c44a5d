"""The Compare node."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import comfy.model_management as management
import pytest
import torch
from torch import Tensor

from progressive_upsampling.core.layout import from_bhwc
from progressive_upsampling.core.metrics import psnr, ssim
from progressive_upsampling.nodes import _batch, compare
from progressive_upsampling.nodes.compare import Compare

from .conftest import call

Picture = Callable[..., Tensor]


def test_the_numbers_are_those_of_the_protocol(picture: Picture) -> None:
    reference = picture()
    noise = torch.rand(reference.shape, generator=torch.Generator().manual_seed(2))
    image = (reference + 0.05 * noise).clamp(0, 1)
    text, _, _ = call(Compare, image=image, reference=reference, crop=2)
    a, b = from_bhwc(image), from_bhwc(reference)
    for name, channel in (("Y", "y"), ("RGB", "rgb")):
        found = re.search(rf"^{name}\s+PSNR ([\d.]+) dB\s+SSIM ([\d.]+)$", text, re.MULTILINE)
        assert found, text
        assert float(found[1]) == pytest.approx(float(psnr(a, b, channel=channel, crop=2)), abs=0.005)
        assert float(found[2]) == pytest.approx(float(ssim(a, b, channel=channel, crop=2)), abs=0.00005)


def test_the_colour_difference_has_its_sign(picture: Picture) -> None:
    image = picture() * 0.5
    text, _, _ = call(Compare, image=image + torch.tensor([2 / 255, 0, -1 / 255]), reference=image)
    assert text.endswith("mean colour difference (R G B, of 255) +2.00 +0.00 -1.00")


def test_equal_images_have_a_black_heat_map(picture: Picture) -> None:
    text, _, heat = call(Compare, image=picture(), reference=picture())
    assert "PSNR inf" in text
    assert not heat.any()


def test_the_heat_map_grows_with_the_difference_up_to_its_range(picture: Picture) -> None:
    reference = torch.zeros(1, 16, 256, 3)
    image = reference + torch.arange(256)[None, None, :, None] / 255
    _, _, heat = call(Compare, image=image, reference=reference, heat_levels=100.0)
    brightness = heat[0, 0].sum(dim=-1)
    assert (brightness.diff() >= 0).all()
    assert brightness[99] < brightness[100] == brightness[255]


def test_an_image_of_another_size_is_resized_and_the_text_says_so(picture: Picture) -> None:
    text, _, heat = call(Compare, image=picture(10, 17), reference=picture())
    assert text.startswith("image resized from 17×10 to 34×21 by bicubic\n")
    assert heat.shape == (1, 21, 34, 3)


def test_a_batch_is_compared_image_by_image_with_one_reference(picture: Picture) -> None:
    text, beside, heat = call(Compare, image=picture(batch=2), reference=picture())
    assert text.count("PSNR") == 4
    assert text.startswith("image 1\n")
    assert beside.shape[0] == heat.shape[0] == 2


def test_batches_that_do_not_fit_are_refused(picture: Picture) -> None:
    with pytest.raises(ValueError, match="reference: expected a batch of 1 or 2 as image, got 3"):
        call(Compare, image=picture(batch=2), reference=picture(batch=3))


def test_images_too_small_for_ssim_still_have_psnr(picture: Picture) -> None:
    text, _, _ = call(Compare, image=picture(5, 9), reference=picture(5, 9, seed=1))
    assert "PSNR" in text
    assert "SSIM" not in text


@pytest.mark.parametrize("crop", [0, 2])
@pytest.mark.parametrize(("inside", "has_ssim"), [(10, False), (11, True)])
def test_ssim_needs_eleven_pixels_a_side(picture: Picture, crop: int, inside: int, has_ssim: bool) -> None:
    height, width = inside + 2 * crop, 20 + 2 * crop
    text, _, _ = call(Compare, image=picture(height, width), reference=picture(height, width, seed=1), crop=crop)
    assert ("SSIM" in text) == has_ssim


def test_both_images_are_shown_unchanged_beside_each_other(picture: Picture) -> None:
    image, reference = picture(150, 200), picture(150, 200, seed=1)
    _, beside, _ = call(Compare, image=image, reference=reference)
    windows = beside[0].unfold(0, 150, 1)[..., :].unfold(1, 200, 1)  # [rows, columns, 3, 150, 200]
    for one in (image, reference):
        wanted = one[0].movedim(-1, 0)
        hits = [windows[y, x].equal(wanted) for y in range(windows.shape[0]) for x in range(windows.shape[1])]
        assert sum(hits) == 1


@pytest.mark.parametrize("references", [1, 5])
def test_one_at_a_time_gives_what_all_at_once_give(
    picture: Picture, references: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, reference = picture(12, 17, batch=5), picture(24, 34, batch=references, seed=1)
    together = call(Compare, image=image, reference=reference)
    monkeypatch.setattr(_batch, "GROUP_PIXELS", 1)
    text, *images = call(Compare, image=image, reference=reference)
    assert text == together[0]
    for one, other in zip(images, together[1:], strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("references", [1, 3])
def test_each_image_of_a_batch_is_compared_as_if_alone(picture: Picture, references: int) -> None:
    image = torch.cat([picture(seed=seed) for seed in range(3)])
    reference = torch.cat([picture(seed=7 + seed) for seed in range(references)])
    text, beside, heat = call(Compare, image=image, reference=reference)
    for number in range(3):
        other = reference[min(number, references - 1)][None]
        alone = call(Compare, image=image[number : number + 1], reference=other)
        assert f"image {number + 1}\n{alone[0]}" in text
        assert torch.equal(beside[number], alone[1][0]) and torch.equal(heat[number], alone[2][0])


@pytest.mark.parametrize("measure", ["psnr", "ssim"])
def test_cancel_does_not_wait_for_the_measure_after_next(
    picture: Picture, measure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []

    def cancelling(name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def measure_once(*args: Any, **kwargs: Any) -> Tensor:
            measured.append(name)
            if name == measure:
                management.interrupt_current_processing()
            return function(*args, **kwargs)

        return measure_once

    monkeypatch.setattr(compare, "psnr", cancelling("psnr", psnr))
    monkeypatch.setattr(compare, "ssim", cancelling("ssim", ssim))
    try:
        with pytest.raises(management.InterruptProcessingException):
            call(Compare, image=picture(batch=3), reference=picture())
    finally:
        management.interrupt_current_processing(False)
    assert len(measured) <= 3
