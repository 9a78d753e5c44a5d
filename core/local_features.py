"""What a place in an image looks like: luma, gradient and blur, and how alike two images are there."""

from __future__ import annotations

import math

import torch
from kornia.filters import gaussian_blur2d, sobel, spatial_gradient
from torch import Tensor

from .interrupt import check_interrupted

# A disagreement as large as the usual error of an upsampled picture (its RMS, about 10/255) is where
# similarity has fallen to 1/e at temperature 1.
FEATURE_SCALE = 0.04
_PATCH_SIGMA = 1.0
_GRADIENT_EPS = 1e-8  # inside the root: a finite slope at 0; gradients of 1e-4 and less read as flat


def luma(image: Tensor) -> Tensor:
    """Mean of the colour channels; alpha is left out.

    Args:
        image: `[B, C, H, W]`, C of 1, 3 or 4.

    Returns:
        `[B, 1, H, W]`, float32 (float64 for float64), in the image's range.
    """
    check_interrupted()
    colour = image[:, :3].to(torch.promote_types(image.dtype, torch.float32))
    return colour.mean(dim=1, keepdim=True)


def gradient_magnitude(plane: Tensor) -> Tensor:
    """Length of the Sobel gradient, differentiable everywhere and exactly 0 where the plane is flat.

    Reads 1 pixel around; the border is replicated.

    Args:
        plane: `[B, 1, H, W]`, float32 or float64.

    Returns:
        `[B, 1, H, W]`, image units per pixel: a ramp that climbs s per pixel gives s.
    """
    check_interrupted()
    with _full_precision(plane):
        return (sobel(plane, eps=_GRADIENT_EPS) - math.sqrt(_GRADIENT_EPS)).clamp_min(0.0)


def blur(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of any image size, the border replicated.

    Reads `blur_radius(sigma)` pixels around.

    Args:
        image: `[B, C, H, W]`, float32 or float64.
        sigma: standard deviation of the Gaussian in pixels, > 0.

    Returns:
        `[B, C, H, W]`.
    """
    check_interrupted()
    side = 2 * blur_radius(sigma) + 1
    with _full_precision(image):
        return gaussian_blur2d(image, (side, side), (sigma, sigma), border_type="replicate")


def blur_radius(sigma: float) -> int:
    """Radius in pixels at which a Gaussian of standard deviation `sigma` (pixels) is cut off."""
    return math.ceil(3.0 * sigma)


def local_features(image: Tensor) -> Tensor:
    """Features in which a query and a key are compared: luma and its Sobel derivatives.

    Args:
        image: `[B, C, H, W]`, 0..1.

    Returns:
        `[B, 3, H, W]` in units of `FEATURE_SCALE`.
    """
    plane = luma(image)
    check_interrupted()
    with _full_precision(plane):
        slopes = spatial_gradient(plane)[:, 0]
    return torch.cat([plane, slopes], dim=1) / FEATURE_SCALE


def feature_distance(query: Tensor, key: Tensor) -> Tensor:
    """Squared distance of two feature maps, summed over a small Gaussian patch around each pixel.

    For patches of equal length −distance is a dot product of query and key up to a constant, so that
    `softmax(−distance / temperature)` is attention; `exp(−distance / temperature)` is a similarity.

    Args:
        query: `[B, 3, H, W]` from `local_features`.
        key: `[B, 3, H, W]` from `local_features`.

    Returns:
        `[B, 1, H, W]`, >= 0, exactly 0 where the patches are equal.
    """
    return blur((query - key).square().sum(dim=1, keepdim=True), _PATCH_SIGMA)


def similarity(query: Tensor, key: Tensor, temperature: float = 1.0) -> Tensor:
    """How alike two images of one size are, per pixel.

    Args:
        query: `[B, C, H, W]`, 0..1.
        key: `[B, C, H, W]`, 0..1.
        temperature: > 0; larger forgives larger differences.

    Returns:
        `[B, 1, H, W]` in 0..1, 1 where they are equal.
    """
    return torch.exp(-in_temperatures(feature_distance(local_features(query), local_features(key)), temperature))


def in_temperatures(distance: Tensor, temperature: float) -> Tensor:
    """A distance, float32 or float64, over a temperature > 0; 0 stays 0 where the format has none so small, too."""
    return distance / max(temperature, torch.finfo(distance.dtype).tiny)


def _full_precision(tensor: Tensor) -> torch.autocast:
    # In half precision the small differences that these filters measure are rounding noise.
    return torch.autocast(device_type=tensor.device.type, enabled=False)
