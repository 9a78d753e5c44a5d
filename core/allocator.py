"""Keeps the C library from handing large blocks back to the system between two layers of a network.

glibc maps blocks of 32 MiB and more afresh for every tensor, and each fresh page costs a fault: on feature maps of that
size convolutions lose a fifth of their speed. While `reused_blocks` is open such blocks come from the heap, which keeps
them for the next layer; afterwards all of it goes back. Elsewhere (other systems, other C libraries) nothing happens.
"""

from __future__ import annotations

import ctypes
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch

# of malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_KEEP = 2**31 - 1  # bytes free at the heap's end before they are handed back; the largest that fits the call
_LARGEST_DYNAMIC = 32 << 20  # bytes: where glibc's own threshold ends up once such blocks have been freed
_USUAL_MAPPINGS = 1 << 16

_lock = threading.Lock()
_users = 0


@contextmanager
def reused_blocks(device: torch.device | str) -> Iterator[None]:
    """Context in which large tensors on the CPU reuse memory. May be nested, and opened by several threads."""
    libc = _libc() if torch.device(device).type == "cpu" else None
    if libc is None:
        yield
        return
    _enter(libc)
    try:
        yield
    finally:
        _leave(libc)


def _enter(libc: ctypes.CDLL) -> None:
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            libc.mallopt(_MMAP_MAX, 0)
            libc.mallopt(_TRIM_THRESHOLD, _KEEP)


def _leave(libc: ctypes.CDLL) -> None:
    global _users
    with _lock:
        _users -= 1
        if _users == 0:
            libc.mallopt(_MMAP_MAX, _USUAL_MAPPINGS)
            libc.mallopt(_MMAP_THRESHOLD, _LARGEST_DYNAMIC)
            libc.mallopt(_TRIM_THRESHOLD, 2 * _LARGEST_DYNAMIC)
            libc.malloc_trim(0)


@lru_cache(maxsize=1)
def _libc() -> ctypes.CDLL | None:
    if platform.libc_ver()[0] != "glibc":
        return None
    try:
        libc = ctypes.CDLL(None)
    except OSError:
        return None
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
