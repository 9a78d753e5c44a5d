"""EDSR's body row by row gives what it gives of the whole image, and keeps a few rows of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from progressive_upsampling.core.interrupt import interruptible
from progressive_upsampling.core.residual_stream import ResidualBody
from progressive_upsampling.core.upsamplers.edsr import ResidualBlock

CHANNELS = 5


class Body(nn.Module):
    """Residual blocks, a convolution, the long skip, and the convolution after it."""

    def __init__(self, blocks: int, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(blocks)
        self.blocks = nn.Sequential(*(ResidualBlock(CHANNELS, scale) for _ in range(blocks)))
        self.end = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.after = nn.Conv2d(CHANNELS, 7, 3, padding=1)
        self.scale = scale

    def forward(self, image: Tensor) -> Tensor:
        return self.after(self.end(self.blocks(image)) + image)

    def stream(self) -> ResidualBody:
        pairs = [(block.conv1, block.conv2) for block in self.blocks]
        return ResidualBody(pairs, self.end, self.after, self.scale)


def features(height: int, width: int = 6, batch: int = 1) -> Tensor:
    drawn = torch.randn(batch, CHANNELS, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    return drawn.contiguous(memory_format=torch.channels_last)


def in_strips(body: Body, image: Tensor, heights: tuple[int, ...]) -> list[Tensor | None]:
    strips, stream = image.split(heights, dim=2), body.stream()
    return [
        stream.push(strip.contiguous(memory_format=torch.channels_last), number == len(strips))
        for number, strip in enumerate(strips, 1)
    ]


@torch.no_grad()
@pytest.mark.parametrize("scale", [1.0, 0.1])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("heights", [(1,), (2,), (9,), (1, 1, 1, 1), (1, 2, 3), (2, 1, 7), (3, 1), (40, 1), (11, 12)])
def test_strips_of_any_height_make_the_whole(heights: tuple[int, ...], count: int, scale: float) -> None:
    body, image = Body(count, scale).double(), features(sum(heights), batch=2)
    found = in_strips(body, image, heights)
    rows = torch.cat([part for part in found if part is not None], 2)
    torch.testing.assert_close(rows, body(image), rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_rows_are_given_as_soon_as_they_are_known() -> None:
    found = in_strips(Body(2).double(), features(40), (5, 1, 1, 20, 13))
    reach = 2 * 2 + 2  # rows below that a row depends on
    assert [0 if part is None else part.shape[2] for part in found] == [0, 0, 1, 20, 13 + reach]


@torch.no_grad()
def test_the_rows_given_are_left_as_they_are_and_those_found_stay() -> None:
    body, image, found = Body(3).double(), features(30), []
    stream = body.stream()
    for start in (0, 10, 20):
        strip = image[:, :, start : start + 10].clone(memory_format=torch.channels_last)
        found.append(stream.push(strip, start == 20))
        assert torch.equal(strip, image[:, :, start : start + 10])
    rows = torch.cat([part for part in found if part is not None], 2)  # the first ones after all strips have run
    torch.testing.assert_close(rows, body(image))


@torch.no_grad()
def test_the_rows_that_stay_in_memory_are_those_that_are_read_again() -> None:
    stream, strip = Body(3).double().stream(), features(40)
    for _ in range(4):
        stream.push(strip, False)
    borders = [*(block.border for block in stream._blocks), stream._to_end, stream._to_after]
    kept = [0 if border._kept is None else border._kept.untyped_storage().nbytes() for border in borders]
    assert [size // strip[:, :, 0].nbytes for size in kept] == [4, 4, 4, 2, 2]
    assert stream._image.count == 2 * 3 + 1


@torch.no_grad()
@pytest.mark.parametrize("channels_of_kernel", [16, CHANNELS])
def test_the_number_format_is_that_of_the_rows(channels_of_kernel: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.CHANNELS", channels_of_kernel)
    body, image = Body(2), features(12).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (found,) = in_strips(body, image, (12,))
        whole = body(image)
    assert found is not None and found.dtype == torch.bfloat16
    torch.testing.assert_close(found, whole, atol=0.03, rtol=0.02)


@torch.no_grad()
def test_a_run_can_be_cancelled_before_each_convolution() -> None:
    body, polls = Body(2).double(), 0

    def poll() -> None:
        nonlocal polls
        polls += 1

    with interruptible([], poll):
        in_strips(body, features(12), (12,))
    assert polls == 6  # two of each block, that after them, and the next
