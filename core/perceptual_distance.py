"""PD-squeeze: how far apart two pictures look, by the features of SqueezeNet 1.0.

It is the distance of Zhang 2018 (arXiv 1801.03924, equation 1) without the weights that were learned there for each
channel, w = 1, so it is not LPIPS and its figures cannot be compared with LPIPS's. Lower is better. No loss of training
is made of it: who judges has not taught.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import check_image, check_integer
from .precision import autocast
from .squeezenet import SqueezeNet

# The seven that Zhang 2018 takes of SqueezeNet 1.1, by name: what goes into each maximum, and every fire module after.
LAYERS = ("conv1", "fire3", "fire5", "fire6", "fire7", "fire8", "fire9")
_EPSILON = 1e-10  # where all channels are 0, the normalised features are 0 too


class PerceptualDistance(nn.Module):
    """Mean over layers of `feature_distance`, of conv1, fire3 and fire5..fire9.

    Figures of one file of weights cannot be compared with those of another.

    Args:
        trunk: see `load_squeezenet`.

    Attributes:
        name: what tables call it.
    """

    name = "PD-squeeze"

    def __init__(self, trunk: SqueezeNet) -> None:
        super().__init__()
        self.trunk = trunk.eval().requires_grad_(False)

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        """The distance of two images as they are; see `measure` for the protocol.

        Args:
            image: `[B, 1 or 3, H, W]`, float, 0..1, at least 21 pixels a side; grey is seen as RGB. Gradients reach it.
            reference: of the same shape.

        Returns:
            `[B]` float32, 0..2: 0 for equal images. Computed in float32 under any autocast; on CUDA, in TF32
            where torch is let (`torch.backends.cudnn.allow_tf32`).

        Raises:
            TypeError, ValueError: as `check_image`; shapes that differ; images that are too small.
        """
        _check(image, reference)
        with autocast(image.device, torch.float32):
            a, b = (self._features(x) for x in (image, reference))
            return torch.stack([feature_distance(a[layer], b[layer]) for layer in LAYERS]).mean(dim=0)

    def _features(self, image: Tensor) -> dict[str, Tensor]:
        image = image.float().expand(-1, 3, -1, -1)
        return self.trunk(image.contiguous(memory_format=torch.channels_last), LAYERS)  # faster on CPUs

    @torch.no_grad()
    def measure(self, image: Tensor, reference: Tensor, *, crop: int = 0) -> Tensor:
        """The distance by the protocol of `metrics`: of 8-bit RGB, without the border.

        Args:
            image: `[B, 1 or 3, H, W]`, float, 0..1 (clamped and quantised to 8 bits here), any device.
            reference: the truth, of the same shape.
            crop: pixels left out at each border; the protocol leaves out as many as the scale.

        Returns:
            `[B]` float64 on the CPU.

        Raises:
            TypeError, ValueError: as `forward`, after the crop; a crop that leaves nothing.
        """
        _check(image, reference)
        check_integer(crop, "crop", 0)
        H, W = image.shape[-2:]
        if 2 * crop >= min(H, W):
            raise ValueError(f"crop: expected less than half of {H} x {W} pixels, got {crop}")
        device = next(self.trunk.parameters()).device
        a, b = (_in_8_bits(x.to(device))[..., crop : H - crop, crop : W - crop] for x in (image, reference))
        return self(a, b).double().cpu()


def feature_distance(a: Tensor, b: Tensor) -> Tensor:
    """Squared distance of features, each position's scaled to length 1 over the channels; mean over positions.

    Zhang 2018, equation 1, one layer, w = 1.

    Args:
        a, b: `[B, C, H, W]`.

    Returns:
        `[B]`, 0..4; 0..2 for features that are nowhere negative.
    """
    a, b = (F.normalize(x, dim=1, eps=_EPSILON) for x in (a, b))
    return (a - b).square().sum(dim=1).mean(dim=(1, 2))


def _check(image: Tensor, reference: Tensor) -> None:
    check_image(image, "image", channels=(1, 3))
    check_image(reference, "reference", channels=(1, 3))
    if image.shape != reference.shape:
        raise ValueError(f"reference: expected {tuple(image.shape)} as image, got {tuple(reference.shape)}")


def _in_8_bits(image: Tensor) -> Tensor:
    return (image.float().clamp(0.0, 1.0) * 255.0 + 0.5).floor() / 255.0
