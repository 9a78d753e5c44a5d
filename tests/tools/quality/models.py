"""The bundled models, whatever their kind, as what is measured of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from progressive_upsampling.core.chain import Chain
from progressive_upsampling.core.checkpoint import bundled, read_metadata, resolve, tensor_digest
from progressive_upsampling.core.cli.models import Model, load_model
from progressive_upsampling.core.cost import chain_cost, upsampler_cost
from progressive_upsampling.core.denoiser import Denoiser
from progressive_upsampling.core.denoiser_file import load_denoiser
from progressive_upsampling.core.evaluate_denoising import DenoisingMethod, blind

CHAIN_SCALES = (2, 4, 8)


@dataclass(frozen=True)
class Bundled:
    """A bundled model.

    Attributes:
        name: as `bundled` tells it.
    """

    name: str

    @property
    def path(self) -> Path:
        """Its file."""
        return resolve(self.name)

    @cached_property
    def kind(self) -> str:
        """Of the checkpoint: "chain", "upsampler" or "denoiser"."""
        return read_metadata(self.path).get("kind", "")

    @cached_property
    def digest(self) -> str:
        """Of the tensors."""
        return tensor_digest(self.path)

    @cached_property
    def scales(self) -> tuple[int, ...]:
        """The factors that it is for; a denoiser has none."""
        if self.kind == "chain":
            return CHAIN_SCALES
        return () if self.kind == "denoiser" else (int(self.model.scale),)

    @property
    def denoises(self) -> bool:
        """Whether there is a denoiser in it."""
        return self.kind in ("chain", "denoiser")

    @cached_property
    def model(self) -> Model:
        """What enlarges."""
        return load_model(self.name, torch.device("cpu"))

    @cached_property
    def denoiser(self) -> Denoiser:
        """What takes noise out without a conditioning image."""
        return load_denoiser(self.name)

    def enlarge(self, dtype: str, **settings: Any) -> Callable[[Tensor, int], Tensor]:
        """As a method of `evaluate_folder`; settings are those of a chain."""

        def run(image: Tensor, scale: int) -> Tensor:
            size = (image.shape[2] * scale, image.shape[3] * scale)
            return self.model.stages(image, size, dtype=dtype, **settings)[-1]

        return run

    def clean(self, dtype: str) -> DenoisingMethod:
        """As a method of `evaluate_denoising`."""
        return blind(self.denoiser, dtype=dtype)

    def facts(self) -> dict[str, Any]:
        """What the file alone tells: kind, digest, parameters, and multiply-adds per output pixel."""
        told: dict[str, Any] = {"kind": self.kind, "sha256": self.digest}
        if self.kind == "denoiser":
            return told | {"parameters": sum(parameter.numel() for parameter in self.denoiser.parameters())}
        network = self.model.method
        if isinstance(network, str):
            raise TypeError(f"{self.name}: expected a network, got {network!r}")
        cost = chain_cost(network) if isinstance(network, Chain) else upsampler_cost(network)
        return told | {"parameters": cost.parameters, "macs": round(cost.macs)}


def bundled_models() -> list[Bundled]:
    """All of them, in the order of their names."""
    return [Bundled(name) for name in bundled()]
