"""Learned upsamplers: networks that take an RGB image to a whole multiple of its size."""

from __future__ import annotations

from .edsr import EDSR, EDSRConfig
from .espcn import ESPCN, ESPCNConfig
from .fsrcnn import FSRCNN, FSRCNNConfig
from .registry import (
    Upsampler,
    build_upsampler,
    load_upsampler,
    recognise,
    save_upsampler,
    upsampler_config,
)

__all__ = [
    "EDSR",
    "ESPCN",
    "FSRCNN",
    "EDSRConfig",
    "ESPCNConfig",
    "FSRCNNConfig",
    "Upsampler",
    "build_upsampler",
    "load_upsampler",
    "recognise",
    "save_upsampler",
    "upsampler_config",
]
