"""What a run was trained on, in words, for the checkpoint's provenance."""

from __future__ import annotations

import platform
from pathlib import Path

import torch


def describe(device: torch.device) -> str:
    """The device and its machine, as "Intel(R) Xeon(R) …, 2 threads" or "NVIDIA H200"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return f"{device.type}, {_processor()}"
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'s' if threads > 1 else ''}"


def _processor() -> str:
    try:  # Linux, where `platform` knows the architecture alone
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return " ".join(line.split(":", 1)[1].split())
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown processor"


def peak_memory(device: torch.device) -> int | None:
    """The most bytes this process has held so far: of the device's memory on CUDA, else of the main memory.

    Returns:
        bytes; None where the system does not tell.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:  # Linux: getrusage counts what the parent held before this process was started from it
        for line in Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024
