"""What surrounds a training: gradients in any mode, and no denormal numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch

from progressive_upsampling.core.train.setup import learning

SMALLEST = torch.finfo(torch.float32).smallest_normal


def half_of_the_smallest() -> float:
    return (torch.tensor(SMALLEST) / 2).item()


@pytest.fixture
def flushing() -> Iterator[None]:
    """Skips where the processor cannot; leaves it as torch begins."""
    if not torch.set_flush_denormal(False):
        pytest.skip("this processor does not flush denormal numbers")
    yield
    torch.set_flush_denormal(False)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, contextlib.nullcontext])
def test_there_are_gradients_whatever_mode_the_caller_is_in(mode):
    with mode(), learning():
        weight = torch.ones(1, requires_grad=True)
        (2 * weight).sum().backward()
    assert weight.grad == 2.0


@pytest.mark.usefixtures("flushing")
def test_denormal_numbers_are_zero_inside_alone():
    with learning():
        assert half_of_the_smallest() == 0.0 and torch.tensor(SMALLEST).item() > 0
        with learning():
            pass
        assert half_of_the_smallest() == 0.0
    assert half_of_the_smallest() > 0.0


@pytest.mark.usefixtures("flushing")
def test_an_error_inside_leaves_no_trace():
    with pytest.raises(ZeroDivisionError), learning():
        _ = 1 / 0
    assert half_of_the_smallest() > 0.0


@pytest.mark.usefixtures("flushing")
def test_who_flushed_before_does_so_after():
    torch.set_flush_denormal(True)
    with learning():
        pass
    assert half_of_the_smallest() == 0.0
