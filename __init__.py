"""Progressive Upsampling: a ComfyUI node pack and the tensor library `core` under it.

Importing this package imports nothing heavy (not even torch): ComfyUI imports every pack when it
starts, and `progressive_upsampling.core` is there for those who want the library alone.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .nodes import ProgressiveUpsamplingExtension

__version__ = "0.1.0"

WEB_DIRECTORY = "./docs/web"


async def comfy_entrypoint() -> ProgressiveUpsamplingExtension:
    """Give ComfyUI the pack's extension.

    Returns:
        The V3 extension whose `get_node_list` names every node of the pack.

    Raises:
        Exception: whatever went wrong in the import of the nodes, after its traceback was logged.
    """
    try:
        from .nodes import ProgressiveUpsamplingExtension

        return ProgressiveUpsamplingExtension()
    except Exception:
        # ComfyUI 0.3.64 reports the message alone, without the place it comes from.
        logging.getLogger(__name__).exception("Progressive Upsampling: the nodes could not be loaded")
        raise
