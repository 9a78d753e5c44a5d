"""One implementation: the graph of separate nodes, Progressive Upscale and Chain give the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from progressive_upsampling.core.chain import Chain
from progressive_upsampling.core.layout import from_bhwc, to_bhwc
from progressive_upsampling.core.resample import METHODS
from progressive_upsampling.core.sizes import stage_sizes
from progressive_upsampling.nodes._upsamplers import NETWORKS
from progressive_upsampling.nodes.adaptive_noise import AdaptiveNoise
from progressive_upsampling.nodes.denoise import AttnUNetDenoise
from progressive_upsampling.nodes.inject_noise import InjectNoise
from progressive_upsampling.nodes.multi_scale_fuse import MultiScaleFuse
from progressive_upsampling.nodes.progressive_upscale import ProgressiveUpscale
from progressive_upsampling.nodes.residual_skip import ResidualSkip
from progressive_upsampling.nodes.upsample import Upsample

from .conftest import call

Picture = Callable[..., Tensor]


def graph(image: Tensor, chain: Chain, size: tuple[int, int], **s: Any) -> list[Tensor]:
    """The stages as a user wires them, node by node."""
    source, results = image, []
    for number, (height, width) in enumerate(stage_sizes(*image.shape[1:3], *size), 1):
        common = {"model": chain, "stage": number}
        (up,) = call(Upsample, image=image, width=width, height=height, precision=s["dtype"], **common)
        (sigma,) = call(AdaptiveNoise, image=up, mode=s["noise"], strength=s["strength"], **common)
        noisy, applied = call(
            InjectNoise,
            image=up,
            sigma_map=sigma,
            seed=s["seed"],
            distribution=s["distribution"],
            stage=number,
        )
        (clean,) = call(
            AttnUNetDenoise,
            noisy_image=noisy,
            sigma_map=applied,
            conditioning=up,
            detail=s["detail"],
            steps=str(s["steps"]),
            precision=s["dtype"],
            detail_mask=s["detail_mask"],
            **common,
        )
        (skipped,) = call(ResidualSkip, current=clean, previous=image, strength=s["skip"], **common)
        if s["fusion"]:
            skipped, _ = call(MultiScaleFuse, image_1=skipped, image_2=image, precision=s["dtype"], **common)
        image = skipped
        results.append(image)
    (results[-1],) = call(ResidualSkip, mode="back_projection", current=image, previous=source, strength=s["skip"])
    return results


SETTINGS = {
    "seed": 7,
    "strength": 1.0,
    "detail": 0.0,
    "steps": 4,
    "noise": "learned",
    "distribution": "gaussian",
    "skip": 1.0,
    "fusion": True,
    "dtype": "fp32",
    "detail_mask": None,
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"detail": 0.6},
        {"detail": 1.0, "steps": 1, "noise": "gradient", "strength": 0.5},
        {"detail": 0.5, "noise": "uniform", "distribution": "correlated", "skip": 0.3, "fusion": False},
        {"strength": 0.0, "detail": 0.8},
        {"dtype": "auto"},
    ],
    ids=str,
)
def test_graph_node_and_chain_agree(picture: Picture, chain: Chain, changes: dict[str, Any]) -> None:
    settings = SETTINGS | changes
    image, size = picture(19, 26), (75, 101)
    expected = [to_bhwc(stage) for stage in chain.stages_of(from_bhwc(image), size=size, **settings)]
    whole, stages = call(
        ProgressiveUpscale,
        image=image,
        model=chain,
        width=size[1],
        height=size[0],
        precision=settings["dtype"],
        **{key: value for key, value in settings.items() if key not in ("dtype", "steps")},
        steps=str(settings["steps"]),
    )
    separate = graph(image, chain, size, **settings)
    assert len(expected) == len(stages) == len(separate) == 2
    torch.testing.assert_close(whole, expected[-1], atol=1e-5, rtol=0)
    for ours, theirs, truth in zip(stages, separate, expected, strict=True):
        torch.testing.assert_close(ours, truth, atol=1e-5, rtol=0)
        torch.testing.assert_close(theirs, truth, atol=1e-5, rtol=0)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("batch", [1, 3])
def test_they_agree_for_grey_alpha_and_batches(picture: Picture, chain: Chain, channels: int, batch: int) -> None:
    settings = SETTINGS | {"detail": 0.7, "steps": 2}
    image, size = picture(17, 12, batch, channels), (68, 48)
    expected = chain.stages_of(from_bhwc(image), size=size, **settings)[-1]
    separate = graph(image, chain, size, **settings)[-1]
    torch.testing.assert_close(separate, to_bhwc(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("changes", [{}, {"detail": 0.7, "steps": 2}], ids=str)
def test_they_agree_for_a_cutout(picture: Picture, chain: Chain, changes: dict[str, Any]) -> None:
    settings = SETTINGS | changes
    image, size = picture(17, 23, 2, 4), (68, 92)
    image[0, ..., 3] = torch.linspace(2, -1, 23).clamp(0, 1)
    image[..., :3] *= image[..., 3:] > 0  # black, as files have it
    expected = [to_bhwc(stage) for stage in chain.stages_of(from_bhwc(image), size=size, **settings)]
    for ours, truth in zip(graph(image, chain, size, **settings), expected, strict=True):
        torch.testing.assert_close(ours, truth, atol=1e-5, rtol=0)
    assert expected[-1][0, :, -10:, :3].min() > 0.05  # what was black and not seen is not


@pytest.mark.parametrize("masks", [1, 3])
def test_they_agree_where_a_mask_limits_detail(picture: Picture, chain: Chain, masks: int) -> None:
    mask = torch.rand(masks, 9, 14, generator=torch.Generator().manual_seed(0)).gt(0.5).float()
    settings = SETTINGS | {"detail": 0.7, "steps": 2}
    image, size = picture(17, 12, 3), (68, 48)
    whole, stages = call(
        ProgressiveUpscale,
        **{"image": image, "model": chain, "scale": 4.0, "detail": 0.7, "steps": "2", "seed": 7},
        **{"precision": "fp32", "detail_mask": mask},
    )
    expected = chain(from_bhwc(image), size=size, **settings | {"detail_mask": mask[:, None]})
    separate = graph(image, chain, size, **settings | {"detail_mask": mask})
    torch.testing.assert_close(whole, to_bhwc(expected), atol=1e-5, rtol=0)
    for ours, theirs in zip(stages, separate, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(9, 40), (60, 5)])
def test_they_agree_where_one_side_becomes_smaller(picture: Picture, chain: Chain, size: tuple[int, int]) -> None:
    settings = SETTINGS | {"detail": 0.7, "steps": 2}
    image = picture(17, 12)
    expected = chain.stages_of(from_bhwc(image), size=size, **settings)
    for ours, truth in zip(graph(image, chain, size, **settings), expected, strict=True):
        torch.testing.assert_close(ours, to_bhwc(truth), atol=1e-5, rtol=0)


def test_one_pixel_and_a_thin_strip_work(picture: Picture, chain: Chain) -> None:
    for height, width in ((1, 1), (3, 70)):
        image = picture(height, width)
        whole, stages = call(ProgressiveUpscale, image=image, model=chain, scale=4.0)
        assert whole.shape == (1, 4 * height, 4 * width, 3)
        assert [stage.shape[1] for stage in stages] == [2 * height, 4 * height]


def test_a_scale_of_one_and_below_resamples(picture: Picture, chain: Chain) -> None:
    image = picture(20, 31)
    same, stages = call(ProgressiveUpscale, image=image, model=chain, scale=1.0)
    torch.testing.assert_close(same, image)
    assert len(stages) == 1
    half, _ = call(ProgressiveUpscale, image=image, model=chain, scale=0.5)
    assert half.shape == (1, 10, 16, 3)


def test_the_seed_changes_the_picture_only_with_detail(picture: Picture, chain: Chain) -> None:
    image = picture()
    runs = {
        (seed, detail): call(ProgressiveUpscale, image=image, model=chain, scale=2.0, seed=seed, detail=detail)[0]
        for seed in (1, 2)
        for detail in (0.0, 1.0)
    }
    assert torch.equal(runs[1, 0.0], runs[2, 0.0])
    assert (runs[1, 1.0] - runs[2, 1.0]).abs().max() > 1e-3


def test_without_a_model_the_bundled_one_runs(picture: Picture, default_chain: Chain) -> None:
    image = picture()
    ours, _ = call(ProgressiveUpscale, image=image, scale=2.0)
    named, _ = call(ProgressiveUpscale, image=image, scale=2.0, model=default_chain)
    assert torch.equal(ours, named)


@pytest.mark.parametrize("upsampler", [*METHODS, *NETWORKS])
def test_another_upsampler_takes_the_place_of_the_stages_own(picture: Picture, chain: Chain, upsampler: str) -> None:
    image = picture()
    inputs = {"image": image, "model": chain, "scale": 4.0, "precision": "fp32"}
    ours, _ = call(ProgressiveUpscale, upsampler=upsampler, **inputs)
    name = f"{upsampler}_x2" if upsampler in NETWORKS else upsampler
    expected = chain(from_bhwc(image), scale=4.0, upsampler=name, dtype="fp32")
    torch.testing.assert_close(from_bhwc(ours), expected)
    own, _ = call(ProgressiveUpscale, **inputs)
    assert not torch.equal(ours, own)


def test_two_upsamplers_at_once_are_refused(picture: Picture, chain: Chain) -> None:
    inputs = {"image": picture(), "model": chain, "scale": 4.0}
    with pytest.raises(ValueError, match="upsampler, upscale_model: expected one of the two, got 'bicubic' and a mod"):
        call(ProgressiveUpscale, upsampler="bicubic", upscale_model=object(), **inputs)
    with pytest.raises(ValueError, match="upsampler: expected one of"):
        call(ProgressiveUpscale, upsampler="magic", **inputs)
