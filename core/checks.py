"""Checks of user input, with errors that name the argument, the expectation and what came."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from numbers import Integral, Real

import torch
from torch import Tensor

MAX_SIDE = 1 << 17  # longest side of an image in pixels: catches a mistyped size before memory runs out


class NotFiniteError(ValueError):
    """An image or a map with NaN or infinity."""


_finite_asked: ContextVar[bool] = ContextVar("finite_asked", default=True)


@contextmanager
def any_values() -> Iterator[None]:
    """Context in which `check_image` lets NaN and infinity pass, in the thread that enters it.

    For training: where a step overflows, its loss must come to say so, for the step to be left out, not the run to end.
    """
    token = _finite_asked.set(False)
    try:
        yield
    finally:
        _finite_asked.reset(token)


def check_image(image: object, name: str = "image", channels: Sequence[int] | None = (1, 3, 4)) -> None:
    """Check that a value is a usable image.

    Args:
        image: what should be a float tensor `[B, C, H, W]`, any device, nominal range 0..1 (not enforced:
            noisy images leave it).
        name: argument name for the messages.
        channels: the channel counts allowed; None allows any.

    Raises:
        TypeError: not a tensor, or not of a floating dtype.
        ValueError: not four axes, a channel count that is not allowed, an axis of length 0, NaN or infinity (but see
            `any_values`).
    """
    layout = "[B, C, H, W]" if channels is None else f"[B, {'|'.join(map(str, channels))}, H, W]"
    tensor = _float_tensor(image, name, layout)
    shape = tuple(tensor.shape)
    if len(shape) != 4 or (channels is not None and shape[1] not in channels):
        raise ValueError(f"{name}: expected {layout}, got {shape}")
    if 0 in shape:
        raise ValueError(f"{name}: expected {layout} with no axis of length 0, got {shape}")
    if _finite_asked.get():
        _finite_range(tensor, name)


def check_map(map_: object, image: Tensor, name: str = "sigma", maximum: float | None = None) -> None:
    """Check that a value is a map of non-negative numbers that fits an image.

    Args:
        map_: what should be a float tensor `[B, 1, H, W]` or `[1, 1, H, W]`, finite and >= 0.
        image: `[B, C, H, W]`, the image whose batch, height and width the map must have.
        name: argument name for the messages.
        maximum: largest value allowed, inclusive.

    Raises:
        TypeError: not a tensor, or not of a floating dtype.
        ValueError: another shape, NaN, infinity, a negative value or one above the maximum.
    """
    B, _, H, W = image.shape
    layout = f"[{B}, 1, {H}, {W}]" if B == 1 else f"[{B} or 1, 1, {H}, {W}]"
    tensor = _float_tensor(map_, name, layout)
    if tuple(tensor.shape) not in ((B, 1, H, W), (1, 1, H, W)):
        raise ValueError(f"{name}: expected {layout} to match the image, got {tuple(tensor.shape)}")
    lowest, highest = _finite_range(tensor, name)
    if lowest < 0:
        raise ValueError(f"{name}: expected values >= 0, got a minimum of {lowest:g}")
    if maximum is not None and highest > maximum:
        raise ValueError(f"{name}: expected values <= {maximum:g}, got a maximum of {highest:g}")


def check_multiplier(map_: Tensor, name: str) -> None:
    """Check that a value is a map to multiply by, of any size.

    Args:
        map_: what should be a float tensor `[B, 1, H, W]` in 0..1.
        name: argument name for the messages.

    Raises:
        TypeError, ValueError: as `check_map`.
    """
    check_image(map_, name, (1,))
    check_map(map_, map_, name, maximum=1)


def check_number(
    value: object,
    name: str,
    minimum: float | None = None,
    maximum: float | None = None,
    *,
    above: float | None = None,
) -> None:
    """Check that a value is a finite real number within limits.

    Args:
        value: what should be an int, a float or a NumPy scalar; bool is refused.
        name: argument name for the messages.
        minimum: smallest value allowed, inclusive.
        maximum: largest value allowed, inclusive.
        above: limit that the value must exceed, exclusive.

    Raises:
        TypeError: not a real number.
        ValueError: NaN, infinity or outside the limits.
    """
    expected = f"a number{_limits(minimum, maximum, above)}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected {expected}, got {_describe(value)}")
    _check_limits(float(value), value, name, expected, minimum, maximum, above)


def check_integer(value: object, name: str, minimum: int | None = None, maximum: int | None = None) -> None:
    """Check that a value is a whole number of an integer type within limits.

    Args:
        value: what should be an int or a NumPy integer; bool and float are refused.
        name: argument name for the messages.
        minimum: smallest value allowed, inclusive.
        maximum: largest value allowed, inclusive.

    Raises:
        TypeError: not an integer.
        ValueError: outside the limits.
    """
    expected = f"an integer{_limits(minimum, maximum, None)}"
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}: expected {expected}, got {_describe(value)}")
    number = int(value)
    if (minimum is not None and number < minimum) or (maximum is not None and number > maximum):
        raise ValueError(f"{name}: expected {expected}, got {value}")


def check_size(size: object, name: str = "size") -> None:
    """Check that a value is an image size.

    Args:
        size: what should be `(height, width)` in pixels, each an integer in 1..MAX_SIDE.
        name: argument name for the messages.

    Raises:
        TypeError: not a pair of integers.
        ValueError: not two of them, or a side outside the limits.
    """
    expected = f"(height, width), each in 1..{MAX_SIDE}"
    if isinstance(size, str) or not isinstance(size, Sequence):
        raise TypeError(f"{name}: expected {expected}, got {_describe(size)}")
    if len(size) != 2:
        raise ValueError(f"{name}: expected {expected}, got {_describe(size)}")
    for side in size:
        if isinstance(side, bool) or not isinstance(side, Integral):
            raise TypeError(f"{name}: expected {expected}, got {_describe(size)}")
        if not 1 <= int(side) <= MAX_SIDE:
            raise ValueError(f"{name}: expected {expected}, got {_describe(size)}")


def check_choice(value: object, name: str, choices: Collection[object]) -> None:
    """Check that a value is one of a few.

    Args:
        value: the value, usually a string.
        name: argument name for the message.
        choices: the values allowed.

    Raises:
        ValueError: none of them.
    """
    # An unhashable or array-like value must not raise from the comparison itself.
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, choices))}, got {_describe(value)}")


def _float_tensor(value: object, name: str, layout: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a float tensor {layout}, got {_describe(value)}")
    if not value.is_floating_point():
        raise TypeError(f"{name}: expected a float tensor {layout}, got {value.dtype}")
    return value


def _finite_range(tensor: Tensor, name: str) -> tuple[float, float]:
    # One pass without temporaries: minimum and maximum carry NaN along and, unlike a sum, cannot overflow.
    low, high = torch.stack(torch.aminmax(tensor.detach())).tolist()
    if math.isnan(low) or math.isnan(high):
        raise NotFiniteError(f"{name}: expected finite values, got NaN")
    if math.isinf(low) or math.isinf(high):
        raise NotFiniteError(f"{name}: expected finite values, got infinity")
    return low, high


def _limits(minimum: float | None, maximum: float | None, above: float | None) -> str:
    parts = []
    if minimum is not None and maximum is not None:
        parts.append(f"in {minimum:g}..{maximum:g}")
    elif minimum is not None:
        parts.append(f">= {minimum:g}")
    elif maximum is not None:
        parts.append(f"<= {maximum:g}")
    if above is not None:
        parts.append(f"> {above:g}")
    return " " + " and ".join(parts) if parts else ""


def _check_limits(
    number: float,
    value: object,
    name: str,
    expected: str,
    minimum: float | None,
    maximum: float | None,
    above: float | None,
) -> None:
    if (
        not math.isfinite(number)
        or (minimum is not None and number < minimum)
        or (maximum is not None and number > maximum)
        or (above is not None and number <= above)
    ):
        raise ValueError(f"{name}: expected {expected}, got {value}")


def _describe(value: object) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
