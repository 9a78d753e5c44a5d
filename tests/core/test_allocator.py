from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

from progressive_upsampling.core import allocator
from progressive_upsampling.core.allocator import reused_blocks

from .tiny import picture, random_chain


class Library:
    """Stands for the C library, and keeps what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def mallopt(self, option: int, value: int) -> int:
        self.calls.append(("mallopt", option, value))
        return 1

    def malloc_trim(self, pad: int) -> int:
        self.calls.append(("trim", pad))
        return 1


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    found = Library()
    monkeypatch.setattr(allocator, "_libc", lambda: found)
    return found


def test_what_is_set_is_set_back_and_the_memory_returned(library: Library) -> None:
    with reused_blocks("cpu"):
        assert ("mallopt", -4, 0) in library.calls  # no mappings
        opened = len(library.calls)
    assert ("mallopt", -4, 65536) in library.calls[opened:] and library.calls[-1] == ("trim", 0)


def test_nested_and_parallel_use_counts_once(library: Library) -> None:
    opened, leave = threading.Event(), threading.Event()

    def other() -> None:
        with reused_blocks("cpu"):
            opened.set()
            leave.wait(10)

    with reused_blocks("cpu"):
        thread = threading.Thread(target=other)
        thread.start()
        assert opened.wait(10)
        with reused_blocks("cpu"):
            pass
        first = len(library.calls)
    assert len(library.calls) == first == 2  # the other thread is still at it
    leave.set()
    thread.join()
    assert library.calls[-1] == ("trim", 0)


def test_an_error_inside_sets_back_too(library: Library) -> None:
    with pytest.raises(KeyboardInterrupt), reused_blocks("cpu"):
        raise KeyboardInterrupt
    assert library.calls[-1] == ("trim", 0)


def test_other_devices_leave_the_library_alone(library: Library) -> None:
    with reused_blocks(torch.device("cuda")):
        pass
    assert library.calls == []


def test_without_the_library_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "_libc", lambda: None)
    with reused_blocks("cpu"):
        assert torch.zeros(10).sum() == 0


def test_the_chain_and_its_networks_use_it(library: Library) -> None:
    chain = random_chain(1)
    chain(picture(8, 8), 2)
    assert library.calls.count(("trim", 0)) >= 2  # the upsampler, the denoiser
    assert library.calls[-1] == ("trim", 0)
