"""The C library's heap, of which Python and torch get their memory."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache


def give_back_free_memory() -> None:
    """Gives what is free on the heap back to the system, gaps between blocks in use among them.

    glibc does so by itself only at the heap's end: after work with blocks of many sizes a process may hold twice what
    it uses. It takes some milliseconds; where the C library is another one, nothing is done. See malloc_trim(3).
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library; Windows has no library without a name
        return None
    return trim
