"""Upsampling to any size by any method: interpolation, one of our networks, or any function that enlarges."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .checks import check_image, check_integer, check_size
from .layout import through_rgb
from .precision import autocast, resolve_dtype
from .progress import OnStep, Progress
from .resample import resample
from .row_stream import Chained, Local, Stream, rows_at_a_time, run_in_rows
from .tiling import auto_tile, run_tiled, working_memory
from .transparency import spread_colour
from .upsamplers import EDSR

CPU_SIDE = 192  # input pixels: of so large a square a map of 64 channels has 5 MB in bfloat16, which caches hold

# [B, 3, H, W] in 0..1 -> [B, 3, H * s, W * s]; `on_step` reports its progress. A network outside this pack, say.
Enlarge = Callable[[Tensor, "OnStep | None"], Tensor]


def upsample(
    image: Tensor,
    size: tuple[int, int],
    method: str | nn.Module | Enlarge = "bicubic",
    *,
    tile: int | None = None,
    dtype: str = "auto",
    on_step: OnStep | None = None,
) -> Tensor:
    """Brings an image to a size.

    A network or function is applied until the image is large enough on both axes, then antialiased bicubic
    reduces the result to the exact size. Nothing is enlarged past need: at or below the size of the input the
    image is only resampled. A method of `resample` goes to the size at once, alpha with the rest. Another size takes
    no colour from pixels that alpha hides, see `core.transparency`.

    Args:
        image: [B, C, H, W] in 0..1, C of 1, 3 or 4; not changed. Networks see RGB, alpha is resampled.
        size: (height, width) in pixels.
        method: a method of `resample`, an upsampler of `core.upsamplers` on the image's device, or a function.
        tile: side of a tile in input pixels, None to choose one by the memory that is free; no effect on the result. An
            EDSR runs in strips of rows in their place, of that area at most.
        dtype: format a network computes in, see `precision.resolve_dtype`.
        on_step: progress; may raise to cancel.

    Returns:
        [B, C, *size] float32 in 0..1.

    Raises:
        TypeError, ValueError: an argument is not as described, or the method does not enlarge.
    """
    check_image(image)
    check_size(size)
    check_method(method)
    size, image = (int(size[0]), int(size[1])), image.float()
    if size != (image.shape[2], image.shape[3]):
        image = spread_colour(image)
    if isinstance(method, str):
        result = resample(image, size, method).clamp_(0, 1)
        Progress(on_step, 1).finish()
        return result

    def enlarge(source: Tensor) -> Tensor:
        rgb = source
        report = Progress(on_step, max(_passes(image, size, method), 1))
        while rgb.shape[2] < size[0] or rgb.shape[3] < size[1]:
            before = rgb.shape
            if isinstance(method, nn.Module):
                rgb = _run_network(method, rgb, tile, dtype, report.part(1))
            else:
                rgb = method(rgb, report.part(1)).float().clamp(0, 1)
            if rgb.shape[:2] != before[:2] or rgb.shape[2] <= before[2] or rgb.shape[3] <= before[3]:
                raise ValueError(f"method: expected an image larger than {tuple(before)}, got {tuple(rgb.shape)}")
            check_image(rgb, "method")
        report.finish()  # a function need not report, and may enlarge more than was thought
        if rgb is not source and (rgb.shape[2], rgb.shape[3]) == size:
            return rgb
        return resample(rgb, size).clamp_(0, 1)

    return through_rgb(image, enlarge, size)


def check_method(method: object, name: str = "method") -> None:
    """Check that a value can upsample; a name is known only to what resolves it.

    Args:
        method: what should be a name, a network of `core.upsamplers` or a function.
        name: argument name for the messages.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(method, str) or (callable(method) and not isinstance(method, nn.Module)):
        return
    if not isinstance(method, nn.Module):
        raise TypeError(f"{name}: expected a name, a network or a function, got {type(method).__name__}")
    if not all(isinstance(getattr(method, needed, None), int) for needed in ("scale", "halo")):
        expected = "a network with the integers scale and halo, as those of core.upsamplers, or a function around it"
        raise TypeError(f"{name}: expected {expected}, got {type(method).__name__}")


def _passes(image: Tensor, size: tuple[int, int], method: nn.Module | Enlarge) -> int:
    """How often a method must be applied, for progress; a plain function is taken to double."""
    scale, count = max(int(getattr(method, "scale", 2)), 2), 0
    H, W = image.shape[-2:]
    while H * scale**count < size[0] or W * scale**count < size[1]:
        count += 1
    return count


def _run_network(network: nn.Module, rgb: Tensor, tile: int | None, dtype: str, on_step: OnStep) -> Tensor:
    compute = resolve_dtype(dtype, rgb.device)
    scale, (H, W) = int(network.scale), rgb.shape[2:]  # type: ignore[arg-type]
    streamed = isinstance(network, EDSR)
    halo = 0 if streamed else int(network.halo)  # type: ignore[arg-type]
    if tile is None:
        budget, whole = working_memory(rgb.device), None if streamed else (H, W)
        tile = auto_tile(bytes_per_pixel(network, compute), halo, budget=budget, whole=whole)
    check_integer(tile, "tile", minimum=1)

    def run(crop: Tensor) -> Tensor:
        return network(crop.contiguous(memory_format=torch.channels_last)).float().clamp(0, 1)

    def report(done: int, total: int) -> None:
        on_step(done, total, None)

    with torch.no_grad(), autocast(rgb.device, compute):
        if not isinstance(network, EDSR):
            return run_tiled(run, [rgb], scale=scale, halo=halo, tile=tile, on_tile=report)
        side = min(tile, CPU_SIDE) if rgb.device.type == "cpu" else tile
        rows = rows_at_a_time(H, W, side)
        if rows is None and len(rgb) == 1 and rgb.device.type == "cpu" and compute is torch.bfloat16:
            rows = H  # as a strip, where activations and sums are part of the convolutions
        if rows is None:
            return run_tiled(run, [rgb], scale=scale, halo=halo, tile=max(side, H, W), on_tile=report)

        return run_in_rows(lambda: enlarged_rows(network, H), [rgb], scale=scale, rows=rows, on_rows=report)


def enlarged_rows(network: EDSR, height: int) -> Stream:
    """A network over the rows of an image `height` high, its result in float32 and 0..1."""
    return Chained(network.stream(height), Local(lambda found: found.float().clamp_(0, 1)))


def bytes_per_pixel(network: nn.Module, dtype: torch.dtype) -> float:
    """Working memory for each input pixel: four of the widest feature map, and the result.

    Twice what they hold, as measured: between layers of different sizes the heap has gaps.
    """
    widest = max((p.shape[0] for p in network.parameters() if p.ndim == 4), default=3)
    return 2 * (4 * widest * dtype.itemsize + 12 * int(network.scale) ** 2)  # type: ignore[arg-type]
