"""In which number format networks run, and the autocast context that makes it so.

Inputs, outputs, sums over the image and colour conversions stay in float32; only convolutions and matrix products
inside the networks change.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from .checks import check_choice

DTYPES = ("auto", "fp32", "bf16", "fp16")
_TORCH = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_dtype(name: str = "auto", device: torch.device | str = "cpu", argument: str = "dtype") -> torch.dtype:
    """The format for `device`.

    Args:
        name: one of DTYPES. "auto" takes bfloat16 where the device multiplies it faster (AMX or AVX512_BF16 on CPUs,
            compute capability 8 and up on CUDA), float16 on other CUDA devices, float32 everywhere else.
        device: where the networks will run.
        argument: name for the messages.

    Raises:
        ValueError: `name` is none of DTYPES, or fp16 is asked for on a CPU, which has no fast units for it.
    """
    check_choice(name, argument, DTYPES)
    kind = torch.device(device).type
    if name == "fp16" and kind == "cpu":
        raise ValueError(f"{argument}: expected auto, fp32 or bf16 on a CPU, got 'fp16'")
    if name != "auto":
        return _TORCH[name]
    if kind == "cpu":
        return torch.bfloat16 if _multiplies_bf16() else torch.float32
    if kind == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    return torch.float32


def autocast(device: torch.device | str, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Context in which networks on `device` compute in `dtype`; float32 switches autocast off."""
    kind = torch.device(device).type
    if dtype is torch.float32 and not torch.amp.is_autocast_available(kind):
        return nullcontext()  # a device that torch has no autocast for
    return torch.autocast(kind, dtype=dtype, enabled=dtype is not torch.float32)


def autocast_dtype(device: torch.device | str) -> torch.dtype | None:
    """The format that autocast computes in on `device` just now; None where it is off."""
    kind = torch.device(device).type
    if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        return None
    return torch.get_autocast_dtype(kind)


def check_weights(network: nn.Module, argument: str) -> None:
    """Check that a network holds its weights in float32, from which it computes in any format.

    Args:
        network: any.
        argument: its name for the messages.

    Raises:
        TypeError: it was cast, as by `half()`.
    """
    for parameter in network.parameters():
        if parameter.is_floating_point() and parameter.dtype is not torch.float32:
            cast = f"expected a network of torch.float32 weights, got {parameter.dtype}"
            raise TypeError(f"{argument}: {cast}; the setting dtype ('bf16', 'fp16') chooses what it computes in")


def _multiplies_bf16() -> bool:
    # Older versions of torch cannot tell; float32 is right everywhere.
    names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in names)
