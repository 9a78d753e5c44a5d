"""The denoising network: a U-Net preconditioned in the domain of residuals (article sections 2.3 and 2.4).

Notation: y = upsampled image, x = true image, d = x - y with root mean square sigma_r, n = unit Gaussian noise,
s(p) = sigma map. The state at time eta in (0, 1] is z = (1 - eta) d + sqrt(eta) s n, that is x_eta - y on the path
of ResShift (arXiv 2307.12348) with a noise map as UPSR (arXiv 2503.18512). With a = 1 - eta, b = sqrt(eta) s and
V = a² sigma_r² + b², the network F is wrapped so that its input and its target have unit variance, by the algebra
of Karras 2022 (arXiv 2206.00364, appendix B.6) applied to d instead of x:

    c_in = V^-1/2    c_skip = a sigma_r² / V    c_out = sigma_r b / sqrt(V)
    x_hat = y + c_skip z + c_out F(c_in z, y, ln(b / sigma_r), eta)

At eta = 1 this is y + sigma_r F, a regression; for eta -> 0 it is the identity y + z.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from .checks import check_choice, check_number
from .precision import autocast_dtype
from .row_stream import Chained, Joined, Local, Stream
from .unet import AttnUNet, UNetConfig

SIGMA_FLOOR = 1 / 255  # one grey level: keeps ln b finite


@dataclass(frozen=True)
class DenoiserConfig:
    """An AttnUNet and the statistics it was trained with.

    Attributes:
        unet: shape of the network; 8 channels in (state 3, image 3, log noise level 1, time 1) and 3 out.
        sigma_r: root mean square of x - y over the training data, in units of the 0..1 image.
        conditioned: whether it was trained to estimate from a conditioning image, too; else it is for blind use alone.
        regression: whether its estimate without noise is better than the conditioning image. Else that image itself is
            the estimate of least error, and the network works on noise alone.
    """

    unet: UNetConfig = field(default_factory=UNetConfig)
    sigma_r: float = 0.04
    conditioned: bool = True
    regression: bool = True

    def __post_init__(self) -> None:
        check_number(self.sigma_r, "sigma_r", above=0)
        check_choice(self.conditioned, "conditioned", (False, True))
        check_choice(self.regression, "regression", (False, True))
        if (self.unet.in_channels, self.unet.out_channels) != (8, 3):
            got = (self.unet.in_channels, self.unet.out_channels)
            raise ValueError(f"unet: expected 8 channels in and 3 out, got {got}")


class Denoiser(nn.Module):
    """Estimates the true image from a noisy state and, when there is one, the clean image it was made from.

    An untrained denoiser estimates "no change": it returns y at eta = 1 and the noisy image in blind use.
    """

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.config = config
        self.unet = AttnUNet(config.unet)

    @property
    def halo(self) -> int:
        """Pixels of context around a tile."""
        return self.unet.halo

    @property
    def align(self) -> int:
        """Tiles begin at multiples of this many pixels."""
        return self.unet.align

    def forward(self, z: Tensor, y: Tensor, sigma: Tensor, eta: Tensor) -> Tensor:
        """The estimate x_hat of the true image, not clamped.

        Args:
            z: state, [B, 3, H, W], in units of the 0..1 image.
            y: conditioning image, [B, 3, H, W] in 0..1.
            sigma: s(p), [B or 1, 1, H, W].
            eta: time in (0, 1], [B or 1, 1, 1, 1].
        """
        return self.whole(Refined(self, eta), z, y, sigma)

    def regression(self, y: Tensor) -> Tensor:
        """The estimate of the true image from y alone, not clamped: that of eta = 1 without noise, y + sigma_r F.

        Args:
            y: [B, 3, H, W] in 0..1; itself the estimate where the config has no regression.
        """
        return self.whole(Regressed(self), y) if self.config.regression else y

    def blind(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        """The estimate from a noisy image alone, not clamped: x_hat = noisy + tau F, tau = sqrt(sigma_r² + s²).

        What is wrong with such an image is both the upsampler's error and the noise, hence tau; the network is
        told the noise level as a map (FFDNet, arXiv 1710.04026) and the time eta = 0, which no state has.
        """
        return self.whole(Blind(self), noisy, sigma)

    def blind_error(self, sigma: Tensor) -> Tensor:
        """tau, how far a noisy image is from the truth: the upsampler's error and the noise, in one."""
        return (self.config.sigma_r**2 + sigma**2).sqrt()

    def coefficients(self, sigma: Tensor, eta: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(c_skip, c_out, c_in, b) as maps [B, 1, H, W]; b is held above one grey level."""
        sigma_r, a = self.config.sigma_r, 1 - eta
        b = (eta.sqrt() * sigma).clamp(min=SIGMA_FLOOR)
        variance = (a * sigma_r) ** 2 + b**2
        return a * sigma_r**2 / variance, sigma_r * b * variance.rsqrt(), variance.rsqrt(), b

    def whole(self, estimate: Estimate, *images: Tensor) -> Tensor:
        """An estimate made of whole images."""
        return estimate.result(self.unet(self._joined(*estimate.planes(*images))).float(), *images)

    def stream(self, estimate: Estimate, channels: Sequence[int], height: int, width: int) -> Stream:
        """An estimate made of the rows of images, see `core.row_stream`.

        Args:
            estimate: which one.
            channels: of each image.
            height, width: of the images.
        """

        def planes(rows: Tensor) -> Tensor:
            return self._joined(*estimate.planes(*rows.split(list(channels), 1)))

        def result(found: Tensor, rows: Tensor) -> Tensor:
            return estimate.result(found.float(), *rows.split(list(channels), 1))

        return Joined(result, Chained(Local(planes), self.unet.stream(height, width)))

    def _joined(self, state: Tensor, image: Tensor, level: Tensor, eta: Tensor) -> Tensor:
        """What the network sees: the state, the image, the logarithm of the noise level, the time."""
        B, _, H, W = image.shape
        log_level = (level / self.config.sigma_r).log().expand(B, 1, H, W)
        planes = (state.expand_as(image), image - 0.5, log_level, eta.expand(B, 1, H, W))
        # in the format of the first convolution already: half the memory to join and to sort into cells
        dtype = autocast_dtype(image.device) or image.dtype
        return torch.cat([plane.to(dtype) for plane in planes], 1)


Planes = tuple[Tensor, Tensor, Tensor, Tensor]


class Estimate(Protocol):
    """A way to ask the network for the true image, pixel by pixel but for the network itself."""

    def planes(self, *images: Tensor) -> Planes:
        """State, image, noise level and time that the network is shown."""
        ...

    def result(self, found: Tensor, *images: Tensor) -> Tensor:
        """The estimate, from what the network says."""
        ...


@dataclass(frozen=True)
class Refined:
    """See `Denoiser.forward`; the images are z, y and sigma."""

    model: Denoiser
    eta: Tensor

    def planes(self, *images: Tensor) -> Planes:
        """See `Estimate`."""
        z, y, sigma = images
        _, _, c_in, b = self.model.coefficients(sigma, self.eta)
        return c_in * z, y, b, self.eta

    def result(self, found: Tensor, *images: Tensor) -> Tensor:
        """See `Estimate`."""
        z, y, sigma = images
        c_skip, c_out, _, _ = self.model.coefficients(sigma, self.eta)
        return y + c_skip * z + c_out * found


@dataclass(frozen=True)
class Regressed:
    """See `Denoiser.regression`; the image is y."""

    model: Denoiser

    def planes(self, *images: Tensor) -> Planes:
        """See `Estimate`."""
        (y,) = images
        one = y.new_ones(1, 1, 1, 1)
        return 0 * one, y, SIGMA_FLOOR * one, one

    def result(self, found: Tensor, *images: Tensor) -> Tensor:
        """See `Estimate`."""
        (y,) = images
        return y + self.model.config.sigma_r * found


@dataclass(frozen=True)
class Blind:
    """See `Denoiser.blind`; the images are the noisy one and sigma."""

    model: Denoiser

    def planes(self, *images: Tensor) -> Planes:
        """See `Estimate`."""
        noisy, sigma = images
        zero = noisy.new_zeros(1, 1, 1, 1)
        return zero, noisy, self.model.blind_error(sigma), zero

    def result(self, found: Tensor, *images: Tensor) -> Tensor:
        """See `Estimate`."""
        noisy, sigma = images
        return noisy + self.model.blind_error(sigma) * found
