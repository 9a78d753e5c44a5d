"""What a seed of a training run may be."""

from __future__ import annotations

MAX_SEED = 2**32 - 1  # torch's CPU generator keeps no more bits of a seed
