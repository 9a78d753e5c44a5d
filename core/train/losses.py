"""Loss terms on images, each a function of (image, target); see `perceptual` and `adversarial` for the others.

All are computed in float32 at least, whatever autocast surrounds them, and none clamps: gradients also reach values
outside 0..1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from kornia.metrics import ssim as ssim_map
from torch import Tensor

from ..checks import check_choice, check_number
from ..layout import rgb_to_y
from ..metrics import SSIM_WINDOW

EPSILON = 1e-3


# unweighted terms by name of (a stage's result, its target), each [B, 3, h, w]
ImageTerms = Callable[[Tensor, Tensor], dict[str, Tensor]]

ImageLoss = Callable[[Tensor, Tensor], Tensor]  # (image, target), each `[B, C, H, W]` in 0..1 units, to a scalar


def l1(image: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error.

    Args:
        image, target: `[B, C, H, W]`, in 0..1 units.

    Returns:
        A tensor without axes, float32 (float64 for float64).

    Raises:
        TypeError, ValueError: no float tensors of one shape with four axes.
    """
    return _difference(image, target).abs().mean()


def l2(image: Tensor, target: Tensor) -> Tensor:
    """Mean squared error; arguments, result and errors as `l1`."""
    return _difference(image, target).square().mean()


def charbonnier(image: Tensor, target: Tensor, epsilon: float = EPSILON) -> Tensor:
    """Mean of √(d² + ε²), the smooth L1 of super-resolution (LapSRN, arXiv 1704.03915).

    Not `kornia.losses.charbonnier_loss`, which is √(d² + 1) − 1: about d² / 2 for differences of images.

    Args:
        image, target: `[B, C, H, W]`, in 0..1 units.
        epsilon: where the term turns from quadratic to linear, in the same units, > 0.

    Returns:
        As `l1`; ε where the images are equal.

    Raises:
        TypeError, ValueError: as `l1`; a wrong epsilon.
    """
    check_number(epsilon, "epsilon", above=0)
    return (_difference(image, target).square() + epsilon**2).sqrt().mean()


def ssim(image: Tensor, target: Tensor) -> Tensor:
    """1 − mean structural similarity (Wang 2004) over the valid area, each channel by itself.

    Args:
        image, target: `[B, C, H, W]`, in 0..1 units, at least SSIM_WINDOW pixels a side.

    Returns:
        As `l1`; 0 where the images are equal, at most 2.

    Raises:
        TypeError, ValueError: as `l1`; smaller images.
    """
    check_pair(image, target, SSIM_WINDOW)
    with full_precision(image):
        image, target = at_least_float32(image), at_least_float32(target)
        similarity = ssim_map(image, target, SSIM_WINDOW, max_val=1.0, padding="valid")
    return 1.0 - similarity.mean()


def frequency(image: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of the Fourier coefficients (MIMO-UNet, arXiv 2108.05054).

    The transform is orthonormal, so that white noise of standard deviation s costs s·√π/2, much as in `l1`, while
    errors gathered in a few frequencies, as ringing and lost texture are, weigh differently from there.

    Args, Returns, Raises:
        As `l1`.
    """
    with full_precision(image):
        return torch.fft.fft2(_difference(image, target), norm="ortho").abs().mean()


PIXEL_LOSSES: dict[str, ImageLoss] = {"l1": l1, "l2": l2, "charbonnier": charbonnier}
CHANNELS = ("rgb", "y")


def pixel_loss(kind: str, channel: str = "rgb") -> ImageLoss:
    """The pixel loss of a name.

    Args:
        kind: one of `PIXEL_LOSSES`.
        channel: "rgb", or "y" for the loss of the luma of BT.601 alone, in studio range.

    Raises:
        ValueError: an unknown name or channel.
    """
    check_choice(kind, "pixel", list(PIXEL_LOSSES))
    check_choice(channel, "channel", CHANNELS)
    loss = PIXEL_LOSSES[kind]
    if channel == "rgb":
        return loss
    return lambda image, target: loss(rgb_to_y(at_least_float32(image)), rgb_to_y(at_least_float32(target)))


def full_precision(image: Tensor) -> torch.autocast:
    """Context in which nothing is computed in half precision on the device of `image`."""
    return torch.autocast(image.device.type, enabled=False)


def _difference(image: Tensor, target: Tensor) -> Tensor:
    check_pair(image, target)
    return at_least_float32(image) - at_least_float32(target)


def at_least_float32(image: Tensor) -> Tensor:
    """In float32, or as it is where that is finer."""
    return image.to(torch.promote_types(image.dtype, torch.float32))


def check_pair(image: Tensor, target: Tensor, smallest: int = 1) -> None:
    """Raises TypeError or ValueError unless both are float tensors [B, C, H, W] of one shape, `smallest` a side."""
    for name, value in (("image", image), ("target", target)):
        if not isinstance(value, Tensor) or not value.is_floating_point():
            got = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"{name}: expected a float tensor [B, C, H, W], got {got}")
    if image.ndim != 4 or 0 in image.shape or image.shape != target.shape:
        shapes = f"{tuple(image.shape)} and {tuple(target.shape)}"
        raise ValueError(f"image, target: expected two of one shape [B, C, H, W], got {shapes}")
    if min(image.shape[-2:]) < smallest:
        raise ValueError(f"image: expected at least {smallest}x{smallest} px, got {tuple(image.shape)}")
