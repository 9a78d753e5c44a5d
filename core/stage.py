"""One stage of the chain: upsampler, noise controller, denoiser, skip and fusion, each usable by itself.

The graph of separate nodes and the chain call the same methods, so that they give the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .adaptive_noise import NoiseController, NoiseControllerConfig, adaptive_sigma
from .checks import check_image, check_multiplier, check_number, check_size
from .denoise import denoise, regress
from .denoiser import Denoiser, DenoiserConfig
from .dynamic_weights import DynamicWeights, DynamicWeightsConfig
from .fusion import check_images, fused_size
from .layout import map_at, through_rgb, through_rgb_only
from .merge import OnBand, fuse_in_bands, merge_in_bands, skip_in_bands
from .precision import autocast, resolve_dtype
from .progress import OnStep, Progress
from .residual import SkipWeights, SkipWeightsConfig
from .tiling import run_tiled
from .transparency import spread_colour
from .upsample import Enlarge, upsample
from .upsamplers import build_upsampler

CONTROLLER_TILE = 1024  # pixels: it is some 16 channels wide


def _direct_edsr() -> dict[str, Any]:
    return {"kind": "edsr", "scale": 2, "width": 64, "blocks": 8, "tail": "direct"}


@dataclass(frozen=True)
class StageConfig:
    """The parts of a stage.

    Attributes:
        upsampler: what `build_upsampler` takes: the kind and that kind's config.
        denoiser: the U-Net and its sigma_r.
        controller: the learned noise controller.
        fusion: the net that weighs the scales.
        skip: the bands of the residual skip.
        kappa: noise at strength 1 in units of the error that the controller expects.
    """

    upsampler: dict[str, Any] = field(default_factory=_direct_edsr)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    controller: NoiseControllerConfig = field(default_factory=NoiseControllerConfig)
    fusion: DynamicWeightsConfig = field(default_factory=DynamicWeightsConfig)
    skip: SkipWeightsConfig = field(default_factory=SkipWeightsConfig)
    kappa: float = 1.0

    def __post_init__(self) -> None:
        check_number(self.kappa, "kappa", above=0)


class Stage(nn.Module):
    """The trained parts of one stage. At birth it equals bicubic interpolation."""

    def __init__(self, config: StageConfig) -> None:
        super().__init__()
        self.config = config
        self.upsampler = build_upsampler(config.upsampler)
        self.controller = NoiseController(config.controller)
        self.denoiser = Denoiser(config.denoiser)
        self.weights = DynamicWeights(config.fusion)
        self.skip_weights = SkipWeights(config.skip)

    def upsample(
        self,
        image: Tensor,
        size: tuple[int, int],
        *,
        method: str | nn.Module | Enlarge | None = None,
        tile: int | None = None,
        dtype: str = "auto",
        on_step: OnStep | None = None,
    ) -> Tensor:
        """The image at `size` by the stage's own upsampler, or by `method`. See `core.upsample.upsample`."""
        chosen = self.upsampler if method is None else method
        return upsample(image, size, chosen, tile=tile, dtype=dtype, on_step=on_step)

    def sigma(self, image: Tensor, mode: str = "learned", strength: float = 1.0) -> Tensor:
        """The sigma map of an upsampled image, [B, 1, H, W]: kappa times `core.adaptive_noise.adaptive_sigma`."""

        def controller(image: Tensor) -> Tensor:
            net = self.controller
            return run_tiled(net, [image], halo=net.halo, align=net.align, tile=CONTROLLER_TILE)

        sigma_r, kappa = self.config.denoiser.sigma_r, self.config.kappa
        # kornia makes a tensor on torch's default device
        with torch.no_grad(), autocast(image.device, torch.float32), image.device:
            return adaptive_sigma(image, mode, strength * kappa, sigma_r, controller)

    def denoise(
        self,
        noisy: Tensor,
        sigma: Tensor,
        conditioning: Tensor | None = None,
        *,
        steps: int = 1,
        detail: float = 0.0,
        detail_mask: Tensor | None = None,
        blind: Denoiser | None = None,
        tile: int | None = None,
        dtype: str = "auto",
        on_step: OnStep | None = None,
    ) -> Tensor:
        """The denoised image; alpha is that of `noisy`, the mask may have any size. See `core.denoise.denoise`."""
        check_image(noisy, "noisy", (1, 2, 3, 4))
        known = where = None
        if conditioning is None:
            noisy = spread_colour(noisy)  # beside a conditioning image it stays what was made of that
        else:
            check_image(conditioning, "conditioning")
            known = through_rgb_only(conditioning)
        if detail_mask is not None:
            check_multiplier(detail_mask, "detail_mask")
            # clamped: the weights of bilinear add up to 1 only nearly
            where = map_at(detail_mask, (noisy.shape[2], noisy.shape[3])).clamp(max=1)

        def run(rgb: Tensor) -> Tensor:
            return denoise(
                self.denoiser,
                rgb,
                sigma,
                known,
                steps=steps,
                detail=detail,
                detail_mask=where,
                blind=blind,
                tile=tile,
                dtype=dtype,
                on_step=on_step,
            )

        return through_rgb(noisy, run)

    def regress(
        self,
        image: Tensor,
        *,
        tile: int | None = None,
        dtype: str = "auto",
        on_step: OnStep | None = None,
        overwrite: bool = False,
    ) -> Tensor:
        """What `denoise` gives without noise; the image may lose its values where `overwrite` says so."""

        def run(rgb: Tensor) -> Tensor:
            out = rgb if overwrite else None
            return regress(self.denoiser, rgb, tile=tile, dtype=dtype, on_step=on_step, out=out)

        return through_rgb(image, run)

    def skip(
        self,
        current: Tensor,
        previous: Tensor,
        strength: float = 1.0,
        *,
        on_step: OnStep | None = None,
        overwrite: bool = False,
    ) -> Tensor:
        """Brings learned bands of the previous image back into the current one. See `core.residual.skip`.

        Args:
            current, previous: as there; the current one may lose its values where `overwrite` says so.
            strength: 0..1, multiplier on the learned weights.
            on_step: progress; may raise to cancel.
            overwrite: whether `current`, float32, takes the result.
        """
        weights = self.skips(strength)
        with torch.no_grad():
            target = current if overwrite else current.to(torch.float32, copy=True)
            result = skip_in_bands(target, previous.float(), weights, on_band=_bands(on_step))
        return result.to(current.dtype)

    def skips(self, strength: float = 1.0) -> tuple[float, ...]:
        """The learned weights of the residual skip times a strength in 0..1, finest band first."""
        check_number(strength, "strength", 0, 1)
        with torch.no_grad():
            return tuple(strength * weight for weight in self.skip_weights().tolist())

    def fuse(
        self, images: Sequence[Tensor], size: tuple[int, int] | None = None, *, dtype: str = "auto"
    ) -> tuple[Tensor, Tensor]:
        """Fuses images by learned weights. See `core.fusion.fuse`.

        Args:
            images: at least two [B, C, H, W] in 0..1 of the same B and any C and sizes, coarse to fine.
            size: (height, width) of the result, None for that of the largest image.
            dtype: format the net computes in, see `precision.resolve_dtype`.

        Returns:
            the image with the channels of the last one (alpha is the last one's), and the weight maps [B, N, H, W].

        Raises:
            TypeError, ValueError: an argument is not as described.
        """
        check_images(images, alike=False)
        if size is None:
            size = fused_size(images)
        check_size(size)
        H, W = int(size[0]), int(size[1])
        *others, last = (spread_colour(image) for image in images)
        maps = torch.empty(last.shape[0], len(images), H, W, dtype=torch.float32, device=last.device)
        others = [through_rgb_only(image).float() for image in others]

        def run(rgb: Tensor) -> Tensor:
            out = torch.empty(rgb.shape[0], 3, H, W, dtype=torch.float32, device=rgb.device)
            with torch.no_grad(), autocast(rgb.device, resolve_dtype(dtype, rgb.device)):
                return fuse_in_bands([*others, rgb.float()], self.weights, out, maps)

        return through_rgb(last, run, (H, W)), maps

    def merge_over(
        self,
        current: Tensor,
        previous: Tensor,
        skip: float = 1.0,
        *,
        fusion: bool = True,
        dtype: str = "auto",
        on_step: OnStep | None = None,
    ) -> Tensor:
        """`skip`, then `fuse` of the previous image and the current one, which loses its values; without weight maps.

        Args:
            current: [B, C, H, W] float32 in 0..1.
            previous: [B, C, H', W'] float32 in 0..1.
            skip: 0..1, multiplier on the learned weights of the skip.
            fusion: whether the scales are fused.
            dtype: as `fuse`.
            on_step: progress; may raise to cancel.
        """
        if not fusion:
            return self.skip(current, previous, skip, on_step=on_step, overwrite=True)
        if current.shape[1] == 3 == previous.shape[1]:
            weights = self.skips(skip)
            with torch.no_grad(), autocast(current.device, resolve_dtype(dtype, current.device)):
                return merge_in_bands(current, previous, weights, self.weights, on_band=_bands(on_step))
        progress = Progress(on_step, 2)
        current = self.skip(current, previous, skip, on_step=progress.part(1), overwrite=True)
        other = through_rgb_only(spread_colour(previous))
        spread_colour(current, overwrite=True)

        def run(rgb: Tensor) -> Tensor:
            with torch.no_grad(), autocast(rgb.device, resolve_dtype(dtype, rgb.device)):
                return fuse_in_bands([other, rgb], self.weights, rgb, on_band=_bands(progress.part(1)))

        return through_rgb(current, run)


def _bands(on_step: OnStep | None) -> OnBand:
    report = Progress(on_step, 1).part(1)
    return lambda done, total: report(done, total, None)
