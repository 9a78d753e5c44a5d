"""What the terminal shows while work goes on: one progress bar, notes, and errors, all on stderr."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:  # --help must not wait for torch
    from ..progress import OnStep

_EVERY = 0.1  # seconds between two drawings of the bar


@contextmanager
def stderr_or_nothing() -> Iterator[None]:
    """Where stderr is closed, what is said goes nowhere; nor into the next file opened, which would get its number."""
    if sys.stderr is not None:
        yield
        return
    with open(os.devnull, "w", encoding="utf-8", errors="replace") as nowhere, redirect_stderr(nowhere):
        yield


class Console:
    """The user's terminal.

    Args:
        program: name that begins every line.
        quiet: show errors alone.
        stream: where to write; None takes stderr.
    """

    def __init__(self, program: str, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._program, self._quiet = program, quiet
        self._stream = sys.stderr if stream is None else stream
        self._drawn = False

    def silent(self) -> Console:
        """The same terminal for a process that leaves reports to another."""
        return Console(self._program, quiet=True, stream=self._stream)

    def error(self, text: str) -> None:
        """A line that says what went wrong."""
        self._line(f"{self._program}: error: {text}")

    def note(self, text: str) -> None:
        """A line for information, left out when quiet."""
        if not self._quiet:
            self._line(text)

    def show_warning(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        """In place of `warnings.showwarning`: one line without the place in the source."""
        self.note(f"{self._program}: warning: {' '.join(str(message).split())}")

    @contextmanager
    def progress(self, label: str | Callable[[], str]) -> Iterator[OnStep | None]:
        """A bar for one piece of work; gone afterwards.

        Args:
            label: what is being done, or a function that tells at each drawing.

        Yields:
            The `on_step` to hand to the library; None where nobody would see a bar.
        """
        if self._quiet or not self._stream.isatty():
            yield None
            return
        started, last = time.monotonic(), 0.0

        def tell() -> str:
            return label if isinstance(label, str) else label()

        def on_step(done: float, total: float, preview: object) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= _EVERY:
                last = now
                self._draw(tell(), done / total if total > 0 else 1.0, now - started)

        self._draw(tell(), 0.0, 0.0)
        try:
            yield on_step
        finally:
            self._clear()

    def _draw(self, label: str, share: float, seconds: float) -> None:
        share = min(max(share, 0.0), 1.0)
        left = f"{_clock(seconds / share - seconds)} left" if share > 0.02 and seconds > 1 else ""
        columns = shutil.get_terminal_size().columns - 1
        tail = f" {share:4.0%} {left:<14}"
        room = max(columns - len(tail) - 3, 10)
        label = label if len(label) <= room // 2 else label[: room // 2 - 1] + "…"
        width = max(min(room - len(label), 40), 5)
        filled = round(share * width)
        bar = f"{label} [{'#' * filled}{'-' * (width - filled)}]{tail}"
        self._stream.write("\r" + bar[:columns].ljust(columns))
        self._stream.flush()
        self._drawn = True

    def _clear(self) -> None:
        if self._drawn:
            self._stream.write("\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r")
            self._stream.flush()
            self._drawn = False

    def _line(self, text: str) -> None:
        self._clear()
        self._stream.write(text + "\n")
        self._stream.flush()


def _clock(seconds: float) -> str:
    minutes, whole = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole:02}" if hours else f"{minutes}:{whole:02}"


def columns(rows: Sequence[Sequence[str]], words: int = 1) -> list[str]:
    """A table: words to the left, figures to the right.

    Args:
        rows: cells, as many in each row.
        words: how many columns from the left hold words.

    Returns:
        A line for each row.
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i < words else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def out_of_memory(error: BaseException) -> bool:
    """Whether memory was not enough: Python, torch on the CPU and torch on a GPU each say it in their own way."""
    said = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return said or (isinstance(error, RuntimeError) and "allocate memory" in str(error))
