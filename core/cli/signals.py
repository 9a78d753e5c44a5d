"""Signals that end a command the way Ctrl-C does: what was begun is put away first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has no SIGHUP


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Turns SIGTERM and SIGHUP into `SystemExit(128 + number)`, while it lasts.

    A signal that has another handler keeps it, and one that is ignored, as under nohup, stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone may set handlers
        yield
        return
    ours = [number for number in ENDING if signal.getsignal(number) == signal.SIG_DFL]

    def end(signum: int, frame: FrameType | None) -> None:
        for number in ours:  # `timeout` sends two: the second must not cut the putting away short
            signal.signal(number, signal.SIG_IGN)
        raise SystemExit(128 + signum)

    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
