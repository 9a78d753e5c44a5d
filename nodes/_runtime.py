"""The only file that touches ComfyUI itself: devices, memory, progress, preview, cancel and folders."""

from __future__ import annotations

import gc
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import comfy.model_management as management
import comfy.model_patcher
import comfy.utils
import folder_paths
import torch
from PIL import Image
from torch import Tensor, nn

from ..core import checkpoint
from ..core.interrupt import interruptible
from ..core.layout import to_bhwc
from ..core.precision import resolve_dtype
from ..core.preview import preview_of
from ..core.progress import OnStep, Progress
from ..core.tiling import DEFAULT_BUDGET
from ..core.train.run_folder import BEST, LAST
from ..core.upsample import Enlarge

Cancelled = management.InterruptProcessingException
OutOfMemory = management.OOM_EXCEPTION

FOLDER = "progressive_upsampling"
RUNS = "output"  # before the names of what training runs have saved
PREVIEW_SECONDS = 0.25  # between two previews: each is encoded and sent
FIRST_RETRY_TILE = 512
SMALLEST_TILE = 128
COMMUNITY_TILE, COMMUNITY_OVERLAP = 512, 32  # as ComfyUI's own node
BYTES_PER_PIXEL = 160  # some thirteen whole RGB images in float32 are alive at once

_log = logging.getLogger(__name__)
T = TypeVar("T")
N = TypeVar("N", bound=nn.Module)


@dataclass(frozen=True)
class Job:
    """What a node's work runs with.

    Attributes:
        device: where the networks are; images must be sent there.
        tile: side of a tile in pixels, None to let core choose.
        on_step: progress, preview and cancel.
    """

    device: torch.device
    tile: int | None
    on_step: OnStep

    def send(self, image: Tensor) -> Tensor:
        """The image or map on the device."""
        return image.to(self.device)

    def dtype(self, precision: str) -> str:
        """The number format that a node's input asks for, if the device has it.

        Raises:
            ValueError: it has not.
        """
        resolve_dtype(precision, self.device, "precision")
        return precision


def run(
    work: Callable[[Job], T],
    networks: Sequence[nn.Module] = (),
    tile: int = 0,
    pixels: int = 0,
    show: bool = False,
) -> T:
    """Run a node's work on ComfyUI's device, with its networks loaded there.

    When the device runs out of memory the work is repeated with smaller tiles, down to SMALLEST_TILE. A user who
    cancels need not wait for a tile: the networks stop before their next layer.

    Args:
        work: does the work; may be called more than once.
        networks: what it needs on the device.
        tile: the user's tile in pixels, 0 to choose.
        pixels: size of the results that are worked on at a time, an estimate of the memory that whole images take.
        show: leave the result, a list whose last item is an IMAGE, as a preview on the node.

    Returns:
        What `work` returns.
    """
    device = load(networks, DEFAULT_BUDGET + BYTES_PER_PIXEL * pixels)
    side: int | None = tile or None
    while True:
        on_step = Reporter()
        try:
            with torch.no_grad(), interruptible(networks, check_cancelled):
                result = work(Job(device, side, on_step))
        except management.OOM_EXCEPTION:
            side = _smaller(side)
            if side is None:
                raise
            management.soft_empty_cache()
            _log.warning("Progressive Upsampling: out of memory; trying again in tiles of %d pixels", side)
            continue
        shown = result[-1] if show and isinstance(result, list) else None
        on_step(1, 1, None if shown is None else preview_of(shown[:1].movedim(-1, 1).float()), force=True)
        return result


def _smaller(side: int | None) -> int | None:
    if side is None or side > 2 * FIRST_RETRY_TILE:
        return FIRST_RETRY_TILE
    smaller = max(side // 2, SMALLEST_TILE)
    return smaller if smaller < side else None


def load(networks: Sequence[nn.Module], memory: float) -> torch.device:
    """Bring networks to ComfyUI's device, with room for the work to be done there.

    Args:
        networks: any modules; empty only makes room.
        memory: bytes of working memory wanted beside them.
    """
    device = management.get_torch_device()
    patchers = [_patcher(network) for network in networks]
    if patchers:
        management.load_models_gpu(patchers, memory_required=memory, force_full_load=True)
    for network in networks:
        network.to(device)  # these are not built of ComfyUI's layers, which it would cast as they run
    return device


class ProgressiveNetwork(nn.Module):
    """Takes the attributes that ComfyUI's patcher sets on what it holds; its name is shown in the log."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network


def _patcher(network: nn.Module) -> Any:
    # Kept on the network, so that both are freed together and ComfyUI knows it when it comes again.
    patcher = getattr(network, "_comfy_patcher", None)
    if patcher is None:
        patcher = comfy.model_patcher.ModelPatcher(
            ProgressiveNetwork(network),
            load_device=management.get_torch_device(),
            offload_device=management.unet_offload_device(),
        )
        object.__setattr__(network, "_comfy_patcher", patcher)
    return patcher


def whole_device() -> torch.device:
    """ComfyUI's device, with the models that were on it moved away: for work that takes all the memory it can get."""
    management.unload_all_models()
    management.soft_empty_cache()
    return management.get_torch_device()


def give_back() -> None:
    """Return the device's memory that nothing refers to any more."""
    gc.collect()  # training leaves cycles, which hold tensors
    management.soft_empty_cache()


def at_rest(network: N) -> N:
    """The network moved to where ComfyUI keeps those that do not run."""
    return network.to(management.unet_offload_device())


def check_cancelled() -> None:
    """Stop here when the user has cancelled.

    Raises:
        Cancelled: they have.
    """
    management.throw_exception_if_processing_interrupted()


def say(text: str) -> None:
    """Show text on the running node, in the place of the last; nothing where no front end listens."""
    # Not imported: outside a server there is none, and its module is heavy.
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    node = getattr(server, "last_node_id", None)
    if server is not None and node is not None:
        server.send_progress_text(text, node, server.client_id)


class Reporter:
    """An `on_step` that moves ComfyUI's progress bar, shows previews and stops when the user cancels.

    Args:
        parts: of the bar.
    """

    def __init__(self, parts: int = 100) -> None:
        self._bar, self._parts = comfy.utils.ProgressBar(parts), parts
        self._shown = 0.0

    def __call__(self, done: float, total: float, preview: Tensor | None, force: bool = False) -> None:
        check_cancelled()
        picture = None
        if preview is not None and (force or time.monotonic() - self._shown >= PREVIEW_SECONDS):
            self._shown = time.monotonic()
            picture = ("JPEG", to_pil(preview), max(preview.shape[-2:]))
        self._bar.update_absolute(round(self._parts * done / max(total, 1e-9)), self._parts, picture)


def to_pil(image: Tensor) -> Image.Image:
    """The first image of a batch as an 8-bit picture."""
    pixels = image[:1, :3].detach().float().cpu().clamp(0, 1).mul(255).round().byte()
    if pixels.shape[1] == 1:
        pixels = pixels.expand(-1, 3, -1, -1)
    return Image.fromarray(pixels[0].permute(1, 2, 0).contiguous().numpy())


def to_comfy(image: Tensor, like: Tensor | None = None) -> Tensor:
    """An image as a ComfyUI IMAGE, on the device where ComfyUI keeps values between nodes.

    Args:
        image: `[B, C, H, W]`.
        like: the IMAGE that came in, whose dtype the result gets.
    """
    dtype = torch.float32 if like is None else like.dtype
    return to_bhwc(image, dtype).to(management.intermediate_device())


def on_intermediate(value: Tensor) -> Tensor:
    """A MASK or map on the device where ComfyUI keeps values between nodes."""
    return value.to(management.intermediate_device())


def register_folders() -> None:
    """Make `models/progressive_upsampling` known to ComfyUI; folders of extra_model_paths.yaml stay."""
    path = os.path.join(folder_paths.models_dir, FOLDER)
    with suppress(OSError):  # a read-only models folder can still be read
        os.makedirs(path, exist_ok=True)
    folder_paths.add_model_folder_path(FOLDER, path)


def model_files() -> list[str]:
    """Files in the model folders that could be checkpoints, by name."""
    register_folders()
    return [name for name in folder_paths.get_filename_list(FOLDER) if name.endswith(checkpoint.SUFFIX)]


def runs_folder() -> Path:
    """The folder that training runs are in, a folder each."""
    return Path(folder_paths.get_output_directory()) / FOLDER


def run_models() -> list[str]:
    """The models of training runs, by name.

    They are looked for each time: output folders are tidied up, and ComfyUI's own lists of files fail when a folder
    that they have seen is gone.
    """
    folder = runs_folder()
    found = [path.relative_to(folder).as_posix() for name in (LAST, BEST) for path in folder.rglob(name)]
    return sorted(f"{RUNS}/{name}" for name in found)


def input_folder(folder: str, argument: str) -> Path:
    """A folder as a user gives it: its whole path, or from ComfyUI's input folder on.

    Args:
        folder: may be in quotes, as Windows copies paths.
        argument: name for the error.

    Raises:
        ValueError: there is no such folder.
    """
    path = Path(folder_paths.get_input_directory()) / Path(folder.strip().strip("\"'")).expanduser()
    if not path.is_dir():
        raise ValueError(f"{argument}: expected a folder, by its whole path or inside {path.parent}, got {folder!r}")
    return path


def model_folder() -> str:
    """The folder that new models are saved in: ComfyUI's own, whatever others extra_model_paths.yaml names."""
    register_folders()
    return os.path.join(folder_paths.models_dir, FOLDER)


def model_path(name: str, offered: Sequence[str] | None = None) -> str:
    """Path of a bundled model, of a training run's, or of a file in the model folders.

    Args:
        name: as a node's input has it.
        offered: the names that the input offers, for the error; None for the files in the model folders.

    Raises:
        CheckpointError: there is none of that name.
    """
    register_folders()
    if name in run_models():
        return os.fspath(runs_folder() / name.removeprefix(f"{RUNS}/"))
    if name not in checkpoint.bundled():
        path = folder_paths.get_full_path(FOLDER, name)
        if path is None:
            known = ", ".join(model_files() if offered is None else offered) or "none"
            raise checkpoint.CheckpointError(f"{name!r}: no such model; there are: {known}")
        return path
    return os.fspath(checkpoint.resolve(name))


def community_upsampler(upscale_model: Any, tile: int | None) -> Enlarge:
    """An UPSCALE_MODEL as a function that enlarges; load its network with `run`.

    Its receptive field is not known, so its tiles overlap and are blended, as ComfyUI's own node does it.

    Args:
        upscale_model: what ComfyUI's "Load Upscale Model" gives.
        tile: side of a tile in pixels, None for COMMUNITY_TILE.

    Raises:
        TypeError: something else is connected.
        ValueError: the model does not enlarge, or is none of colour or grey images.
    """
    network, scale = community_network(upscale_model), upscale_model.scale
    grey = upscale_model.input_channels == 1
    channels = upscale_model.input_channels, upscale_model.output_channels
    if scale <= 1 or channels not in ((1, 1), (3, 3)):
        raise ValueError(
            f"upscale_model: expected one that enlarges RGB or grey, got scale {scale}, channels {channels}"
        )
    first = next(network.parameters(), None)
    dtype = torch.float32 if first is None else first.dtype

    def enlarge(rgb: Tensor, on_step: OnStep | None) -> Tensor:
        B, _, H, W = rgb.shape
        planes = rgb.reshape(3 * B, 1, H, W) if grey else rgb
        # A model that asks not to be tiled is run whole.
        whole = getattr(upscale_model.tiling, "name", "") == "INTERNAL"
        side = max(H, W) if whole else max(tile or COMMUNITY_TILE, 2 * COMMUNITY_OVERLAP)
        count = comfy.utils.get_tiled_scale_steps(W, H, tile_x=side, tile_y=side, overlap=COMMUNITY_OVERLAP)
        result = comfy.utils.tiled_scale(
            planes,
            lambda crop: upscale_model(crop.to(dtype)).float(),
            tile_x=side,
            tile_y=side,
            overlap=COMMUNITY_OVERLAP,
            upscale_amount=scale,
            out_channels=channels[1],
            output_device=rgb.device,
            pbar=_Count(on_step, count * planes.shape[0]),
        )
        return result.reshape(B, 3, *result.shape[-2:]) if grey else result

    enlarge.scale = scale  # type: ignore[attr-defined]  # tells core how many passes to expect
    return enlarge


def community_network(upscale_model: Any) -> nn.Module:
    """The network of an UPSCALE_MODEL."""
    network = getattr(upscale_model, "model", None)
    if not isinstance(network, nn.Module) or not callable(upscale_model):
        raise TypeError(f"upscale_model: expected an UPSCALE_MODEL, got {type(upscale_model).__name__}")
    return network


class _Count:
    """Looks like ComfyUI's progress bar to `tiled_scale`, and reports to an `on_step`."""

    def __init__(self, on_step: OnStep | None, total: int) -> None:
        self._progress = Progress(on_step, total)

    def update(self, steps: int) -> None:
        self._progress.advance(steps)
