"""Learned upsamplers: networks that take an RGB image to a whole multiple of its size."""

from __future__ import annotations

from .edsr import EDSR, EDSRConfig

__all__ = ["EDSR", "EDSRConfig"]
