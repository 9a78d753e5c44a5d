"""What the checkpoints of a run say of themselves."""

from __future__ import annotations

import collections
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
        data_licence: of the training pictures.
        command: that begins such a run, with DATA, VAL and RUN in the place of folders; empty where none does.
    """

    recipe: str = "custom"
    init: str = ""
    licence: str = "not stated"
    data_licence: str = "not stated"
    command: str = ""

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
    validation: Pictures | None = None,
) -> dict[str, Any]:
    """A JSON object for a checkpoint; of folders of pictures it holds the names alone, not the paths.

    Args:
        about: what the user says of the run.
        config: of the run.
        counters: where the run is.
        pictures: the training data.
        device, dtype: what it is trained on and in.
        validation: the validation data; None where there is none.
    """
    begun = f", from {about.init}" if about.init else ""
    told = {"folders": folders_of(pictures), "validation": _named(validation)}
    told["validated"] = _validated(config, counters)
    alone = "chain" if config.denoiser is None else "denoiser"
    kind = alone if config.upsampler is None else str(config.upsampler["kind"])
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
        **{key: value for key, value in told.items() if value},
        "config": to_dict(config.without_paths()),
    }


def folders_of(pictures: Pictures) -> dict[str, int]:
    """How many pictures are in each folder below the one given; empty where they are not in several."""
    counts = collections.Counter(name.split("/")[0] for name in pictures.names if "/" in name)
    loose = len(pictures) - counts.total()
    return dict(sorted(counts.items())) | ({pictures.name: loose} if loose else {}) if counts else {}


def _named(pictures: Pictures | None) -> dict[str, Any] | None:
    return None if pictures is None else {"name": pictures.name, "pictures": len(pictures)}


def _validated(config: TrainConfig, counters: Counters) -> dict[str, Any] | None:
    """The best score so far, and after how many steps."""
    if counters.best is None:
        return None
    measure = {"psnr": "Y-PSNR", "ssim": "Y-SSIM", "pd": "PD-squeeze"}[config.select]
    score = -counters.best if config.select == "pd" else counters.best
    return {"measure": measure, "score": round(score, 4), "steps": counters.best_step}
