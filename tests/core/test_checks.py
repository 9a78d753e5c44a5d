from __future__ import annotations

import math
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from progressive_upsampling.core.checks import (
    MAX_SIDE,
    any_values,
    check_choice,
    check_image,
    check_integer,
    check_map,
    check_number,
    check_size,
)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 33, 47), (1, 4, 3, 700)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_good_images_pass(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    check_image(torch.rand(shape).to(dtype))


def test_large_half_precision_image_passes_although_its_sum_overflows() -> None:
    check_image(torch.full((1, 3, 257, 129), 60000.0, dtype=torch.float16))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(4, 4), "picture: expected [B, 1|3|4, H, W], got (4, 4)"),
        (torch.zeros(1, 5, 8, 8), "picture: expected [B, 1|3|4, H, W], got (1, 5, 8, 8)"),
        (torch.zeros(1, 2, 8, 8), "picture: expected [B, 1|3|4, H, W], got (1, 2, 8, 8)"),
        (torch.zeros(1, 3, 0, 8), "no axis of length 0, got (1, 3, 0, 8)"),
        (torch.zeros(0, 3, 8, 8), "no axis of length 0, got (0, 3, 8, 8)"),
    ],
)
def test_wrong_shape_is_named(image: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        check_image(image, "picture")


@pytest.mark.parametrize(("value", "word"), [(math.nan, "NaN"), (math.inf, "infinity"), (-math.inf, "infinity")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("where", [(0, 0, 0, 0), (1, 2, 32, 46), (1, 1, 17, 5)])
def test_one_bad_pixel_is_found(value: float, word: str, dtype: torch.dtype, where: tuple[int, int, int, int]) -> None:
    image = torch.rand(2, 3, 33, 47).to(dtype)
    image[where] = value
    with pytest.raises(ValueError, match=f"image: expected finite values, got {word}"):
        check_image(image)


def test_values_pass_where_any_may_and_shapes_do_not() -> None:
    image = torch.full((1, 3, 5, 7), math.nan)
    with any_values():
        check_image(image)
        with pytest.raises(ValueError, match=r"got \(3, 5, 7\)"):
            check_image(image[0])
        with ThreadPoolExecutor(1) as other, pytest.raises(ValueError, match="NaN"):
            other.submit(check_image, image).result()
    with pytest.raises(ValueError, match="NaN"):
        check_image(image)


def test_both_infinities_at_once_are_found() -> None:
    image = torch.rand(1, 3, 33, 47)
    image[0, 0, 0, 0], image[0, 0, 0, 1] = math.inf, -math.inf
    with pytest.raises(ValueError, match="infinity"):
        check_image(image)


@pytest.mark.parametrize("image", [None, np.zeros((1, 3, 4, 4)), torch.zeros(1, 3, 4, 4, dtype=torch.uint8)])
def test_what_is_no_float_tensor_is_a_type_error(image: object) -> None:
    with pytest.raises(TypeError, match="image: expected a float tensor"):
        check_image(image)


def test_image_that_needs_gradients_passes() -> None:
    check_image(torch.rand(1, 3, 4, 4, requires_grad=True))


def test_any_channel_count_passes_when_none_is_asked_for() -> None:
    check_image(torch.rand(1, 7, 4, 4), channels=None)


@pytest.mark.parametrize("batch", [1, 2])
def test_map_of_the_image_or_of_one_passes(batch: int) -> None:
    check_map(torch.rand(batch, 1, 33, 47), torch.rand(2, 3, 33, 47))


@pytest.mark.parametrize("shape", [(3, 1, 33, 47), (2, 3, 33, 47), (2, 1, 47, 33), (2, 33, 47)])
def test_map_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    message = re.escape(f"sigma: expected [2 or 1, 1, 33, 47] to match the image, got {shape}")
    with pytest.raises(ValueError, match=message):
        check_map(torch.rand(shape), torch.rand(2, 3, 33, 47))


def test_negative_map_is_refused() -> None:
    map_ = torch.rand(1, 1, 33, 47)
    map_[0, 0, 7, 7] = -0.5
    with pytest.raises(ValueError, match=r"blend: expected values >= 0, got a minimum of -0.5"):
        check_map(map_, torch.rand(1, 3, 33, 47), "blend")


def test_map_with_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="sigma: expected finite values, got NaN"):
        check_map(torch.full((1, 1, 4, 4), math.nan), torch.rand(1, 3, 4, 4))


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.25), np.int64(1)])
def test_numbers_within_inclusive_limits_pass(value: float) -> None:
    check_number(value, "x", 0, 1)


@pytest.mark.parametrize("value", [-0.001, 1.001, math.nan, math.inf, -math.inf])
def test_numbers_outside_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"strength: expected a number in 0\.\.1, got"):
        check_number(value, "strength", 0, 1)


def test_exclusive_limit_refuses_itself() -> None:
    check_number(1e-9, "scale", above=0)
    with pytest.raises(ValueError, match="scale: expected a number > 0, got 0"):
        check_number(0, "scale", above=0)


@pytest.mark.parametrize("value", [True, None, "1", 1j, [1], torch.tensor(1.0)])
def test_what_is_no_number_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError, match="x: expected a number"):
        check_number(value, "x")


def test_nan_is_refused_without_limits() -> None:
    with pytest.raises(ValueError, match="x: expected a number, got nan"):
        check_number(math.nan, "x")


@pytest.mark.parametrize("value", [1.0, True, "3", None])
def test_what_is_no_integer_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError, match="x: expected an integer"):
        check_integer(value, "x")


@pytest.mark.parametrize("value", [1, 8, np.int32(4)])
def test_integers_within_limits_pass(value: int) -> None:
    check_integer(value, "x", 1, 8)


@pytest.mark.parametrize("value", [0, 9])
def test_integers_outside_are_refused(value: int) -> None:
    with pytest.raises(ValueError, match=rf"x: expected an integer in 1\.\.8, got {value}"):
        check_integer(value, "x", 1, 8)


@pytest.mark.parametrize("size", [(1, 1), [33, 47], (np.int64(3), 700), (MAX_SIDE, MAX_SIDE)])
def test_good_sizes_pass(size: object) -> None:
    check_size(size)


@pytest.mark.parametrize("size", [(0, 4), (4, -1), (4,), (4, 4, 4), (10**9, 10**9), (MAX_SIDE + 1, 1)])
def test_impossible_sizes_are_refused(size: object) -> None:
    with pytest.raises(ValueError, match=r"size: expected \(height, width\)"):
        check_size(size)


@pytest.mark.parametrize("size", [64, None, "64", (64.0, 64), (True, 1)])
def test_what_is_no_pair_of_integers_is_a_type_error(size: object) -> None:
    with pytest.raises(TypeError, match=r"size: expected \(height, width\)"):
        check_size(size)


def test_choice_lists_what_there_is() -> None:
    check_choice("b", "mode", ("a", "b"))
    with pytest.raises(ValueError, match="mode: expected one of 'a', 'b', got str 'c'"):
        check_choice("c", "mode", ("a", "b"))


@pytest.mark.parametrize("value", [None, ["a"], np.array(["a", "b"]), torch.zeros(3), 1])
def test_choice_of_another_type_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="mode: expected one of"):
        check_choice(value, "mode", ("a", "b"))


def test_a_bool_is_not_the_number_it_equals() -> None:
    with pytest.raises(ValueError, match="steps: expected one of 1, 2, got bool True"):
        check_choice(True, "steps", (1, 2))
