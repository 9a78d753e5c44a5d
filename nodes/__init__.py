"""The ComfyUI nodes: each a schema and a few lines over `core`."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from ._runtime import register_folders
from .adaptive_noise import AdaptiveNoise
from .compare import Compare
from .denoise import AttnUNetDenoise
from .inject_noise import InjectNoise
from .load_model import LoadModel
from .multi_scale_fuse import MultiScaleFuse
from .progressive_upscale import ProgressiveUpscale
from .residual_skip import ResidualSkip
from .save_model import SaveModel
from .train import Train
from .training_data import TrainingData
from .training_losses import TrainingLosses
from .upsample import Upsample

NODES: list[type[io.ComfyNode]] = [
    ProgressiveUpscale,
    Upsample,
    AdaptiveNoise,
    InjectNoise,
    AttnUNetDenoise,
    MultiScaleFuse,
    ResidualSkip,
    LoadModel,
    SaveModel,
    TrainingData,
    TrainingLosses,
    Train,
    Compare,
]


class ProgressiveUpsamplingExtension(ComfyExtension):
    """What ComfyUI asks for the pack's nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Every node of the pack."""
        register_folders()  # here, because ComfyUI 0.3.64 does not call on_load
        return NODES
