"""Augmentations of training crops, each a function of the crop and its own generator.

Crops are `[3, H, W]` uint8. Colour jitter and mixup act on the finest crop, before its reductions are made, so that
input and targets are changed alike; CutBlur acts on the input.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from kornia.enhance import (
    adjust_brightness_accumulative,
    adjust_contrast_with_mean_subtraction,
    adjust_hue,
    adjust_saturation_with_gray_subtraction,
)
from torch import Tensor

from .degrade import matlab_imresize

FACTOR = 0.5  # at full strength, brightness, contrast and saturation are multiplied by 1 ± this
TURN = 0.1  # and the hue is turned by ± this part of the colour circle
MIXUP_BETA = 1.2  # both parameters of the Beta distribution, as in Yoo 2020's code
CUTBLUR_SIDE = 0.7  # of the box, in sides of the crop, as there


def colour_jitter(image: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    """Changes brightness, contrast, saturation and hue by random amounts.

    Args:
        image: `[3, H, W]` uint8.
        strength: 0 (the image itself) to 1 (factors of 0.5..1.5, hue turned by up to 36 degrees).
        rng: of this crop.

    Returns:
        `[3, H, W]` uint8.
    """
    brightness, contrast, saturation = (float(x) for x in rng.uniform(1 - FACTOR * strength, 1 + FACTOR * strength, 3))
    turn = float(rng.uniform(-1, 1)) * TURN * strength * 2 * math.pi
    # float64, so that the order in which threads add up the mean cannot be seen in 8 bits
    pixels = image.double() / 255
    pixels = adjust_brightness_accumulative(pixels, brightness)
    pixels = adjust_contrast_with_mean_subtraction(pixels, contrast)
    pixels = adjust_saturation_with_gray_subtraction(pixels, saturation)
    return _8bit(adjust_hue(pixels, turn) * 255)


def mixup(image: Tensor, partner: Tensor, rng: np.random.Generator) -> Tensor:
    """Blends two crops in a random ratio (Zhang 2018, arXiv 1710.09412).

    Reducing is linear: the blend's input and targets are the blends of both crops' own, but for rounding.

    Args:
        image, partner: `[3, H, W]` uint8.
        rng: of this crop; the ratio is drawn from Beta(1.2, 1.2).

    Returns:
        `[3, H, W]` uint8.
    """
    ratio = float(rng.beta(MIXUP_BETA, MIXUP_BETA))
    return _8bit(ratio * image.double() + (1 - ratio) * partner.double())


def cutblur(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Blurs the input inside or outside a random box (after Yoo 2020, arXiv 2004.00448).

    The paper pastes enlarged low resolution into high resolution, or the other way round, which takes an input of the
    target's size. Here the input is small: in place of the low resolution stands the input itself, reduced by 2 and
    enlarged again, both bicubic. The targets stay as they are, so that the network learns where to sharpen, and how
    much.

    Args:
        image: `[3, H, W]` uint8.
        rng: of this crop.

    Returns:
        `[3, H, W]` uint8.
    """
    _, H, W = image.shape
    half = matlab_imresize(image[None], size=((H + 1) // 2, (W + 1) // 2))
    blurred = matlab_imresize(half, size=(H, W))[0]
    height, width = max(round(CUTBLUR_SIDE * H), 1), max(round(CUTBLUR_SIDE * W), 1)
    top, left = int(rng.integers(H - height + 1)), int(rng.integers(W - width + 1))
    inside, outside = (blurred, image) if rng.random() < 0.5 else (image, blurred)
    result = outside.clone()
    result[:, top : top + height, left : left + width] = inside[:, top : top + height, left : left + width]
    return result


def _8bit(pixels: Tensor) -> Tensor:
    return pixels.round().clamp(0, 255).to(torch.uint8)
