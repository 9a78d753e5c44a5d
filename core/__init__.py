"""The tensor library: every part of a stage, and the chain that joins them.

Images are float32 tensors [B, C, H, W] in 0..1. Each part is a function or a module that can be used by itself; see
`Chain` for the whole.
"""

from __future__ import annotations

from .adaptive_noise import NoiseController, NoiseControllerConfig, adaptive_sigma, gradient_map, laplace_nll
from .attention import ChannelAttention, SpatialAttention, WindowAttention
from .back_projection import back_project
from .chain import Chain, ChainConfig, Settings
from .checkpoint import Checkpoint, CheckpointError, bundled, read_checkpoint, write_checkpoint
from .denoise import denoise
from .denoiser import Denoiser, DenoiserConfig
from .denoiser_file import load_denoiser, save_denoiser
from .dynamic_weights import DynamicWeights, DynamicWeightsConfig
from .evaluate import Evaluation, evaluate_folder
from .evaluate_denoising import DenoisingEvaluation, evaluate_denoising
from .fusion import FusionResult, fuse
from .interrupt import interruptible
from .layout import from_bhwc, map_to_mask, mask_to_map, rgb_to_y, rgb_to_ycbcr, to_bhwc, ycbcr_to_rgb
from .metrics import psnr, radial_spectrum_error, ssim
from .noise import LearnableStrength, inject_noise
from .perceptual_distance import PerceptualDistance
from .picture_output import write_picture
from .pictures import read_picture
from .resample import resample
from .residual import SkipWeights, SkipWeightsConfig, skip
from .sizes import stage_sizes
from .squeezenet import load_squeezenet
from .stage import Stage, StageConfig
from .tiling import run_tiled
from .unet import AttnUNet, UNetConfig
from .upsample import upsample
from .upsamplers import (
    EDSR,
    ESPCN,
    FSRCNN,
    EDSRConfig,
    ESPCNConfig,
    FSRCNNConfig,
    build_upsampler,
    load_upsampler,
    recognise,
    save_upsampler,
)

__all__ = [
    "EDSR",
    "ESPCN",
    "FSRCNN",
    "AttnUNet",
    "Chain",
    "ChainConfig",
    "ChannelAttention",
    "Checkpoint",
    "CheckpointError",
    "Denoiser",
    "DenoiserConfig",
    "DenoisingEvaluation",
    "DynamicWeights",
    "DynamicWeightsConfig",
    "EDSRConfig",
    "ESPCNConfig",
    "Evaluation",
    "FSRCNNConfig",
    "FusionResult",
    "LearnableStrength",
    "NoiseController",
    "NoiseControllerConfig",
    "PerceptualDistance",
    "Settings",
    "SkipWeights",
    "SkipWeightsConfig",
    "SpatialAttention",
    "Stage",
    "StageConfig",
    "UNetConfig",
    "WindowAttention",
    "adaptive_sigma",
    "back_project",
    "build_upsampler",
    "bundled",
    "denoise",
    "evaluate_denoising",
    "evaluate_folder",
    "from_bhwc",
    "fuse",
    "gradient_map",
    "inject_noise",
    "interruptible",
    "laplace_nll",
    "load_denoiser",
    "load_squeezenet",
    "load_upsampler",
    "map_to_mask",
    "mask_to_map",
    "psnr",
    "radial_spectrum_error",
    "read_checkpoint",
    "read_picture",
    "recognise",
    "resample",
    "rgb_to_y",
    "rgb_to_ycbcr",
    "run_tiled",
    "save_denoiser",
    "save_upsampler",
    "skip",
    "ssim",
    "stage_sizes",
    "to_bhwc",
    "upsample",
    "write_checkpoint",
    "write_picture",
    "ycbcr_to_rgb",
]
