"""In which number format networks run, and the autocast context that makes it so.

Inputs, outputs, sums over the image and colour conversions stay in float32; only convolutions and matrix products
inside the networks change.
"""

from __future__ import annotations

import torch

from .checks import check_choice

DTYPES = ("auto", "fp32", "bf16", "fp16")
_TORCH = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_dtype(name: str = "auto", device: torch.device | str = "cpu") -> torch.dtype:
    """The format for `device`.

    Args:
        name: one of DTYPES. "auto" takes bfloat16 where the device has matrix units for it (AMX on CPUs, compute
            capability 8 and up on CUDA), float16 on other CUDA devices, float32 everywhere else.
        device: where the networks will run.

    Raises:
        ValueError: `name` is none of DTYPES, or fp16 is asked for on a CPU, which has no fast units for it.
    """
    check_choice(name, "dtype", DTYPES)
    kind = torch.device(device).type
    if name == "fp16" and kind == "cpu":
        raise ValueError("dtype: expected auto, fp32 or bf16 on a CPU, got 'fp16'")
    if name != "auto":
        return _TORCH[name]
    if kind == "cpu":
        return torch.bfloat16 if torch.cpu._is_amx_tile_supported() else torch.float32
    if kind == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.float32


def autocast(device: torch.device | str, dtype: torch.dtype) -> torch.autocast:
    """Context in which networks on `device` compute in `dtype`; float32 switches autocast off."""
    return torch.autocast(torch.device(device).type, dtype=dtype, enabled=dtype is not torch.float32)
