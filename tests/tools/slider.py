"""What the detail slider trades: error against texture, at five of its places.

    python -m tests.tools.slider --data FOLDER [--scale 8] [--squeezenet FILE] [--model NAME|FILE] [--list FILE]

"spectrum" is the error of the radial power spectrum in decibels and "PD-squeeze" a perceptual distance; both should
fall from row to row, as Y-PSNR does. One seed; the table is Markdown.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch

from progressive_upsampling.core.chain import Chain
from progressive_upsampling.core.evaluate import Method

from .variants import compare

PLACES = (0.0, 0.25, 0.5, 0.75, 1.0)


def variants(chain: Chain, dtype: str = "fp32") -> dict[str, Method]:
    """All rows by name."""

    def at(detail: float) -> Method:
        return lambda image, scale: chain(image, scale=scale, detail=detail, dtype=dtype)

    return {f"detail {place:g}": at(place) for place in PLACES}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool."""
    return compare("slider", __doc__, variants, argv)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    sys.exit(main())
