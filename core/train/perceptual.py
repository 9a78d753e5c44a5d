"""Perceptual loss: the distance of VGG19's features (Johnson 2016, arXiv 1603.08155; before the ReLU as in ESRGAN)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from ..checks import check_choice, check_number
from .losses import full_precision, l1
from .vgg import LAYERS, VGG19, fingerprint, load_vgg, random_vgg

log = logging.getLogger(__name__)


def _real_esrgan() -> dict[str, float]:
    return {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0}


@dataclass(frozen=True)
class PerceptualConfig:
    """Which features are compared.

    Attributes:
        layers: weights by the name of the convolution, conv1_1..conv5_4; those of Real-ESRGAN (arXiv 2107.10833).
        seed: of the random trunk that stands in where there is no file with trained weights.
    """

    layers: dict[str, float] = field(default_factory=_real_esrgan)
    seed: int = 0

    def __post_init__(self) -> None:
        for layer, weight in self.layers.items():
            check_choice(layer, "layers", list(LAYERS))
            check_number(weight, f"layers.{layer}", 0)
        if not any(self.layers.values()):
            raise ValueError("layers: expected one with a weight above 0, got none")


class PerceptualLoss(nn.Module):
    """Σ weight · mean |features(image) − features(target)| over the layers.

    Attributes:
        layers: weights of the layers that are compared.
        label: what the features are, for logs, history and checkpoints; a random trunk is called so.
    """

    def __init__(self, trunk: VGG19, layers: Mapping[str, float], label: str) -> None:
        """Compares the features of a trunk.

        Args:
            trunk: at least one of the layers must be in it.
            layers: weights by name; those beyond the trunk, or of weight 0, are left out, the others stay as
                they are.
            label: what the trunk is.

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
            known = self._features(target)
        found = self._features(image)
        terms = [weight * l1(found[layer], known[layer]) for layer, weight in self.layers.items()]
        return torch.stack(terms).sum()

    def _features(self, image: Tensor) -> dict[str, Tensor]:
        with full_precision(image):
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
        trunk = random_vgg(config.seed, deepest)
        loss = PerceptualLoss(trunk, config.layers, f"random VGG19, seed {config.seed}, not trained")
    else:
        trunk = load_vgg(path)
        label = f"VGG19 from {Path(path).name} ({fingerprint(trunk)}), to {trunk.layers[-1]}"
        loss = PerceptualLoss(trunk, config.layers, label)
    if path is None or set(loss.layers) != {layer for layer, weight in config.layers.items() if weight}:
        log.warning("perceptual: %s", loss.label)
    return loss
