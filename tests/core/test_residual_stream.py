"""Residual blocks row by row give what they give of the whole image, and keep a few rows of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from progressive_upsampling.core.residual_stream import ResidualBlocks
from progressive_upsampling.core.upsamplers.edsr import ResidualBlock

CHANNELS = 5


def some_blocks(count: int, scale: float = 1.0) -> list[ResidualBlock]:
    torch.manual_seed(count)
    return [ResidualBlock(CHANNELS, scale).double() for _ in range(count)]


def stream_of(blocks: list[ResidualBlock], scale: float = 1.0) -> ResidualBlocks:
    return ResidualBlocks([(block.conv1, block.conv2) for block in blocks], scale)


def features(height: int, width: int = 6, batch: int = 1) -> Tensor:
    drawn = torch.randn(batch, CHANNELS, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    return drawn.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
@pytest.mark.parametrize("scale", [1.0, 0.1])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("heights", [(1,), (2,), (9,), (1, 1, 1, 1), (1, 2, 3), (2, 1, 7), (3, 1), (40, 1), (11, 12)])
def test_strips_of_any_height_make_the_whole(heights: tuple[int, ...], count: int, scale: float) -> None:
    blocks, image = some_blocks(count, scale), features(sum(heights), batch=2)
    whole = nn.Sequential(*blocks)(image)
    stream, found = stream_of(blocks, scale), []
    strips = list(image.split(heights, dim=2))
    for number, strip in enumerate(strips, 1):
        found.append(stream.push(strip.contiguous(memory_format=torch.channels_last), number == len(strips)))
    rows = torch.cat([part for part in found if part is not None], 2)
    torch.testing.assert_close(rows, whole, rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_the_rows_given_are_left_as_they_are_and_those_found_stay() -> None:
    blocks = some_blocks(3)
    stream, image, found = stream_of(blocks), features(30), []
    for start in (0, 10, 20):
        strip = image[:, :, start : start + 10].clone(memory_format=torch.channels_last)
        found.append(stream.push(strip, start == 20))
        assert torch.equal(strip, image[:, :, start : start + 10])
    rows = torch.cat([part for part in found if part is not None], 2)  # the first ones after all strips have run
    torch.testing.assert_close(rows, nn.Sequential(*blocks)(image))


@torch.no_grad()
def test_two_rows_of_each_convolution_stay_in_memory() -> None:
    stream, strip = stream_of(some_blocks(3)), features(40)
    for _ in range(4):
        stream.push(strip, False)
    kept = [conv._kept for pair in stream._blocks for conv in pair]
    assert all(rows is not None and rows.untyped_storage().nbytes() == 2 * strip[:, :, 0].nbytes for rows in kept)


@torch.no_grad()
def test_the_number_format_is_that_of_the_rows() -> None:
    blocks, image = some_blocks(2), features(12).bfloat16()
    for block in blocks:
        block.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = stream_of(blocks).push(image, True)
        whole = nn.Sequential(*blocks)(image)
    assert found is not None and found.dtype == torch.bfloat16
    assert torch.equal(found, whole)
