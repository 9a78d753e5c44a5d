"""Stand-in for `comfy_api.latest`: `io`, `ui` and `ComfyExtension`."""

from __future__ import annotations

from abc import ABC, abstractmethod

from . import _io as io
from . import _ui as ui

__all__ = ["ComfyExtension", "io", "ui"]


class ComfyExtension(ABC):
    """A pack: what its entrypoint returns."""

    async def on_load(self) -> None:
        """Called when the pack is loaded."""
        return None

    @abstractmethod
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The node classes of the pack."""
