"""Denoising of whole images: the regression, the few-step sampler, and the way between them (article section 2.4).

The notation is that of `core.denoiser`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from .checks import check_choice, check_image, check_integer, check_map, check_number
from .denoiser import Blind, Denoiser, Estimate, Refined, Regressed
from .precision import autocast, check_weights, resolve_dtype
from .progress import OnStep, Progress
from .row_stream import Stream, rows_at_a_time, run_in_rows
from .tiling import auto_tile, run_tiled, working_memory
from .unet import UNetConfig

STEPS = (1, 2, 4, 8)
FULL_SIGMA = 4 / 255  # of noise that detail counts in full with; with less it counts less, and flat areas stay flat
CPU_SIDE = 362  # pixels: of so large a square a map of the finest level has 4 MB in bfloat16, which caches hold


def denoise(
    model: Denoiser,
    noisy: Tensor,
    sigma: Tensor,
    conditioning: Tensor | None = None,
    *,
    steps: int = 1,
    detail: float = 0.0,
    detail_mask: Tensor | None = None,
    blind: Denoiser | None = None,
    tile: int | None = None,
    dtype: str = "auto",
    on_step: OnStep | None = None,
) -> Tensor:
    """Takes the noise out of an image, and refines it in a few steps.

    The result is (1 - alpha) · regression + alpha · refined with alpha = `detail` · `detail_mask`: the straight way
    from the least error to the most natural texture (arXiv 2107.02555). Where sigma falls under FULL_SIGMA, four grey
    levels, alpha falls with it to 0, so that no noise means exactly the regression, and little noise little texture.
    Of a model without one (see `DenoiserConfig`) the regression is the conditioning image.

    Args:
        model: the denoiser, of float32 weights; images must be on its device.
        noisy: y + s n, [B, 3, H, W]; not clamped.
        sigma: s, [B or 1, 1, H, W], standard deviation of the noise in units of the 0..1 image.
        conditioning: y, [B, 3, H, W] in 0..1. Without it the model works blind: it estimates y first.
        steps: K, evaluations of the refined estimate: 1, 2, 4 or 8.
        detail: 0..1; at 0 only the regression is evaluated.
        detail_mask: [B or 1, 1, H, W] in 0..1, multiplier on detail at every pixel: where it is 0 the result is
            exactly that of detail 0. None is 1 everywhere.
        blind: makes the blind estimate in place of `model`, where one is needed: one trained for nothing else does it
            better.
        tile: side of the square whose area is run at a time, as a strip of rows; None to choose one by the
            memory that is free. The result does not depend on it.
        dtype: format the network computes in, see `precision.resolve_dtype`.
        on_step: progress, called after every strip; may raise to cancel.

    Returns:
        [B, 3, H, W] float32 in 0..1.

    Raises:
        TypeError, ValueError: an argument is not as described.

    Number of evaluations:
        1 for the regression, if the model has one, or the blind estimate, and `steps` more where `detail` and sigma
        ask for refinement. Where alpha is 1 everywhere, the regression is left out.
    """
    check_weights(model, "model")
    if blind is not None:
        check_weights(blind, "blind")
    check_image(noisy, "noisy", (3,))
    check_map(sigma, noisy)
    if conditioning is not None:
        check_image(conditioning, "conditioning", (3,))
        if conditioning.shape != noisy.shape:
            raise ValueError(f"conditioning: expected {tuple(noisy.shape)} as noisy, got {tuple(conditioning.shape)}")
    check_choice(steps, "steps", STEPS)
    check_number(detail, "detail", 0, 1)
    if not model.config.conditioned and (conditioning is not None or detail > 0):
        raise ValueError("model: expected one that conditioning and detail were trained with, got one for blind use")
    if detail_mask is not None:
        check_map(detail_mask, noisy, "detail_mask", maximum=1)

    noisy, sigma = noisy.float(), sigma.float()
    alpha = detail * (sigma / FULL_SIGMA).clamp(max=1)
    if detail_mask is not None:
        alpha = alpha * detail_mask.float()
    refine = bool((alpha > 0).any())
    whole = bool((alpha == 1).all()) and conditioning is not None
    known = whole or (conditioning is not None and not model.config.regression)
    evaluations = (steps if refine else 0) + (0 if known else 1)
    progress = Progress(on_step, evaluations)
    run = _Evaluator(model, noisy, tile, dtype, progress)
    sigma = sigma.expand(noisy.shape[0], -1, -1, -1)

    if conditioning is None:
        first = run if blind is None else _Evaluator(blind, noisy, tile, dtype, progress)
        y = regression = first.blind(noisy, sigma)
    else:
        y = conditioning.float()
        regression = y if known else run.regression(y)  # with alpha = 1 everywhere it has no part
    if not refine:
        progress.finish()
        return regression.clamp(0, 1)
    refined = sample(lambda z, y, eta: run.estimate(z, y, sigma, eta), noisy - y, y, steps)
    return regression.lerp(refined, alpha).clamp(0, 1)


def regress(
    model: Denoiser,
    image: Tensor,
    *,
    tile: int | None = None,
    dtype: str = "auto",
    on_step: OnStep | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """What `denoise` gives of an image without noise: the most likely true image, by one evaluation.

    Args:
        model: the denoiser, of float32 weights; images must be on its device.
        image: y, [B, 3, H, W] in 0..1.
        tile, dtype, on_step: as for `denoise`.
        out: takes the result, [B, 3, H, W] float32; may be the image itself.

    Returns:
        [B, 3, H, W] float32 in 0..1; `out`, if it is given.

    Raises:
        TypeError, ValueError: an argument is not as described.
    """
    check_weights(model, "model")
    check_image(image, "image", (3,))
    run = _Evaluator(model, image, tile, dtype, Progress(on_step, 1))
    if not model.config.regression:
        run.progress.finish()
        return torch.clamp(image.float(), 0, 1, out=out)
    return run.regression(image.float(), out).clamp_(0, 1)


def times(steps: int) -> list[float]:
    """1 = eta_K > … > eta_0 = 0, evenly spaced, steps + 1 values."""
    return [1 - k / steps for k in range(steps)] + [0.0]


def sample(estimate: Callable[[Tensor, Tensor, float], Tensor], z: Tensor, y: Tensor, steps: int) -> Tensor:
    """Follows the path from eta = 1 to 0 in deterministic steps that keep the noise they find.

    With d_hat = x_hat - y, the noise found is s n_hat = (z - (1 - eta) d_hat) / sqrt(eta), and the next state
    z' = (1 - eta') d_hat + sqrt(eta') s n_hat: s itself is not needed, so it may be 0.

    Args:
        estimate: x_hat of (z, y, eta).
        z: state at eta = 1, [B, 3, H, W]: noisy - y.
        y: conditioning image, [B, 3, H, W].
        steps: K, evaluations.

    Returns:
        The last x_hat, [B, 3, H, W], not clamped.
    """
    x_hat = y
    for eta, following in itertools.pairwise(times(steps)):
        x_hat = estimate(z, y, eta)
        d_hat = x_hat - y
        z = (1 - following) * d_hat + (following / eta) ** 0.5 * (z - (1 - eta) * d_hat)
    return x_hat


class _Evaluator:
    """The denoiser on whole images: in strips of rows, in the chosen format, with progress."""

    def __init__(self, model: Denoiser, image: Tensor, tile: int | None, dtype: str, progress: Progress) -> None:
        self.model, self.device, self.progress = model, image.device, progress
        self.dtype = resolve_dtype(dtype, image.device)
        if tile is None:
            budget = working_memory(self.device)
            tile = auto_tile(bytes_per_pixel(model.config.unet, self.dtype), halo=0, budget=budget)
        check_integer(tile, "tile", minimum=1)
        self.side = min(tile, CPU_SIDE) if self.device.type == "cpu" else tile

    def estimate(self, z: Tensor, y: Tensor, sigma: Tensor, eta: float) -> Tensor:
        """x_hat of a state; sigma is [B, 1, H, W]."""
        time = torch.tensor(eta, dtype=torch.float32, device=self.device).reshape(1, 1, 1, 1)
        return self._run(Refined(self.model, time), z, y, sigma)

    def regression(self, y: Tensor, out: Tensor | None = None) -> Tensor:
        """x_hat of y alone."""
        return self._run(Regressed(self.model), y, out=out)

    def blind(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        """x_hat of a noisy image alone; sigma is [B, 1, H, W]."""
        return self._run(Blind(self.model), noisy, sigma)

    def _run(self, estimate: Estimate, *images: Tensor, out: Tensor | None = None) -> Tensor:
        part = self.progress.part(1.0)
        H, W = images[0].shape[2:]
        rows = rows_at_a_time(H, W, self.side)

        def report(done: int, total: int) -> None:
            part(done, total, None)

        def whole(*crops: Tensor) -> Tensor:
            return self.model.whole(estimate, *crops)

        def stream() -> Stream:
            return self.model.stream(estimate, [image.shape[1] for image in images], H, W)

        with torch.no_grad(), autocast(self.device, self.dtype):
            if rows is not None:
                return run_in_rows(stream, images, rows=rows, on_rows=report, out=out)
            return run_tiled(whole, images, halo=0, tile=max(self.side, H, W), on_tile=report, out=out)


def bytes_per_pixel(config: UNetConfig, dtype: torch.dtype) -> float:
    """Working memory of one evaluation for each pixel: four live feature maps of the finest level, and the input.

    Twice what they hold, as measured: between layers of different sizes the heap has gaps.
    """
    features = config.widths[0] / config.unshuffle**2
    return 2 * ((4 * features + 2 * config.in_channels) * dtype.itemsize + 8 * 4)
