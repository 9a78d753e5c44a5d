"""Where noise goes (article 2.2.3): sigma maps from the gradient or from a learned error scale."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .checks import check_choice, check_image, check_integer, check_number
from .local_features import blur, blur_radius, gradient_magnitude, luma
from .noise import softplus_inverse
from .transparency import spread_colour

MODES = ("uniform", "gradient", "learned")

FLOOR = 0.4  # UPSR, arXiv 2503.18512
QUANTILE = 0.95
_SAMPLES = 1 << 20  # torch.quantile takes 16M elements; a million are as good and far quicker
_FLATTEST = 1.0 / 255.0  # a picture with no edge above one grey level per pixel has no edges
_DETAIL_SIGMA = 1.0


def gradient_map(image: Tensor, floor: float = FLOOR, quantile: float = QUANTILE) -> Tensor:
    """Where the image has edges: m = b + (1 − b)·clip(|∇y| / q, 0, 1).

    More noise at edges as in LSRNA (arXiv 2503.18446), less in flat areas as in UPSR (arXiv 2503.18512).
    The quantile q belongs to the whole picture: compute the map of the whole image and slice it, not
    the map of a tile. Each image of a batch has its own.

    Args:
        image: `[B, C, H, W]`, C of 1, 3 or 4, 0..1.
        floor: b, the value where the image is flat, 0..1.
        quantile: the share of pixels whose gradient is below q, 0..1.

    Returns:
        `[B, 1, H, W]` in b..1, in the image's dtype.

    Raises:
        TypeError, ValueError: a wrong image, floor or quantile.
    """
    check_image(image)
    check_number(floor, "floor", 0.0, 1.0)
    check_number(quantile, "quantile", 0.0, 1.0)
    gradient = gradient_magnitude(luma(image))
    sample = gradient.flatten(1)
    # An odd stride does not keep to the same columns of pictures with a power of two as width.
    sample = sample[:, :: math.ceil(sample.shape[1] / _SAMPLES) | 1]
    q = torch.quantile(sample, quantile, dim=1).clamp_min(_FLATTEST)
    edges = (gradient / q[:, None, None, None]).clamp(0.0, 1.0)
    return (floor + (1.0 - floor) * edges).to(image.dtype)


@dataclass(frozen=True)
class NoiseControllerConfig:
    """Config of a `NoiseController`.

    Attributes:
        width: channels of the hidden layers, >= 1.
        sigma_r: RMS error of the upsampled image in the training data, in 0..1 image units, > 0.
    """

    width: int = 16
    sigma_r: float = 0.04

    def __post_init__(self) -> None:
        check_integer(self.width, "width", 1)
        check_number(self.sigma_r, "sigma_r", above=0.0)


class NoiseController(nn.Module):
    """Predict the expected error of an upsampled image, pixel by pixel.

    A small convolutional net over three planes that come from the image itself: its gradient, its detail
    |y − blur(y)| and its luma. The detail is what an interpolation of half the size could not hold: it
    stands in for |upsampler(y) − bicubic| of UPSR (arXiv 2503.18512) and needs no second image.

    Train it with `laplace_nll` on the error it predicts, not through a reconstruction loss: noise carries
    no information about the truth, so that such a loss would only learn to turn it off.

    Attributes:
        config: the `NoiseControllerConfig`.
        halo: pixels of context that make a tile exact.
        align: multiple of pixels on which a tile may start.
        scale: output pixels per input pixel.
    """

    halo = 2 + blur_radius(_DETAIL_SIGMA)  # two 3×3 convolutions; the gradient reaches less far than the blur
    align = 1
    scale = 1

    def __init__(self, config: NoiseControllerConfig | None = None) -> None:
        """Build the net.

        Args:
            config: None for the default one.
        """
        super().__init__()
        self.config = config or NoiseControllerConfig()
        width = self.config.width
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
        )
        self.last = nn.Conv2d(width, 1, 1)
        nn.init.zeros_(self.last.weight)  # zero-init: at birth the scale is sigma_r everywhere
        if self.last.bias is not None:
            nn.init.zeros_(self.last.bias)

    def forward(self, image: Tensor) -> Tensor:
        """Expected absolute error of the image against the truth.

        Args:
            image: `[B, C, H, W]`, C of 1, 3 or 4, 0..1: the upsampled image y.

        Returns:
            B: `[B, 1, H, W]`, float32 (float64 for float64), > 0, in 0..1 image units.
        """
        sigma_r = self.config.sigma_r
        plane = luma(image)
        gradient = gradient_magnitude(plane) / sigma_r
        detail = (plane - blur(plane, _DETAIL_SIGMA)).abs() / sigma_r
        planes = torch.cat([gradient, detail, plane - 0.5], dim=1)
        out = self.last(self.layers(planes.to(self.last.weight.dtype)))
        return sigma_r * F.softplus(out.to(plane.dtype) + softplus_inverse(1.0))


def laplace_nll(error: Tensor, scale: Tensor, eps: float = 1e-4) -> Tensor:
    """Negative log-likelihood of an error under a Laplace distribution: mean of |e|/B + ln B.

    The minimum over B is at B = mean |e|, so that the scale learns to be a calibrated error map.

    Args:
        error: `[B, C, H, W]`, what the scale predicts; detach it.
        scale: B, `[B, 1, H, W]`, > 0, in the unit of the error.
        eps: smallest scale that counts, in the same unit: bounds the loss where the error is 0.

    Returns:
        A float32 tensor without axes (float64 for float64).
    """
    dtype = torch.promote_types(error.dtype, torch.float32)
    bounded = scale.to(dtype).clamp_min(eps)
    return (error.to(dtype).abs() / bounded + bounded.log()).mean()


def adaptive_sigma(
    image: Tensor,
    mode: str = "gradient",
    strength: float = 1.0,
    sigma: float = 0.04,
    controller: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """The sigma map of an image.

    Args:
        image: `[B, C, H, W]`, C of 1, 3 or 4, 0..1: the upsampled image. Not changed. Colours that its alpha hides
            count for nothing, see `core.transparency`.
        mode: "uniform": sigma everywhere; "gradient": sigma·`gradient_map`; "learned": the controller's
            expected error.
        strength: multiplier, >= 0; 0 gives exact zeros.
        sigma: noise level of the modes uniform and gradient, in 0..1 image units, >= 0.
        controller: a `NoiseController`, or any function `[B, C, H, W] -> [B, 1, H, W]`, as a tiled one;
            mode "learned" needs it. Its gradient flows: detach the map to train the noise apart from the
            reconstruction.

    Returns:
        `[B, 1, H, W]` in the image's dtype, standard deviation of the noise in 0..1 image units.

    Raises:
        TypeError, ValueError: a wrong image, mode or number; mode "learned" without a controller.
    """
    check_image(image)
    check_choice(mode, "mode", MODES)
    check_number(strength, "strength", 0.0)
    check_number(sigma, "sigma", 0.0)
    if mode == "learned" and controller is None:
        raise ValueError('controller: expected a NoiseController for mode "learned", got None')
    B, _, H, W = image.shape
    if strength == 0:
        return image.new_zeros((B, 1, H, W))
    if mode == "uniform":
        return image.new_full((B, 1, H, W), strength * sigma)
    image = spread_colour(image)
    if mode == "learned" and controller is not None:
        return (strength * controller(image)).to(image.dtype)
    return strength * sigma * gradient_map(image)
