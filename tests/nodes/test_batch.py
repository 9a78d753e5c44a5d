"""Batches are worked on a few images at a time: memory does not grow with their number beyond inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.model_management as management
import pytest
import torch
from torch import Tensor

from progressive_upsampling.core.tiling import DEFAULT_BUDGET
from progressive_upsampling.nodes import _batch, _runtime
from progressive_upsampling.nodes.denoise import AttnUNetDenoise
from progressive_upsampling.nodes.inject_noise import InjectNoise
from progressive_upsampling.nodes.multi_scale_fuse import MultiScaleFuse
from progressive_upsampling.nodes.residual_skip import ResidualSkip

from .conftest import call
from .test_images import CASES, images_for, run

Picture = Callable[..., Tensor]


@pytest.mark.parametrize("case", CASES)
def test_one_at_a_time_gives_what_all_at_once_give(
    case: str, picture: Picture, chain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = images_for(case, picture, batch=5, channels=4)
    together = run(case, picture, chain, images)
    monkeypatch.setattr(_batch, "GROUP_PIXELS", 1)
    torch.testing.assert_close(run(case, picture, chain, images), together, atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    ("batch", "pixels", "expected"),
    [(1, 1 << 24, [1]), (5, 1 << 24, [1, 1, 1, 1, 1]), (5, 1 << 19, [2, 2, 1]), (5, 100, [5]), (4, 1 << 18, [4])],
)
def test_groups_have_about_a_megapixel_of_results(batch: int, pixels: int, expected: list[int]) -> None:
    seen: list[int] = []
    heard: list[float] = []

    def work(images: slice, on_step: Any) -> list[Tensor]:
        seen.append(images.stop - images.start)
        on_step(1, 1, None)
        return [torch.arange(batch)[images], torch.ones(images.stop - images.start, 2)]

    numbers, others = _batch.in_groups(work, batch, pixels, lambda done, total, _: heard.append(done / total))
    assert seen == expected
    assert numbers.tolist() == list(range(batch))
    assert others.shape == (batch, 2)
    assert heard == sorted(heard) and heard[-1] == 1


def test_memory_is_asked_for_a_group_alone(picture: Picture, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    monkeypatch.setattr(_runtime, "load", lambda networks, memory: asked.append(memory) or torch.device("cpu"))
    for batch in (1, 50):
        _batch.run_batch(lambda job, images: [torch.zeros(images.stop - images.start, 1, 1, 3)], batch, 1 << 20)
    assert asked == [DEFAULT_BUDGET + _runtime.BYTES_PER_PIXEL * (1 << 20)] * 2


def test_a_batch_is_begun_again_in_smaller_tiles_when_memory_runs_out() -> None:
    tiles: list[tuple[int | None, int]] = []

    def work(job: _runtime.Job, images: slice) -> list[Tensor]:
        tiles.append((job.tile, images.start))
        if job.tile is None and images.start == 1:
            raise management.OOM_EXCEPTION("no memory")
        return [torch.full((1, 2, 2, 3), float(images.start))]

    (result,) = _batch.run_batch(work, 2, 1 << 20)
    assert tiles == [(None, 0), (None, 1), (512, 0), (512, 1)]
    assert result[:, 0, 0, 0].tolist() == [0, 1]


def test_batches_that_do_not_fit_are_refused(picture: Picture, chain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_batch, "GROUP_PIXELS", 1)
    three, two, masks = picture(batch=3), picture(batch=2), torch.full((2, 21, 34), 0.05)
    with pytest.raises(ValueError, match="sigma_map: expected one, or one for each of 3 images, got 2"):
        call(InjectNoise, image=three, sigma_map=masks)
    with pytest.raises(ValueError, match="conditioning: expected a batch of 3 images, got 2"):
        call(AttnUNetDenoise, noisy_image=three, conditioning=two, sigma_map=masks[:1], model=chain)
    with pytest.raises(ValueError, match="previous: expected a batch of 3 images, got 2"):
        call(ResidualSkip, current=three, previous=two, mode="constant")
    with pytest.raises(ValueError, match="image_2: expected a batch of 3 images, got 2"):
        call(MultiScaleFuse, image_1=three, image_2=two, mode="attention")
