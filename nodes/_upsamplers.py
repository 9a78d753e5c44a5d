"""What nodes offer to make pixels with, by name, and the networks behind the names."""

from __future__ import annotations

import torch
from torch import nn

from ..core.checkpoint import CheckpointError, bundled
from ..core.resample import METHODS
from ..core.upsamplers.registry import load_upsampler, upsampler_config
from . import _models as models
from . import _runtime as runtime

MODEL = "model"  # the upsampler of the progressive model
NETWORKS = ("espcn", "fsrcnn", "edsr")
CHOICES = (MODEL, *METHODS, *NETWORKS)
BUNDLED = "bundled"


def network_of(kind: str, ratio: float, checkpoint: str = BUNDLED) -> nn.Module:
    """A single upsampler, ready to run.

    Args:
        kind: of `NETWORKS`.
        ratio: how many times larger the result is to be, for the choice among the bundled ones' scales.
        checkpoint: a file of models/progressive_upsampling in place of the bundled ones.

    Raises:
        CheckpointError: none is bundled, or the file holds something else.
    """
    if checkpoint == BUNDLED:
        scales = sorted(int(name[len(kind) + 2 :]) for name in bundled() if _is_of(name, kind))
        if not scales:
            raise CheckpointError(f"checkpoint: no {kind} is bundled; choose a file of models/{runtime.FOLDER}")
        best = next((scale for scale in scales if scale >= ratio), scales[-1])
        checkpoint = f"{kind}_x{best}"
    network = models.load_once(runtime.model_path(checkpoint), load_upsampler)
    found = upsampler_config(network)["kind"]
    if found != kind:
        raise CheckpointError(f"checkpoint: expected one of {kind}, {checkpoint!r} is of {found}")
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def _is_of(name: str, kind: str) -> bool:
    return name.startswith(f"{kind}_x") and name[len(kind) + 2 :].isdigit()
