"""Perceptual loss: the distance of VGG19's features (Johnson 2016, arXiv 1603.08155; before the ReLU as in ESRGAN)."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from ..checks import check_choice, check_integer, check_number
from ..precision import DTYPES
from .losses import l1
from .seeds import MAX_SEED
from .setup import training_autocast, training_dtype
from .vgg import LAYERS, POOLS, VGG19, fingerprint, load_vgg, random_vgg

log = logging.getLogger(__name__)


def _real_esrgan() -> dict[str, float]:
    return {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0}


@dataclass(frozen=True)
class PerceptualConfig:
    """Which features are compared.

    Attributes:
        layers: weights by the name of the convolution, conv1_1..conv5_4; those of Real-ESRGAN (arXiv 2107.10833).
        seed: 0..2^32-1, of the random trunk that stands in where there is no file with trained weights.
        relative: whether distances are in units of the trunk's own features. Trunks differ there by factors of
            hundreds (the original VGG19 sees 0..255, torchvision's about -2..2), and weights of one would not do
            for another; False takes features as they are, for weights from the literature.
        pool: "max", or "average" against grids, see `vgg.VGG19`.
        dtype: number format of the trunk's passes, see `setup.training_dtype`; distances are sums in float32.
    """

    layers: dict[str, float] = field(default_factory=_real_esrgan)
    seed: int = 0
    relative: bool = True
    pool: str = "max"
    dtype: str = "fp32"

    def __post_init__(self) -> None:
        for layer, weight in self.layers.items():
            check_choice(layer, "layers", list(LAYERS))
            check_number(weight, f"layers.{layer}", 0)
        if not any(self.layers.values()):
            raise ValueError("layers: expected one with a weight above 0, got none")
        check_integer(self.seed, "seed", 0, MAX_SEED)
        check_choice(self.pool, "pool", list(POOLS))
        check_choice(self.dtype, "dtype", DTYPES)


class PerceptualLoss(nn.Module):
    """Σ weight / unit · mean |features(image) − features(target)| over the layers.

    Attributes:
        layers: weights of the layers that are compared.
        units: of their features; 1 where they are taken as they are.
        label: what the features are, for logs, history and checkpoints; a random trunk is called so.
    """

    def __init__(
        self, trunk: VGG19, layers: Mapping[str, float], label: str, relative: bool = True, dtype: str = "fp32"
    ) -> None:
        """Compares the features of a trunk.

        Args:
            trunk: at least one of the layers must be in it.
            layers: weights by name; those beyond the trunk, or of weight 0, are left out, the others stay as
                they are.
            label: what the trunk is.
            relative: whether the unit of a layer is the mean magnitude of its features of a fixed picture.
            dtype: number format of the passes.

        Raises:
            ValueError: the trunk has none of the layers.
        """
        super().__init__()
        wanted = {layer: weight for layer, weight in layers.items() if weight}
        self.layers = {layer: weight for layer, weight in wanted.items() if layer in trunk.layers}
        missing = [layer for layer in wanted if layer not in trunk.layers]
        if not self.layers:
            raise ValueError(
                f"layers: expected one of {trunk.layers[0]}..{trunk.layers[-1]}, where the trunk ends, "
                f"got {', '.join(missing)}"
            )
        self.trunk = trunk.eval().requires_grad_(False)
        self._dtype = dtype
        self.units = dict.fromkeys(self.layers, 1.0)
        if relative:
            features = self._features(_reference(), "fp32")
            # a trunk that is all zeros at a layer has nothing to compare there
            self.units = {layer: float(value.abs().mean()) or 1.0 for layer, value in features.items()}
        self.label = label + (f"; without {', '.join(missing)}" if missing else "")

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """The loss.

        Args:
            image: `[B, 3, H, W]`, RGB in 0..1 units; gradients reach it.
            target: the same shape; taken as given.

        Returns:
            A tensor without axes, float32.
        """
        with torch.no_grad():
            known = self._features(target, self._dtype)
        found = self._features(image, self._dtype)
        terms = [w / self.units[layer] * l1(found[layer], known[layer]) for layer, w in self.layers.items()]
        return torch.stack(terms).sum()

    def _features(self, image: Tensor, dtype: str) -> dict[str, Tensor]:
        with training_autocast(image.device, training_dtype(dtype, image.device)):
            image = image.float().contiguous(memory_format=torch.channels_last)
            return self.trunk(image, list(self.layers))


def perceptual_loss(config: PerceptualConfig, path: str | Path | None = None) -> PerceptualLoss:
    """The perceptual loss of a config.

    Args:
        config: which features.
        path: file of VGG19's weights, see `vgg`; None takes random ones.

    Raises:
        CheckpointError: the file cannot be used.
        ValueError: it ends before the first of the layers.
    """
    deepest = max(list(LAYERS).index(layer) for layer, weight in config.layers.items() if weight) + 1
    if path is None:
        trunk = random_vgg(config.seed, deepest, config.pool)
        label = f"random VGG19, seed {config.seed}, not trained"
    else:
        trunk = load_vgg(path, config.pool)
        label = f"VGG19 from {Path(path).name} ({fingerprint(trunk)}), to {trunk.layers[-1]}"
    loss = PerceptualLoss(trunk, config.layers, label, config.relative, config.dtype)
    if path is None or set(loss.layers) != {layer for layer, weight in config.layers.items() if weight}:
        log.warning("perceptual: %s", loss.label)
    return loss


def same_trunk(label: str, other: str) -> bool:
    """Whether two labels tell of the same features, whatever their files are called.

    Args:
        label: of `PerceptualLoss`.
        other: the same.
    """
    return _unnamed(label) == _unnamed(other)


def _unnamed(label: str) -> str:
    return re.sub(r"^VGG19 from .* (?=\([0-9a-f]{8}\), to conv)", "VGG19 ", label, flags=re.DOTALL)


def _reference() -> Tensor:
    """Noise with the spectrum of photographs, amplitude 1 / frequency; `[1, 3, 64, 64]` in 0..1, always the same."""
    side = 64
    white = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    frequency = torch.hypot(torch.fft.fftfreq(side)[:, None], torch.fft.fftfreq(side)).double()
    frequency[0, 0] = math.inf  # no mean
    noise = torch.fft.ifft2(torch.fft.fft2(white) / frequency).real
    return (0.5 + 0.2 * noise / noise.std()).clamp(0, 1).float()
