"""Muon (Jordan 2024, "Muon: An optimizer for hidden layers in neural networks"): steps of orthogonal matrices.

Adam weighs every number of a gradient by itself. Muon takes a layer's gradient as the matrix that it is and steps
with the nearest one whose singular values are all 1, so that directions of small gradient are learned as fast as
those of large. ESPCN and FSRCNN gain much by it, denoisers in short runs, EDSR nothing: see docs/training.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
ADAM_SHARE = 0.05  # of the learning rate: Adam's steps are of 1 a number, Muon's of 1 a whole matrix
_QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan's; five rounds bring singular values to 0.7..1.2, which is enough
_ROUNDS = 5


class Muon(torch.optim.Adam):
    """Muon for matrices, Adam for all else.

    Args:
        groups: of parameters, as torch's optimisers take them. A group with "matrices" true takes Muon's steps: its
            parameters are weights of layers, [rows, ...], and are taken as rows times everything else.
        lr: of a matrix; `ADAM_SHARE` of it of any other parameter.
        betas: Adam's.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float]) -> None:
        super().__init__(groups, lr=lr, betas=betas)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Takes a step; the gradients of matrices are gone afterwards.

        Args:
            closure: computes the loss anew, as torch's optimisers take it.

        Returns:
            what `closure` returned, None without it.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        rates = [group["lr"] for group in self.param_groups]
        for group in self.param_groups:
            if group["matrices"]:
                for parameter in group["params"]:
                    self._step_matrix(parameter, group["lr"])
            else:
                group["lr"] *= ADAM_SHARE
        super().step()  # passes over what has no gradient left
        for group, rate in zip(self.param_groups, rates, strict=True):
            group["lr"] = rate
        return loss

    def _step_matrix(self, parameter: Tensor, rate: float) -> None:
        gradient, parameter.grad = parameter.grad, None
        if gradient is None:
            return
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        momentum = state["momentum_buffer"].mul_(MOMENTUM).add_(gradient)
        step = orthogonal(gradient.add(momentum, alpha=MOMENTUM).flatten(1))
        rows, columns = step.shape
        parameter.add_(step.view(parameter.shape), alpha=-rate * max(1.0, rows / columns) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """The matrix with its singular values brought near to 1, by Newton and Schulz's iteration.

    Args:
        matrix: [rows, columns].

    Returns:
        [rows, columns] with singular values of 0.6 to 1.3, but for those that were under a hundredth of the
        matrix's norm; zeros where it is zero.
    """
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else matrix.mT
    x = x / x.norm().clamp_min(1e-12)
    a, b, c = _QUINTIC
    for _ in range(_ROUNDS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x if wide else x.mT


def matrices(network: nn.Module) -> Iterator[Tensor]:
    """The weights of a network's layers that are matrices of more than one row and column."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            rows, columns = module.weight.flatten(1).shape
            if min(rows, columns) > 1:
                yield module.weight
