"""What the tests of Train share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.model_management as management
import torch
from torch import Tensor

from progressive_upsampling.core.chain import Chain

Picture = Callable[..., Tensor]
QUICK = {"steps": 4, "batch": 2, "crop": 8, "precision": "fp32", "learning_rate": 1e-3, "validate_every": 2}


def weights(model: Chain) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def cancel_at(step: int) -> Callable[..., None]:
    """What a user's click in the middle of a step comes to: the server raises in the next report."""

    def hear(value: float, *_: Any, **__: Any) -> None:
        if value == step - 1:
            management.interrupt_current_processing()

    return hear
