"""Free memory of the C library's heap."""

from __future__ import annotations

import ctypes
import gc
import platform
from pathlib import Path
from typing import Any

import pytest
import torch

from progressive_upsampling.core import heap

BLOCK = 100_000  # bytes: below glibc's threshold, from which on a block is mapped by itself


def resident() -> int:
    """Bytes of main memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * 4096


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps its heap in another way")
def test_gaps_are_given_back() -> None:
    blocks = [torch.ones(BLOCK // 4) for _ in range(400)]
    kept = blocks[::10]
    del blocks
    gc.collect()
    full = resident()
    heap.give_back_free_memory()
    assert full - resident() > 300 * BLOCK
    assert all(bool((block == 1).all()) for block in kept)


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])
def test_with_another_c_library_nothing_is_done(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*_: Any) -> None:
        raise error

    heap._malloc_trim.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", without)
    heap.give_back_free_memory()
    assert heap._malloc_trim() is None
    heap._malloc_trim.cache_clear()
