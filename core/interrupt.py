"""Cancel in the middle of a network's pass, or of work on whole images: a poll before each layer and each step of it.

`on_step` is called between tiles and strips, and those may be large: a second or more of work on a CPU.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from torch import nn


class _Polls(threading.local):
    """The poll of each thread: what another thread runs is not stopped here."""

    poll: Callable[[], None] | None = None


_polls = _Polls()


@contextmanager
def interruptible(networks: Sequence[nn.Module], poll: Callable[[], None]) -> Iterator[None]:
    """While it lasts, `poll` is called before every layer that this thread runs of the networks; results are the same.

    It is called between the steps of work on whole images, too: resampling, filters, pyramids, fusion.

    Args:
        networks: any modules; their layers are the modules that contain no others.
        poll: raises to cancel; called some hundred times a pass, so it should cost no more than a look at a flag.

    Example:
        >>> with interruptible([chain], poll):
        ...     y = chain(x, scale=8)
    """
    outer, _polls.poll = _polls.poll, poll
    with ExitStack() as hooks:
        hooks.callback(setattr, _polls, "poll", outer)
        layers = {layer for network in networks for layer in network.modules() if next(layer.children(), None) is None}
        for layer in layers:
            hooks.callback(layer.register_forward_pre_hook(lambda *_: check_interrupted()).remove)
        yield


def check_interrupted() -> None:
    """Calls this thread's poll, for what is not run as a module; nothing outside `interruptible`."""
    if _polls.poll is not None:
        _polls.poll()
