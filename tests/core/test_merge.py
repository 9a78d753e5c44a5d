"""The end of a stage in bands of rows equals the separate skip and fusion of whole images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from progressive_upsampling.core.dynamic_weights import DynamicWeights
from progressive_upsampling.core.fusion import fuse
from progressive_upsampling.core.merge import merge
from progressive_upsampling.core.resample import resample
from progressive_upsampling.core.residual import skip

from .tiny import picture, randomised

SIZES = [((64, 94), (32, 47)), ((67, 41), (40, 41)), ((1, 1), (1, 1)), ((2, 300), (1, 151)), ((131, 7), (66, 20))]
WEIGHTS = [0.2, 0.0, 0.6]


def expected(current: Tensor, previous: Tensor, weights: list[float], model: DynamicWeights | None) -> Tensor:
    before = resample(previous, (current.shape[2], current.shape[3])).clamp(0, 1)
    result = skip(current, before, "weighted", weights=weights)
    if model is not None:
        # alpha is the last one's, as the stage has it
        result[:, :3] = fuse([before[:, :3], result[:, :3]], "learned", model=model).image
    return result


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("size", "before"), SIZES)
@pytest.mark.parametrize("fusion", [True, False])
@torch.no_grad()
def test_bands_are_the_whole(size: tuple[int, int], before: tuple[int, int], channels: int, fusion: bool) -> None:
    current, previous = picture(*size, 2, channels, seed=1), picture(*before, 2, channels)
    if channels == 4:
        current[:, 3:] = resample(previous[:, 3:], size).clamp(0, 1)
    model = randomised(DynamicWeights(), 0.3) if fusion else None
    whole = expected(current, previous, WEIGHTS, model)
    for band in (1, 300, 10**9):
        result = merge(current.clone(), previous, WEIGHTS, model, band=band)
        torch.testing.assert_close(result, whole, atol=2e-6, rtol=0)


def test_the_result_takes_the_place_of_the_current_image() -> None:
    current, previous = picture(20, 30), picture(10, 15, seed=1)
    kept = previous.clone()
    assert merge(current, previous, [0.5], None, band=60) is current
    assert torch.equal(previous, kept)


def test_without_weights_and_fusion_nothing_changes() -> None:
    current = picture(20, 30)
    assert torch.equal(merge(current.clone(), picture(10, 15, seed=1), [0.0, 0.0], None), current)


def test_every_band_is_reported() -> None:
    calls: list[tuple[int, int]] = []
    merge(picture(20, 30), picture(10, 15), [0.5], None, band=150, on_band=lambda *call: calls.append(call))
    assert calls == [(5, 20), (10, 20), (15, 20), (20, 20)]
