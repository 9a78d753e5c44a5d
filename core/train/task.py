"""What is trained: a chain of stages, a single upsampler or denoiser. One interface over them for the loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..chain import Chain, ChainConfig, channels_last
from ..denoiser import Denoiser, DenoiserConfig
from ..resample import resample
from ..upsample import upsample
from ..upsamplers import Upsampler, build_upsampler, save_upsampler
from ..upsamplers.registry import upsampler_config
from .config import LossConfig, ModelConfig, TrainConfig, alike_but_for_scale
from .denoiser_task import DenoiserTask
from .learner import check_pattern
from .losses import ImageTerms, pixel_loss
from .phase import PhaseConfig
from .share import Share
from .unroll import unrolled_losses

Model = Chain | Upsampler | Denoiser


def enlarged(image: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
    """What is shown of an input [1, 3, h, w] beside a model's result: itself, and enlarged to `size` by bicubic."""
    return {"input": image, "bicubic": resample(image, size).clamp(0, 1)}


class ChainTask:
    """Training of a chain, several of its stages unrolled."""

    def __init__(self, config: ChainConfig) -> None:
        self.config = config

    def build(self) -> Chain:
        """The chain at birth."""
        return Chain(self.config)

    def factors(self, stages: int) -> tuple[int, ...]:
        """Size after each stage, in multiples of the input."""
        return tuple(2**k for k in range(1, stages + 1))

    def losses(self, model: nn.Module, share: Share, loss: LossConfig, image_terms: ImageTerms) -> dict[str, Tensor]:
        """The weighted share of each term, see `unrolled_losses`."""
        return unrolled_losses(_chain(model), share, loss, image_terms)

    def outputs(self, model: nn.Module, image: Tensor, stages: int, dtype: str) -> list[Tensor]:
        """What the model makes of an image, stage by stage, as it is used: [B, 3, H·factor, W·factor] in 0..1."""
        return _chain(model).stages_of(image, scale=2**stages, dtype=dtype)

    def shown(self, image: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
        """The picture as it comes in, and enlarged to `size` without a model."""
        return enlarged(image, size)

    def inherit(self, model: nn.Module, average: nn.Module, phase: PhaseConfig) -> None:
        """A stage that is trained for the first time takes over the averaged weights that fit of another one."""
        target = _chain(model).stage(phase.stages)
        _take_over(target, _chain(average).stage(phase.start_from).state_dict())
        _chain(average).stage(phase.stages).load_state_dict(target.state_dict())

    def save(self, model: nn.Module, path: Path, provenance: Mapping[str, Any]) -> None:
        """Writes a checkpoint for use."""
        _chain(model).save(path, provenance)


class UpsamplerTask:
    """Training of a single upsampler of any scale."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = dict(config)

    def build(self) -> Upsampler:
        """The network at birth."""
        return build_upsampler(self.config)

    def factors(self, stages: int) -> tuple[int, ...]:
        """Its scale."""
        return (int(self.config.get("scale", 2)),)

    def losses(self, model: nn.Module, share: Share, loss: LossConfig, image_terms: ImageTerms) -> dict[str, Tensor]:
        """The weighted share of each term."""
        image, target = share.batch.scales
        output = model(image)
        terms = image_terms(output, target)
        if loss.output:
            terms["output"] = pixel_loss(loss.pixel, loss.channel)(output, target)
        return {name: share.weight * value for name, value in terms.items()}

    def outputs(self, model: nn.Module, image: Tensor, stages: int, dtype: str) -> list[Tensor]:
        """What the model makes of an image, as it is used: [B, 3, H·scale, W·scale] in 0..1."""
        (factor,) = self.factors(stages)
        size = (image.shape[2] * factor, image.shape[3] * factor)
        device = next(model.parameters()).device
        return [upsample(image.to(device), size, model, dtype=dtype).to(image.device)]

    def shown(self, image: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
        """The picture as it comes in, and enlarged to `size` without a model."""
        return enlarged(image, size)

    def inherit(self, model: nn.Module, average: nn.Module, phase: PhaseConfig) -> None:
        """There are no other stages."""

    def save(self, model: nn.Module, path: Path, provenance: Mapping[str, Any]) -> None:
        """Writes a checkpoint for use."""
        save_upsampler(model, path, provenance=provenance)  # type: ignore[arg-type]


Task = ChainTask | UpsamplerTask | DenoiserTask


def task_of(config: TrainConfig) -> Task:
    """The task of a run."""
    if config.denoiser is not None:
        return DenoiserTask(config.denoiser)
    return ChainTask(config.chain) if config.upsampler is None else UpsamplerTask(config.upsampler)


def config_of(model: Model) -> ModelConfig:
    """The config that a model of its shape is built from."""
    return model.config if isinstance(model, Chain | Denoiser) else upsampler_config(model)


def check_fits(init: Model, config: TrainConfig) -> None:
    """Checks that a run can start from a model.

    Raises:
        ValueError: it has another config, and differs not only in an upsampler's scale, a chain's back-projection,
            or the kappa that the run gives it.
    """
    wanted, found = config_of(task_of(config).build()), config_of(init)
    scaled = isinstance(wanted, dict) and isinstance(found, dict) and alike_but_for_scale(found, wanted)
    if isinstance(found, DenoiserConfig):
        found = replace(found, conditioned=False)
    if isinstance(found, ChainConfig) and isinstance(wanted, ChainConfig):
        found = replace(config.starting_from(found).chain, back_projection=wanted.back_projection)
    if found != wanted and not scaled:
        got = "another shape" if type(found) is type(wanted) else type(init).__name__
        told = str(wanted["kind"]) if isinstance(wanted, dict) else type(wanted).__name__.removesuffix("Config").lower()
        raise ValueError(f"init: expected a model with the config of the run, a {told}, got {got}")


def trainable(
    task: Task, init: Model | None, seed: int, device: torch.device, afresh: Sequence[str] = ()
) -> nn.Module:
    """A model of the run's own, ready for training: a copy of `init`, or one at birth, which the seed decides.

    An upsampler of another scale gives the weights that fit, all but the last layers': so Lim 2017 trained EDSR ×3 and
    ×4.

    Args:
        task: what is trained.
        init: the model that is copied, if any.
        seed: of the weights at birth.
        device: where it is trained.
        afresh: patterns of names that are not copied.

    Raises:
        ValueError: a pattern that no parameter matches.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = task.build()
    for pattern in afresh:
        check_pattern(pattern, model, "afresh")
    if init is not None:
        weights = init.state_dict()
        _take_over(model, {k: v for k, v in weights.items() if not any(fnmatchcase(k, p) for p in afresh)})
    return channels_last(model.to(device)).train()  # pyright: ignore


def _take_over(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copies the weights that a network has, too, in the same shape."""
    own = network.state_dict()
    network.load_state_dict({**own, **{k: v for k, v in weights.items() if k in own and v.shape == own[k].shape}})


def _chain(model: nn.Module) -> Chain:
    if not isinstance(model, Chain):
        raise TypeError(f"model: expected a Chain, got {type(model).__name__}")
    return model
