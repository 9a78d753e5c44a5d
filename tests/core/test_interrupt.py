from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from progressive_upsampling.core.interrupt import interruptible
from progressive_upsampling.core.row_stream import Chained, Convolved, Local

from .tiny import picture, random_chain

LAYERS = 9


class Cancelled(Exception):
    """What the tests cancel by."""


class Counted(nn.Module):
    """A layer that tells when it runs."""

    def __init__(self, ran: Callable[[], None]) -> None:
        super().__init__()
        self.ran = ran

    def forward(self, x: Tensor) -> Tensor:
        self.ran()
        return x + 1


@pytest.fixture
def asked() -> threading.Event:
    return threading.Event()


@pytest.fixture
def poll(asked: threading.Event) -> Callable[[], None]:
    def look() -> None:
        if asked.is_set():
            raise Cancelled

    return look


def hooks(network: nn.Module) -> int:
    return sum(len(layer._forward_pre_hooks) for layer in network.modules())


@pytest.mark.parametrize("k", range(LAYERS))
def test_a_network_stops_before_its_next_layer(k: int, asked: threading.Event, poll: Callable[[], None]) -> None:
    count = 0

    def ran() -> None:
        nonlocal count
        if count == k:
            asked.set()
        count += 1

    half = LAYERS // 2
    network = nn.Sequential(
        nn.Sequential(*(Counted(ran) for _ in range(half))), *(Counted(ran) for _ in range(LAYERS - half))
    )
    with interruptible([network], poll):
        if k < LAYERS - 1:
            with pytest.raises(Cancelled):
                network(torch.zeros(1))
        else:  # nothing is left to be stopped
            network(torch.zeros(1))
    assert count == k + 1
    assert hooks(network) == 0


def test_the_hooks_are_gone_after_an_error() -> None:
    chain = random_chain(1)
    with pytest.raises(RuntimeError, match="something else"), interruptible([chain, chain], lambda: None):
        assert hooks(chain) == sum(not list(layer.children()) for layer in chain.modules())
        raise RuntimeError("something else")
    assert hooks(chain) == 0


def test_the_picture_is_the_same_to_the_bit_and_progress_no_chattier() -> None:
    chain, polls = random_chain(1), 0
    heard: list[list[tuple[float, float]]] = [[], []]

    def poll() -> None:
        nonlocal polls
        polls += 1

    def run(number: int) -> Tensor:
        return chain(picture(), 2, detail=0.5, on_step=lambda done, total, _: heard[number].append((done, total)))

    plain = run(0)
    with interruptible([chain], poll):
        assert torch.equal(run(1), plain)
    assert heard[0] == heard[1]
    assert polls > 3 * len(heard[0])


def test_a_chain_is_stopped_inside_its_only_tile(asked: threading.Event, poll: Callable[[], None]) -> None:
    chain, reports = random_chain(1), 0
    layer = chain.stage(1).denoiser.unet.middle

    def count(*_: object) -> None:
        nonlocal reports
        reports += 1

    handle = layer.register_forward_hook(lambda *_: asked.set())
    with pytest.raises(Cancelled), interruptible([chain], poll):
        chain(picture(), 2, on_step=count)
    handle.remove()
    assert reports == 2  # the upsampler's end, and its preview: not the denoiser's
    asked.clear()
    assert chain(picture(), 2).isfinite().all()


def test_a_stream_of_rows_is_stopped_inside_a_strip(asked: threading.Event, poll: Callable[[], None]) -> None:
    convolved, ran = [nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)], 0

    def count(rows: Tensor) -> Tensor:
        nonlocal ran
        ran += 1
        asked.set()
        return rows

    stream = Chained(*(part for layer in convolved for part in (Convolved(layer), Local(count))))
    with pytest.raises(Cancelled), interruptible([], poll):
        stream.push(torch.zeros(1, 3, 9, 5), True)
    assert ran == 1
    asked.clear()
    assert stream.push(torch.zeros(1, 3, 9, 5), True) is not None  # nothing polls any more


def test_an_inner_one_does_not_end_the_outer(asked: threading.Event, poll: Callable[[], None]) -> None:
    network = nn.Identity()
    with interruptible([network], poll):
        with interruptible([network], lambda: None):
            asked.set()
            network(torch.ones(1))
        with pytest.raises(Cancelled):
            network(torch.ones(1))
    assert hooks(network) == 0
    network(torch.ones(1))


def test_another_thread_is_not_stopped(asked: threading.Event, poll: Callable[[], None]) -> None:
    network, results = nn.Sequential(nn.Identity(), nn.Identity()), []
    asked.set()
    with interruptible([network], poll):
        other = threading.Thread(target=lambda: results.append(network(torch.ones(1))))
        other.start()
        other.join()
        with pytest.raises(Cancelled):
            network(torch.ones(1))
    assert results == [torch.ones(1)]
