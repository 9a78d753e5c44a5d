"""What the checkpoints of a run say of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import torch

from ..config import to_dict
from .config import TrainConfig
from .hardware import describe
from .pictures import Pictures
from .state import Counters


@dataclass(frozen=True)
class About:
    """What a run's models say of themselves beyond what the trainer knows.

    Attributes:
        recipe: name of the recipe.
        init: name of the model it started from; empty for one at birth.
        licence: of the weights.
    """

    recipe: str = "custom"
    init: str = ""
    licence: str = "not stated"

    def completed(self, provenance: Mapping[str, Any]) -> About:
        """This, with what is left at its default taken from the provenance of the run that goes on."""
        mine = to_dict(self)
        told = {key: provenance[key] for key in mine if isinstance(provenance.get(key), str)}
        return About(**(mine | told | {key: value for key, value in mine.items() if value != getattr(About, key)}))


def provenance(
    about: About,
    config: TrainConfig,
    counters: Counters,
    pictures: Pictures,
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, Any]:
    """A JSON object for a checkpoint; of the folder of pictures it holds the name alone, not the path.

    Args:
        about: what the user says of the run.
        config: of the run.
        counters: where the run is.
        pictures: the training data.
        device, dtype: what it is trained on and in.
    """
    begun = f", from {about.init}" if about.init else ""
    kind = "chain" if config.upsampler is None else str(config.upsampler["kind"])
    return {
        "description": f"{kind} trained for {counters.step} steps by recipe {about.recipe} on {pictures.name}{begun}",
        "data": [pictures.name],
        "pictures": len(pictures),
        **to_dict(about),
        "steps": counters.step,
        "seed": config.seed,
        "hours": round(counters.seconds / 3600, 3),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "hardware": describe(device),
        "dtype": str(dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "config": to_dict(config),
    }
