"""Multi-scale fusion (article 2.5): one image from several, weights that sum to 1 at every pixel."""

from __future__ import annotations

from .dynamic_weights import DynamicWeights, DynamicWeightsConfig

__all__ = ["DynamicWeights", "DynamicWeightsConfig"]
