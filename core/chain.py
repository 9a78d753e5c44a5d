"""The chain: the whole module as one callable."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .adaptive_noise import MODES
from .back_projection import back_project
from .chain_stream import StageStream, run_in_columns, stage_streams
from .checkpoint import CheckpointError, built, load_into, read_checkpoint, resolve, write_checkpoint
from .checks import check_choice, check_image, check_integer, check_multiplier, check_number
from .config import from_dict, to_dict
from .denoise import STEPS
from .noise import KINDS, MAX_SEED, inject_noise
from .precision import DTYPES, check_weights
from .preview import preview_of
from .progress import OnStep, Progress
from .resample import METHODS
from .sizes import stage_sizes, target_size
from .stage import Stage, StageConfig
from .upsample import Enlarge, check_method, upsample
from .upsamplers import load_upsampler

DEFAULT = "default"
KIND = "chain"
GROUP_PIXELS = 1 << 20  # small images run together, up to this many output pixels
PROJECTION_COST = 1 / 32  # of a pixel, where a stage's is 1

Model = TypeVar("Model", bound=nn.Module)


def _default_stages() -> tuple[StageConfig, ...]:
    # The first stage costs a sixteenth of the third and decides most of the result, so it has the deeper upsampler.
    first = {"kind": "edsr", "scale": 2, "width": 64, "blocks": 16, "tail": "direct"}
    return (StageConfig(upsampler=first), StageConfig())


@dataclass(frozen=True)
class ChainConfig:
    """What a chain is made of.

    Attributes:
        stages: in order. Further stages use the last one's weights: it is trained on its own output.
        back_projection: whether the last result is brought back to the image that it began with, see
            `core.back_projection`; for a chain that learned from pictures reduced by bicubic.
    """

    stages: tuple[StageConfig, ...] = _default_stages()
    back_projection: bool = False

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("stages: expected at least one, got none")
        check_choice(self.back_projection, "back_projection", (False, True))


@dataclass(frozen=True)
class Settings:
    """What a user may steer in a run of the chain.

    Attributes:
        seed: 0..2^64-1 for all images of the batch alike, or one for each; the same seed gives the same picture.
            Counts only where detail and strength are above 0: without them there is no noise.
        strength: multiplier on the noise, 0 = off, 1 = as trained.
        noise: "learned", "gradient" or "uniform": where the noise goes.
        distribution: "gaussian", "uniform" or "correlated".
        steps: 1, 2, 4 or 8 evaluations of the refined estimate, where detail asks for one.
        detail: 0 = least error, 1 = most texture.
        detail_mask: [B or 1, 1, h, w] in 0..1 of any size, multiplier on detail at every pixel: brought to the size of
            each stage by bilinear. None is 1 everywhere.
        skip: multiplier on the residual skips, 0 = off, 1 = as trained: on that from stage to stage, and on the
            back-projection of a chain that has it.
        fusion: whether the scales are fused after each stage.
        tile: side of the square whose area is run at a time, in pixels, None to choose; does not change the result.
        dtype: "auto", "fp32", "bf16" or "fp16".

    Raises:
        TypeError, ValueError: a field is not as described.
    """

    seed: int | Sequence[int] = 0
    strength: float = 1.0
    noise: str = "learned"
    distribution: str = "gaussian"
    steps: int = 1
    detail: float = 0.0
    detail_mask: Tensor | None = field(default=None, compare=False)  # tensors cannot be compared as a whole
    skip: float = 1.0
    fusion: bool = True
    tile: int | None = None
    dtype: str = "auto"

    def __post_init__(self) -> None:
        for seed in self.seed if isinstance(self.seed, Sequence) else [self.seed]:
            check_integer(seed, "seed", 0, MAX_SEED)
        check_number(self.strength, "strength", 0)
        check_choice(self.noise, "noise", MODES)
        check_choice(self.distribution, "distribution", KINDS)
        check_choice(self.steps, "steps", STEPS)
        check_number(self.detail, "detail", 0, 1)
        if self.detail_mask is not None:
            check_multiplier(self.detail_mask, "detail_mask")
        check_number(self.skip, "skip", 0, 1)
        check_choice(self.fusion, "fusion", (False, True))
        if self.tile is not None:
            check_integer(self.tile, "tile", minimum=1)
        check_choice(self.dtype, "dtype", DTYPES)

    @property
    def refined(self) -> bool:
        """Whether there is noise, and a refined estimate with it."""
        return self.detail > 0 and self.strength > 0

    def seeds(self, batch: int) -> list[int]:
        """The seed of each of `batch` images.

        Raises:
            ValueError: there are seeds for another number of images.
        """
        if not isinstance(self.seed, Sequence):
            return [self.seed] * batch
        if len(self.seed) != batch:
            raise ValueError(f"seed: expected one, or one for each of {batch} images, got {len(self.seed)}")
        return list(self.seed)

    def of_images(self, images: slice, batch: int) -> Settings:
        """Those of some of `batch` images: with their seeds and masks alone.

        Raises:
            ValueError: there are seeds or masks for another number of images.
        """
        mask = self.detail_mask
        if mask is not None and mask.shape[0] > 1:
            if mask.shape[0] != batch:
                raise ValueError(f"detail_mask: expected one, or one for each of {batch} images, got {mask.shape[0]}")
            mask = mask[images]
        return replace(self, seed=self.seeds(batch)[images], detail_mask=mask)


class Chain(nn.Module):
    """Takes an image to its target size stage by stage.

    Example:
        >>> chain = Chain.from_pretrained()
        >>> y = chain(x, scale=8, seed=0)  # x: [B, 3, H, W] in 0..1
    """

    def __init__(self, config: ChainConfig | None = None) -> None:
        super().__init__()
        self.config = config or ChainConfig()
        self.stages = nn.ModuleList(Stage(stage) for stage in self.config.stages)
        self.provenance: dict[str, Any] = {}

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike[str] = DEFAULT) -> Chain:
        """The chain of a bundled checkpoint or of a file, float32 on the CPU, ready to run.

        Raises:
            CheckpointError: no such checkpoint, or not one of a chain.
        """
        checkpoint = read_checkpoint(resolve(name_or_path), KIND)
        try:
            chain = built(lambda: cls(from_dict(ChainConfig, checkpoint.config)))
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{checkpoint.path}: damaged metadata: config: {error}") from error
        load_into(chain, checkpoint)
        chain.provenance = dict(checkpoint.provenance)
        return channels_last(chain).eval()

    def save(
        self,
        path: str | os.PathLike[str],
        provenance: Mapping[str, Any] | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Writes a checkpoint, whole or not at all.

        Args:
            path: ends in .safetensors.
            provenance: data, recipe, licence, metrics; None keeps what the chain was loaded with.
            dtype: storage; torch.float16 halves the file, None keeps that of the weights.

        Raises:
            CheckpointError: as `write_checkpoint`.
        """
        kept = self.provenance if provenance is None else provenance
        write_checkpoint(path, self.state_dict(), kind=KIND, config=to_dict(self.config), provenance=kept, dtype=dtype)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def stage(self, number: int) -> Stage:
        """Stage `number`, counted from 1; beyond the last trained one, the last."""
        check_integer(number, "stage", minimum=1)
        stage = self.stages[min(int(number), len(self.stages)) - 1]
        if not isinstance(stage, Stage):
            raise TypeError(f"stage: expected a Stage, got {type(stage).__name__}")
        return stage

    def forward(
        self,
        image: Tensor,
        scale: float | None = None,
        size: tuple[int, int] | None = None,
        *,
        upsampler: Enlarge | nn.Module | str | None = None,
        on_step: OnStep | None = None,
        **settings: Any,
    ) -> Tensor:
        """The image at its target size; arguments as `stages_of`, of whose list this is the last.

        A large RGB picture at detail 0 goes through all stages at once on a CPU, see `core.chain_stream`: none of the
        images before the last one is ever whole. Its values are those of `stages_of` up to rounding.
        """
        return self._outputs(image, scale, size, upsampler, on_step, settings, last_alone=True)[-1]

    def stages_of(
        self,
        image: Tensor,
        scale: float | None = None,
        size: tuple[int, int] | None = None,
        *,
        upsampler: Enlarge | nn.Module | str | None = None,
        on_step: OnStep | None = None,
        **settings: Any,
    ) -> list[Tensor]:
        """The image after every stage.

        Args:
            image: [B, C, H, W] in 0..1, C of 1, 3 or 4; not changed.
            scale: 0 < scale <= 64, both sides alike. Not above 1 only resamples.
            size: (height, width) in pixels instead, any aspect ratio.
            upsampler: takes the place of the stages' own: a method of `resample`, the name of a bundled upsampler or
                its file, a network of `core.upsamplers` on the chain's device, or a function that enlarges. Nothing is
                projected back then: such a network may clean what it enlarges.
            on_step: progress, with previews; may raise to cancel.
            **settings: the fields of `Settings`.

        Returns:
            one image a stage, [B, C, h, w] float32 in 0..1 on the device of `image`, the last of the target size.

        Raises:
            TypeError, ValueError: an argument is not as described; the chain's weights are not float32.
            CheckpointError: no upsampler of that name.
        """
        return self._outputs(image, scale, size, upsampler, on_step, settings, last_alone=False)

    @torch.no_grad()
    def _outputs(
        self,
        image: Tensor,
        scale: float | None,
        size: tuple[int, int] | None,
        upsampler: Enlarge | nn.Module | str | None,
        on_step: OnStep | None,
        settings: dict[str, Any],
        last_alone: bool,
    ) -> list[Tensor]:
        check_weights(self, "chain")
        chosen = Settings(**settings)
        check_image(image)
        if isinstance(upsampler, str) and upsampler not in METHODS:
            upsampler = self._named_upsampler(upsampler)
        if upsampler is not None:
            check_method(upsampler, "upsampler")
        B, _, H, W = image.shape
        chosen = chosen.of_images(slice(B), B)
        target = target_size(H, W, scale, size)
        sizes = stage_sizes(H, W, *target)
        if not sizes:
            result = upsample(image, target)
            _finish(Progress(on_step, 1), result)
            return [result]

        group = max(GROUP_PIXELS // (target[0] * target[1]), 1)
        cost = sum(h * w for h, w in sizes)
        progress = Progress(on_step, cost * B)
        results: list[Tensor] = []
        for first in range(0, B, group):
            images = slice(first, first + group)
            part = image[images].float().to(self.device)
            report = progress.part(cost * part.shape[0])
            outputs = self._run(part, sizes, chosen.of_images(images, B), upsampler, report, last_alone)
            if group >= B:
                return [output.to(image.device) for output in outputs]
            if first == 0:
                results = [output.new_empty(B, *output.shape[1:], device=image.device) for output in outputs]
            for result, output in zip(results, outputs, strict=True):
                result[images] = output
        return results

    def _named_upsampler(self, name: str) -> nn.Module:
        try:
            return channels_last(load_upsampler(name).to(self.device))
        except CheckpointError as error:
            methods = ", ".join(map(repr, METHODS))
            raise CheckpointError(f"upsampler: expected one of {methods}, or a network: {error}") from None

    def _run(
        self,
        image: Tensor,
        sizes: list[tuple[int, int]],
        settings: Settings,
        upsampler: Enlarge | nn.Module | str | None,
        on_step: OnStep,
        last_alone: bool,
    ) -> list[Tensor]:
        projected = self.config.back_projection and upsampler is None
        costs = [h * w for h, w in sizes]
        projection_cost = PROJECTION_COST * costs[-1] if projected else 0.0
        progress = Progress(on_step, sum(costs) + projection_cost)
        streams = self._streams(image, sizes, settings, upsampler) if last_alone else []
        if streams:
            report = progress.part(sum(costs))
            outputs = [run_in_columns(image, streams, tile=settings.tile, dtype=settings.dtype, on_step=report)]
        else:
            outputs, current = [], image
            for number, (size, cost) in enumerate(zip(sizes, costs, strict=True), 1):
                current = self._run_stage(current, number, size, settings, upsampler, progress.part(cost))
                outputs.append(current)
        current = outputs[-1]
        if projected:
            back_project(current, image, settings.skip, overwrite=True, on_step=progress.part(projection_cost))
            _finish(progress, current)
        return outputs

    def _streams(
        self,
        image: Tensor,
        sizes: Sequence[tuple[int, int]],
        settings: Settings,
        upsampler: Enlarge | nn.Module | str | None,
    ) -> list[StageStream]:
        """The stages as `run_in_columns` takes them; none where it cannot do what is asked for, or need not."""
        small = math.prod(sizes[-1]) <= GROUP_PIXELS
        if small or settings.refined or image.shape[1] != 3 or image.device.type != "cpu":
            return []
        stages = [self.stage(number) for number in range(1, len(sizes) + 1)]
        return stage_streams(stages, image, sizes, upsampler, skip=settings.skip, fusion=settings.fusion)

    def _run_stage(
        self,
        previous: Tensor,
        number: int,
        size: tuple[int, int],
        settings: Settings,
        upsampler: Enlarge | nn.Module | str | None,
        on_step: OnStep,
    ) -> Tensor:
        stage = self.stage(number)
        run = {"tile": settings.tile, "dtype": settings.dtype}
        refine = settings.refined
        evaluations = int(stage.config.denoiser.regression) + (settings.steps if refine else 0)
        progress = Progress(on_step, evaluations + 2)  # those, the upsampler, and the skip with the fusion

        current = stage.upsample(previous, size, method=upsampler, on_step=progress.part(1), **run)
        if progress.watched:
            progress.advance(0, preview_of(current))
        if refine:
            up, sigma = current, stage.sigma(current, settings.noise, settings.strength)
            noisy = inject_noise(up, sigma, settings.seeds(up.shape[0]), number, settings.distribution)
            mask = settings.detail_mask
            current = stage.denoise(
                noisy,
                sigma,
                up,
                steps=settings.steps,
                detail=settings.detail,
                detail_mask=None if mask is None else mask.to(up.device),
                on_step=progress.part(evaluations),
                **run,
            )
            del up, sigma, noisy
        elif evaluations:  # without noise the denoiser evaluates its regression alone, if it has one
            current = stage.regress(current, on_step=progress.part(evaluations), overwrite=True, **run)
        current = stage.merge_over(
            current, previous, settings.skip, fusion=settings.fusion, dtype=settings.dtype, on_step=progress.part(1)
        )
        _finish(progress, current)
        return current


def channels_last(model: Model) -> Model:
    """The model with its convolution weights laid out as CPUs and tensor cores like them; in place."""
    model._apply(lambda t: t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t)
    return model


def _finish(progress: Progress, image: Tensor) -> None:
    progress.finish(preview_of(image) if progress.watched else None)
