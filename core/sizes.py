"""Sizes of the stages on the way to a target."""

from __future__ import annotations

import math

from .checks import MAX_SIDE, check_integer, check_number, check_size

MAX_SCALE = 64


def target_size(height: int, width: int, scale: float | None, size: tuple[int, int] | None) -> tuple[int, int]:
    """(height, width) of the result, from exactly one of `scale` and `size`.

    Args:
        height, width: size of the image in pixels.
        scale: factor for both sides, rounded to whole pixels, at least one.
        size: (height, width) of the result.

    Raises:
        TypeError, ValueError: both or neither given, `scale` outside 0 < scale <= 64, or a side out of range.
    """
    if scale is None and size is not None:
        check_size(size)
        return int(size[0]), int(size[1])
    if scale is None or size is not None:
        raise ValueError(f"scale, size: expected exactly one of the two, got scale={scale} and size={size}")
    check_number(scale, "scale", maximum=MAX_SCALE, above=0)
    high, wide = max(round(height * float(scale)), 1), max(round(width * float(scale)), 1)
    if max(high, wide) > MAX_SIDE:
        raise ValueError(f"scale: expected a result of at most {MAX_SIDE} pixels a side, got {wide}x{high}")
    return high, wide


def stage_sizes(height: int, width: int, target_height: int, target_width: int) -> list[tuple[int, int]]:
    """The size after each stage, the last exactly the target; empty when nothing is enlarged.

    Every stage doubles, up to the target on each axis: the last one is fractional where the target is no power of
    two times the start. An axis that shrinks has its target from the first stage on.

    Args:
        height, width: size of the image in pixels.
        target_height, target_width: size of the result in pixels.

    Raises:
        TypeError, ValueError: a side is no integer of at least 1.
    """
    for name, side in (("height", height), ("width", width)):
        check_integer(side, name, minimum=1)
    for name, side in (("target_height", target_height), ("target_width", target_width)):
        check_integer(side, name, minimum=1)
    ratio = max(target_height / height, target_width / width)
    count = max(math.ceil(math.log2(ratio)), 0)
    return [(min(height * 2**k, target_height), min(width * 2**k, target_width)) for k in range(1, count + 1)]
