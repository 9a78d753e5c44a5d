"""Fixtures of the node tests; see bind_comfy.py for which ComfyUI they run against."""

from __future__ import annotations

from .bind_comfy import bind_comfy

REAL_COMFYUI = bind_comfy()
