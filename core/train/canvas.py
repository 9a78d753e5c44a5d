"""Paper to draw plots on with Pillow: smooth lines, sharp letters, colours that everyone can tell apart."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .axes import Floats

Colour = tuple[int, int, int]

# Okabe and Ito 2008 (Color Universal Design): told apart with every kind of colour vision. Their yellow is darker
# here, because theirs is faint on white.
BLACK, BLUE, VERMILLION, GREEN = (0, 0, 0), (0, 114, 178), (213, 94, 0), (0, 158, 115)
ORANGE, SKY, PURPLE, GREY, YELLOW = (230, 159, 0), (86, 180, 233), (204, 121, 167), (140, 140, 140), (200, 185, 20)
BROWN, VIOLET = (110, 70, 20), (100, 60, 180)  # not theirs: darker than whichever of them is near in hue
INK = (24, 24, 24)

_WHITE = (255, 255, 255)
_FINE = 2  # drawn so many times larger and reduced, which smooths the lines


class Canvas:
    """White paper; letters come last and at their true size, where they are sharpest.

    Args:
        width, height: in pixels, as everywhere here; pixel i reaches from i to i + 1.
    """

    def __init__(self, width: int, height: int) -> None:
        self._paper = Image.new("RGB", (_FINE * width, _FINE * height), _WHITE)
        self._pen = ImageDraw.Draw(self._paper)
        self._letters: list[tuple[tuple[float, float], str, int, Colour, str]] = []

    def curve(self, x: Floats, y: Floats, colour: Colour, width: int) -> None:
        """A line through points."""
        points = (np.stack([x, y], axis=1) * _FINE).ravel().tolist()
        self._pen.line(points, fill=colour, width=_FINE * width, joint="curve")

    def rule(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """An upright or level line, exactly one pixel wide."""
        x0, y0, x1, y1 = (_FINE * math.floor(end) for end in (left, top, right, bottom))
        self._pen.rectangle((x0, y0, x1 + _FINE - 1, y1 + _FINE - 1), fill=colour)

    def dot(self, x: float, y: float, radius: float, colour: Colour, ring: bool = False) -> None:
        """A disc, or a ring."""
        left, top, right, bottom = (_FINE * end for end in (x - radius, y - radius, x + radius, y + radius))
        fill = None if ring else colour
        self._pen.ellipse((left, top, right - 1, bottom - 1), fill=fill, outline=colour, width=2 * _FINE)

    def text(self, x: float, y: float, text: str, size: int, colour: Colour = INK, anchor: str = "lm") -> None:
        """A line of text in ASCII; the anchor is Pillow's."""
        self._letters.append(((x, y), text, size, colour, anchor))

    def finished(self) -> Tensor:
        """`[1, 3, height, width]` float32 in 0..1."""
        paper = self._paper.reduce(_FINE)
        pen = ImageDraw.Draw(paper)
        for place, text, size, colour, anchor in self._letters:
            pen.text(place, text, fill=colour, font=_font(size), anchor=anchor)
        return torch.from_numpy(np.array(paper)).permute(2, 0, 1)[None].float().div(255.0).contiguous()


def text_length(text: str, size: int) -> float:
    """Width of a line of text in pixels."""
    return _font(size).getlength(text)


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
