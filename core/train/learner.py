"""A network in training: its optimiser, the learning rates of its parts, its gradient."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from .muon import Muon, matrices

OPTIMIZERS = ("adam", "muon")
BETAS = (0.9, 0.99)  # a shorter memory of squares than Adam's own: losses here change their size with the phase


class Learner:
    """A network and the optimiser that trains it.

    Args:
        name: prefix of its tensors in the run's state; "" for the model itself.
        network: the weights.
        clip: largest norm of the gradient.
        scaler: of the losses, see `setup.loss_scaler`.
        method: of `OPTIMIZERS`.

    Attributes:
        optimizer: of the parameters that are trained.
    """

    def __init__(
        self, name: str, network: nn.Module, clip: float, scaler: torch.amp.GradScaler, method: str = "adam"
    ) -> None:
        self.name, self.network, self.clip, self.scaler, self.method = name, network, clip, scaler, method
        self._trained: list[nn.Parameter] = []
        self.begin({})

    @property
    def prefix(self) -> str:
        """Of the optimiser's tensors in the run's state."""
        return f"{self.name}_optimizer" if self.name else "optimizer"

    def begin(self, rates: Mapping[str, float]) -> None:
        """Starts a phase with a new optimiser.

        Args:
            rates: multipliers of the learning rate by pattern of a parameter's name, see `PhaseConfig.rates`.

        Raises:
            ValueError: a pattern that no parameter matches, or all parameters frozen.
        """
        groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
        weights = {id(weight) for weight in matrices(self.network)} if self.method == "muon" else set()
        for name, parameter in self.network.named_parameters():
            rate = rate_of(name, rates)
            parameter.requires_grad_(rate > 0)
            if rate > 0:
                groups.setdefault((rate, id(parameter) in weights), []).append(parameter)
        check_rates(self.network, rates)
        self._trained = [parameter for group in groups.values() for parameter in group]
        self.optimizer = _optimizer(
            self.method,
            [{"params": group, "multiplier": rate, "matrices": matrix} for (rate, matrix), group in groups.items()],
            # one kernel for all parameters, where it is known to be there
            fused=all(parameter.device.type in ("cpu", "cuda") for parameter in self._trained),
        )

    def set_rate(self, rate: float) -> None:
        """The learning rate of the next step, before the multipliers."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["multiplier"]

    def clear(self) -> None:
        """Forgets the gradient."""
        self.optimizer.zero_grad(set_to_none=True)

    def backward(self, loss: Tensor) -> None:
        """Adds the gradient of a loss."""
        self.scaler.scale(loss).backward()

    def clipped(self) -> float:
        """Clips the gradient; returns the norm that it had before."""
        self.scaler.unscale_(self.optimizer)
        return float(nn.utils.clip_grad_norm_(self._trained, self.clip))

    def step(self) -> None:
        """Takes the step of the gradient, once it is clipped."""
        self.scaler.step(self.optimizer)


def _optimizer(method: str, groups: list[dict[str, Any]], fused: bool) -> torch.optim.Adam:
    if method == "muon":
        return Muon(groups, lr=1e-4, betas=BETAS)
    return torch.optim.Adam(groups, lr=1e-4, betas=BETAS, fused=fused or None)


def rate_of(name: str, rates: Mapping[str, float]) -> float:
    """The multiplier of a parameter: that of the last pattern that matches its name, else 1."""
    found = 1.0
    for pattern, rate in rates.items():
        if fnmatchcase(name, pattern):
            found = rate
    return found


def check_rates(network: nn.Module, rates: Mapping[str, float]) -> None:
    """Checks multipliers against a network.

    Raises:
        ValueError: a pattern that no parameter matches, or all parameters frozen.
    """
    for pattern in rates:
        check_pattern(pattern, network, "rates")
    names = [name for name, _ in network.named_parameters()]
    if not any(rate_of(name, rates) > 0 for name in names):
        raise ValueError(f"rates: expected some parameter that is trained, got {dict(rates)}")


def check_pattern(pattern: str, network: nn.Module, argument: str) -> None:
    """Checks a pattern of parameters' names against a network.

    Args:
        pattern: as the shell has them.
        network: of the parameters.
        argument: name for the message.

    Raises:
        ValueError: no parameter matches.
    """
    names = [name for name, _ in network.named_parameters()]
    if not any(fnmatchcase(name, pattern) for name in names):
        raise ValueError(f"{argument}: expected patterns of parameters such as {names[0]!r}, got {pattern!r}")
