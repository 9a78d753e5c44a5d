"""Training of a single denoiser for blind use: Gaussian noise of mixed strength and shape is taken out of pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..denoise import denoise
from ..denoiser import Denoiser, DenoiserConfig
from ..denoiser_file import save_denoiser
from ..noise import inject_noise
from .config import LossConfig
from .losses import ImageTerms
from .noise_maps import StepNoise, training_map
from .phase import PhaseConfig
from .share import Share

SIGMA = 25 / 255  # of the noise that is validated with and shown


class DenoiserTask:
    """Training of a denoiser on pictures at their own size.

    Args:
        config: its shape.
    """

    def __init__(self, config: DenoiserConfig) -> None:
        self.config = replace(config, conditioned=False)  # what it is from now on, whatever it was trained for before

    def build(self) -> Denoiser:
        """The network at birth."""
        return Denoiser(self.config)

    def factors(self, stages: int) -> tuple[int, ...]:
        """Nothing is enlarged."""
        return (1,)

    def losses(self, model: nn.Module, share: Share, loss: LossConfig, image_terms: ImageTerms) -> dict[str, Tensor]:
        """The weighted share of each term: "blind" as in a chain, on every crop, and those on pictures."""
        target = share.batch.scales[-1]
        denoiser, sigma_r = _denoiser(model), self.config.sigma_r
        random = StepNoise(share.seed, 1, share.size, list(share.items), target)
        sigma = sigma_r * training_map(target, random, share.noise)
        output = denoiser.blind(target + sigma * random.normal(), sigma)
        terms = image_terms(output, target)
        if loss.blind:
            terms["blind"] = sigma_r * ((output - target).abs() / denoiser.blind_error(sigma)).mean()
        return {name: share.weight * value for name, value in terms.items()}

    def outputs(self, model: nn.Module, image: Tensor, stages: int, dtype: str) -> list[Tensor]:
        """What the model makes of an image with noise of `SIGMA`, the same at every call: [B, 3, H, W] in 0..1."""
        denoiser = _denoiser(model)
        noisy = inject_noise(image, SIGMA).to(next(model.parameters()).device)
        sigma = torch.full((1, 1, *image.shape[-2:]), SIGMA, device=noisy.device)
        return [denoise(denoiser, noisy, sigma, dtype=dtype).to(image.device)]

    def shown(self, image: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
        """The picture with the noise of `outputs`."""
        return {"noisy": inject_noise(image, SIGMA).clamp(0, 1)}

    def inherit(self, model: nn.Module, average: nn.Module, phase: PhaseConfig) -> None:
        """There are no other stages."""

    def save(self, model: nn.Module, path: Path, provenance: Mapping[str, Any]) -> None:
        """Writes a checkpoint for use."""
        save_denoiser(_denoiser(model), path, provenance=provenance)


def _denoiser(model: nn.Module) -> Denoiser:
    if not isinstance(model, Denoiser):
        raise TypeError(f"model: expected a Denoiser, got {type(model).__name__}")
    return model
