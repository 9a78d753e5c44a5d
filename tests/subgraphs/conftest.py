"""The blueprint tests need the nodes, from the same ComfyUI as the node tests."""

from __future__ import annotations

from ..nodes.bind_comfy import bind_comfy

bind_comfy()
