from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch

from progressive_upsampling.core.resample import resample
from progressive_upsampling.core.train.augment import colour_jitter, cutblur, mixup

from .conftest import noise_picture, soft_picture

SIZES = [(33, 47), (1, 1), (2, 9), (48, 48)]


def crop(size: tuple[int, int] = (33, 47), seed: int = 0, soft: bool = False) -> torch.Tensor:
    picture = (soft_picture if soft else noise_picture)(*size, seed)
    return torch.from_numpy(picture.copy()).permute(2, 0, 1)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def saturation(image: torch.Tensor) -> float:
    return (image.double().amax(0) - image.double().amin(0)).mean().item()


@pytest.mark.parametrize("size", SIZES)
def test_every_augmentation_gives_8_bits_of_the_same_size_and_leaves_its_input_alone(size):
    image, partner = crop(size), crop(size, 1)
    before = image.clone(), partner.clone()
    for result in (colour_jitter(image, 1.0, rng()), mixup(image, partner, rng()), cutblur(image, rng())):
        assert result.dtype == torch.uint8 and result.shape == image.shape
    assert torch.equal(image, before[0]) and torch.equal(partner, before[1])


def test_the_same_generator_gives_the_same_augmentation_and_another_another():
    image, partner = crop(soft=True), crop(seed=1)
    for augment, *arguments in ((colour_jitter, image, 0.5), (mixup, image, partner), (cutblur, image)):
        assert torch.equal(augment(*arguments, rng(1)), augment(*arguments, rng(1)))
        assert not torch.equal(augment(*arguments, rng(1)), augment(*arguments, rng(2)))


@pytest.mark.parametrize("size", SIZES)
def test_jitter_of_strength_0_is_the_image_itself(size):
    assert torch.equal(colour_jitter(crop(size), 0.0, rng()), crop(size))


def test_jitter_is_the_stronger_the_higher_its_strength():
    image = crop(soft=True)
    for seed in range(5):
        changes = [(colour_jitter(image, s, rng(seed)).double() - image).abs().mean() for s in (0.1, 0.4, 1.0)]
        assert 0 < changes[0] < changes[1] < changes[2]


def test_jitter_changes_brightness_contrast_saturation_and_hue():
    image = (crop(soft=True).double() * 0.4 + 70).to(torch.uint8)  # far enough from black and white to clip nothing
    luma = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    seen = []
    for seed in range(40):
        jittered = colour_jitter(image, 1.0, rng(seed))
        grey, before = (torch.tensordot(luma, x.double(), 1) for x in (jittered, image))
        brightness, contrast = grey.mean() / before.mean(), grey.std() / before.std()
        saturated = saturation(jittered) / saturation(image)
        order = (jittered.double().argmax(0) != image.double().argmax(0)).double().mean()
        # each apart from what the one before it did to it
        seen.append([brightness, contrast / brightness, saturated / contrast, order])
    bright, contrast, colour, hue = np.array(seen).T
    for ratio in (bright, contrast, colour):
        assert ratio.min() < 0.8 and ratio.max() > 1.2
    assert bright.min() > 0.4 and bright.max() < 1.6
    assert hue.max() > 0.1


def test_hue_is_turned_by_up_to_a_tenth_of_the_circle():
    red, turns = torch.tensor([255, 0, 0], dtype=torch.uint8).view(3, 1, 1), []
    for seed in range(200):
        hue, _, _ = colorsys.rgb_to_hsv(*(colour_jitter(red, 1.0, rng(seed)).flatten() / 255).tolist())
        turns.append((360 * hue + 180) % 360 - 180)
    assert -37 < min(turns) < -33 and 33 < max(turns) < 37


def test_jitter_keeps_grey_grey():
    grey = crop()[:1].expand(3, -1, -1).contiguous()
    jittered = colour_jitter(grey, 1.0, rng())
    assert torch.equal(jittered[0], jittered[1]) and torch.equal(jittered[0], jittered[2])
    assert not torch.equal(jittered, grey)


def test_mixup_is_the_blend_in_the_ratio_drawn():
    image, partner = crop(), crop(seed=1)
    for seed in range(5):
        ratio = rng(seed).beta(1.2, 1.2)
        expected = np.round(ratio * image.numpy().astype(float) + (1 - ratio) * partner.numpy().astype(float))
        assert np.array_equal(mixup(image, partner, rng(seed)).numpy(), expected)


def test_mixup_ratios_are_spread_over_all_of_0_to_1():
    white, black = torch.full((3, 1, 1), 255, dtype=torch.uint8), torch.zeros(3, 1, 1, dtype=torch.uint8)
    ratios = np.array([mixup(white, black, rng(seed))[0, 0, 0] for seed in range(1000)]) / 255
    assert ratios.mean() == pytest.approx(0.5, abs=0.03)
    assert ratios.std() == pytest.approx(0.5 / np.sqrt(2 * 1.2 + 1), abs=0.02)


def test_mixup_of_equal_crops_is_that_crop():
    assert torch.equal(mixup(crop(), crop(), rng()), crop())


def checks(height: int, width: int) -> torch.Tensor:
    """A pattern that a reduction by 2 takes to grey at every pixel."""
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    return ((rows + columns) % 2 * 255).to(torch.uint8).expand(3, -1, -1).contiguous()


def box_of(mask: torch.Tensor) -> tuple[int, int, int, int]:
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def test_cutblur_takes_the_detail_out_of_a_random_box_or_of_all_but_it():
    image, places, kinds = checks(40, 60), set(), []
    for seed in range(30):
        result = cutblur(image, rng(seed))
        changed = (result != image).any(0)
        kinds.append(bool(changed[20, 30]))  # which every box of this size covers
        top, bottom, left, right = box_of(changed if kinds[-1] else ~changed)
        assert (bottom - top, right - left) == (28, 42)
        expected = torch.full_like(changed, not kinds[-1])
        expected[top:bottom, left:right] = kinds[-1]
        assert torch.equal(changed, expected)
        assert (result[:, changed].double() - 127.5).abs().max() < 30
        places.add((top, left))
    assert 5 < sum(kinds) < 25 and len(places) > 20


@pytest.mark.parametrize("size", [(33, 47), (40, 60)])
def test_what_cutblur_leaves_of_smooth_parts_keeps_its_place(size):
    ramp = torch.linspace(20, 230, size[0])[:, None] * 0.5 + torch.linspace(0, 120, size[1]) * 0.5
    image = ramp.round().to(torch.uint8).expand(3, -1, -1).contiguous()
    for seed in range(4):
        difference = (cutblur(image, rng(seed)).double() - image.double()).abs()
        assert difference[:, 4:-4, 4:-4].max() <= 2  # a shift by half a pixel would be worth as much as 2.6
        assert difference.mean() < 0.7


def test_cutblur_reduces_by_2_and_enlarges_by_bicubic():
    image = crop((40, 60), soft=True)
    small = resample(image[None].double(), (20, 30))
    expected = resample(small, (40, 60))[0]
    result = cutblur(image, rng())
    near = (result.double() - expected).abs() < 3  # rounding, at each of the four passes
    assert (near | (result == image)).double()[:, 4:-4, 4:-4].mean() > 0.999
    assert (result != image).any()
