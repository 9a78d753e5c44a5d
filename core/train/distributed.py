"""Training by several processes, one for each GPU or for each machine, as torchrun starts them.

Every process computes its share of each batch; gradients and figures are averaged over all, so that all have the
same weights at every step, and only the first writes. A run of one process goes through none of this.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

_ARGUMENTS = inspect.signature(DistributedDataParallel).parameters
# buffers (singular vectors) follow from the weights; torch has called this by two names
_NO_BUFFERS: dict[str, Any] = {
    "forward_sync_buffers" if "forward_sync_buffers" in _ARGUMENTS else "broadcast_buffers": False
}
TIMEOUT = timedelta(minutes=30)  # the others wait while the first writes, on a slow disk, too


@dataclass(frozen=True)
class World:
    """The processes of a run, and which of them this is.

    Attributes:
        rank: of this process, 0..size - 1.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module, with its gradients averaged over the processes in the backward pass."""
        if self.size == 1 or not any(parameter.requires_grad for parameter in module.parameters()):
            return module
        # not all weights take part in every step
        return DistributedDataParallel(module, find_unused_parameters=True, **_NO_BUFFERS)

    def mean(self, values: Mapping[str, float], device: torch.device) -> dict[str, float]:
        """Figures averaged over the processes, which must all have the same names."""
        if self.size == 1:
            return dict(values)
        total = torch.tensor([values[name] for name in sorted(values)], dtype=torch.float64).to(device)
        dist.all_reduce(total)
        return dict(zip(sorted(values), (total / self.size).tolist(), strict=True))

    def sums(self, values: Sequence[float], device: torch.device) -> list[float]:
        """Figures summed over the processes, one by one."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64).to(device)
        dist.all_reduce(total)
        return total.tolist()

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set in one of the processes."""
        return self.sums([float(flag)], device)[0] > 0

    def wait(self) -> None:
        """Goes on when all processes are here."""
        if self.size > 1:
            dist.barrier()


def waiting(module: nn.Module, wait: bool) -> AbstractContextManager[object]:
    """Context of a backward pass after which gradients are not averaged yet, where `wait`."""
    return module.no_sync() if wait and isinstance(module, DistributedDataParallel) else nullcontext()


@contextmanager
def joined(device: torch.device) -> Iterator[tuple[World, torch.device]]:
    """The processes that torchrun has started, by gloo on CPUs and NCCL on NVIDIA's GPUs.

    Args:
        device: "cuda" becomes the GPU of this process's number on its machine.

    Yields:
        the world, of one process where torchrun started none, and the device of this process.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(), device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield World(dist.get_rank(), size), device
    finally:
        dist.destroy_process_group()
