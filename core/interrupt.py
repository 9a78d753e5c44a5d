"""Cancel in the middle of a network's pass: a poll before each of its layers.

`on_step` is called between tiles, and a tile may be a whole picture, which takes a second or more on a CPU.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from torch import nn


@contextmanager
def interruptible(networks: Sequence[nn.Module], poll: Callable[[], None]) -> Iterator[None]:
    """While it lasts, `poll` is called before every layer of the networks; results are the same.

    Only what the calling thread runs is polled, so that networks which another thread runs too are not stopped there.

    Args:
        networks: any modules; their layers are the modules that contain no others.
        poll: raises to cancel; called some hundred times a pass, so it should cost no more than a look at a flag.

    Example:
        >>> with interruptible([chain], poll):
        ...     y = chain(x, scale=8)
    """
    owner = threading.get_ident()

    def before(*_: object) -> None:
        if threading.get_ident() == owner:
            poll()

    with ExitStack() as hooks:
        for layer in {
            layer for network in networks for layer in network.modules() if next(layer.children(), None) is None
        }:
            hooks.callback(layer.register_forward_pre_hook(before).remove)
        yield
