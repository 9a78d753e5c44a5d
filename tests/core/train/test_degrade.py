from __future__ import annotations

import math
import re
from fractions import Fraction

import numpy as np
import pytest
import torch

from progressive_upsampling.core.train.degrade import matlab_imresize

SIZES = [(33, 47), (1, 1), (2, 2), (3, 70)]


def cubic(x: Fraction) -> Fraction:
    x = abs(x)
    if x <= 1:
        return Fraction(3, 2) * x**3 - Fraction(5, 2) * x**2 + 1
    if x <= 2:
        return -Fraction(1, 2) * x**3 + Fraction(5, 2) * x**2 - 4 * x + 2
    return Fraction(0)


def plain_rows(rows: list[list[Fraction]], target: int, scale: Fraction) -> list[list[Fraction]]:
    """MATLAB's documented formula along the first axis, output by output, in exact arithmetic."""
    length, widen = len(rows), max(Fraction(1), 1 / scale)
    result = []
    for i in range(1, target + 1):
        u = i / scale + Fraction(1, 2) * (1 - 1 / scale)
        first, last = math.floor(u - 2 * widen), math.ceil(u + 2 * widen)
        weights = {j: cubic((u - j) / widen) for j in range(first, last + 1)}
        total = sum(weights.values())
        line = [Fraction(0)] * len(rows[0])
        for j, weight in weights.items():
            k = (j - 1) % (2 * length)
            source = rows[min(k, 2 * length - 1 - k)]
            line = [value + weight / total * pixel for value, pixel in zip(line, source, strict=True)]
        result.append(line)
    return result


def plain_imresize(
    plane: np.ndarray, size: tuple[int, int], scale: tuple[Fraction, Fraction], is_8bit: bool
) -> list[list[Fraction]]:
    rows = [[Fraction(float(pixel)) for pixel in row] for row in plane]
    for axis in sorted((0, 1), key=lambda axis: scale[axis]):
        if axis == 1:
            rows = [list(column) for column in zip(*rows, strict=True)]
        rows = plain_rows(rows, size[axis], scale[axis])
        if is_8bit:
            half = Fraction(1, 2)
            rows = [[Fraction(min(max(math.floor(p + half), 0), 255)) for p in row] for row in rows]
        if axis == 1:
            rows = [list(column) for column in zip(*rows, strict=True)]
    return rows


def harsh_picture(size: tuple[int, int], channels: int = 1) -> torch.Tensor:
    """Noise with many pixels at both ends of the range, so that overshoot is clipped between the passes."""
    generator = torch.Generator().manual_seed(sum(size))
    levels = torch.randn(1, channels, *size, generator=generator) * 200 + 128
    return levels.clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("target", [(17, 24), (20, 60), (60, 20), (5, 8), (1, 1)])
def test_8bit_pictures_are_exact_in_rounding_and_order(size: tuple[int, int], target: tuple[int, int]) -> None:
    picture = harsh_picture(size)
    scales = Fraction(target[0], size[0]), Fraction(target[1], size[1])
    expected = plain_imresize(picture[0, 0].numpy(), target, scales, is_8bit=True)
    result = matlab_imresize(picture, size=target)
    assert result.dtype == torch.uint8
    assert result[0, 0].tolist() == expected


@pytest.mark.parametrize("divisor", [2, 3, 4, 6, 8])
def test_reduction_by_a_whole_factor_is_exact(divisor: int) -> None:
    picture = harsh_picture((48, 24))
    target = (48 // divisor, 24 // divisor)
    scale = Fraction(1, divisor)
    expected = plain_imresize(picture[0, 0].numpy(), target, (scale, scale), is_8bit=True)
    assert matlab_imresize(picture, scale=1 / divisor)[0, 0].tolist() == expected


# A sum that is exactly a half, which float64 alone leaves a little below it.
EXACT_HALF = "545388c507de82e34890906707e86bba40d6643174f1a53939f94d7a2a47b98525ab0d7e"
# A sum so near to a half that float32 takes it for more.
NEAR_HALF = (
    "90f968dd90d00e6ebe699da7b35e0c2e47d68fcdbae6e6139bc7d6091ee9"
    "90ad4f78ea3b1318119e57b0c89f8bb8ae1e0fbbcdca3034bf58ea9dece5"
)


@pytest.mark.parametrize("row", [EXACT_HALF, NEAR_HALF])
def test_halves_are_decided_as_in_exact_arithmetic(row: str) -> None:
    picture = torch.tensor(list(bytes.fromhex(row)), dtype=torch.uint8).view(1, 1, 1, -1)
    scales = Fraction(1), Fraction(6, picture.shape[3])
    expected = plain_imresize(picture[0, 0].numpy(), (1, 6), scales, is_8bit=True)
    assert matlab_imresize(picture, size=(1, 6))[0, 0].tolist() == expected


def test_scale_sets_the_grid_and_the_size_is_rounded_up() -> None:
    picture = harsh_picture((33, 47))
    half = Fraction(1, 2)
    expected = plain_imresize(picture[0, 0].numpy(), (17, 24), (half, half), is_8bit=True)
    assert matlab_imresize(picture, scale=0.5)[0, 0].tolist() == expected
    assert not torch.equal(matlab_imresize(picture, scale=0.5), matlab_imresize(picture, size=(17, 24)))


@pytest.mark.parametrize("target", [(17, 24), (20, 60), (1, 1)])
def test_float_images_are_neither_rounded_nor_clipped(target: tuple[int, int]) -> None:
    image = torch.randn(1, 1, 33, 47, dtype=torch.float64)
    scales = Fraction(target[0], 33), Fraction(target[1], 47)
    expected = torch.tensor(plain_imresize(image[0, 0].numpy(), target, scales, is_8bit=False), dtype=torch.float64)
    assert torch.allclose(matlab_imresize(image, size=target)[0, 0], expected, atol=1e-12)
    assert torch.allclose(matlab_imresize(image.float(), size=target)[0, 0], expected.float(), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once_at_the_end(dtype: torch.dtype) -> None:
    image = torch.rand(1, 3, 33, 47).to(dtype)
    assert torch.equal(matlab_imresize(image, scale=0.5), matlab_imresize(image.float(), scale=0.5).to(dtype))


def test_batch_and_channels_do_not_mix() -> None:
    pictures = torch.cat([harsh_picture((33, 47), 3), 255 - harsh_picture((33, 47), 3)])
    result = matlab_imresize(pictures, size=(16, 23))
    for b in range(2):
        for c in range(3):
            alone = matlab_imresize(pictures[b : b + 1, c : c + 1], size=(16, 23))
            assert torch.equal(result[b, c], alone[0, 0])


@pytest.mark.parametrize("size", SIZES)
def test_scale_1_gives_the_picture_and_leaves_the_input_alone(size: tuple[int, int]) -> None:
    picture = harsh_picture(size, 3)
    result = matlab_imresize(picture, scale=1)
    assert torch.equal(result, picture)
    result.zero_()
    assert torch.equal(picture, harsh_picture(size, 3))


@pytest.mark.parametrize("arguments", [{}, {"size": (4, 4), "scale": 0.5}])
def test_exactly_one_of_size_and_scale_is_wanted(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="size, scale: expected exactly one of them"):
        matlab_imresize(torch.rand(1, 3, 8, 8), **arguments)


@pytest.mark.parametrize("scale", [0, -1, math.nan, 1e9])
def test_impossible_scale_is_named(scale: float) -> None:
    with pytest.raises(ValueError, match="scale"):
        matlab_imresize(torch.rand(1, 3, 8, 8), scale=scale)


@pytest.mark.parametrize("shape", [(8, 8), (3, 8, 8), (1, 3, 0, 8)])
def test_wrong_shape_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=re.escape("image: expected [B, C, H, W]")):
        matlab_imresize(torch.zeros(shape), scale=0.5)


@pytest.mark.parametrize("image", [torch.zeros(1, 3, 8, 8, dtype=torch.int32), np.zeros((1, 3, 8, 8)), None])
def test_other_types_are_refused(image: object) -> None:
    with pytest.raises(TypeError, match="image: expected a uint8 or float tensor"):
        matlab_imresize(image, scale=0.5)
