"""Comparison sheets: labelled panels side by side, whole views above magnified details; and heat maps."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .checks import check_image, check_integer, check_number
from .resample import resample

GAP = 12  # pixels between panels
TEXT = 18  # height of the letters in pixels
_SMALLEST_TEXT = 9
_PAPER, _INK = 1.0, 24
_PLAIN = str.maketrans({"×": "x", "→": ">", "…": "...", "–": "-"})  # Pillow's own font knows ASCII alone
# Black, blue, magenta, orange, yellow, white: brightness grows evenly, so it reads without colour too.
_HEAT = (
    (0.0, 0.0, 0.0),
    (0.2, 0.05, 0.5),
    (0.65, 0.15, 0.45),
    (0.95, 0.45, 0.1),
    (0.98, 0.85, 0.3),
    (1.0, 1.0, 1.0),
)

Box = tuple[int, int, int, int]  # top, left, height, width


def compare(
    panels: Mapping[str, Tensor],
    *,
    side: int = 448,
    details: int = 3,
    crop: int | None = None,
    title: str = "",
) -> Tensor:
    """A sheet of several versions of one picture.

    The first row shows each version whole, the rows below it the places with most detail, magnified by
    repeating pixels, so that nothing is smoothed over.

    Args:
        panels: label to image `[1, C, H, W]`, C = 1, 3 or 4, 0..1, the last the best known. Smaller versions
            are enlarged to the size of the last by repeating pixels; alpha is shown over a chequerboard.
        side: width of a column in pixels.
        details: number of magnified places.
        crop: side of such a place, in pixels of the last version, at most `side`; None takes a quarter of it.
        title: a line above the sheet.

    Returns:
        `[1, 3, H', W']` float32 in 0..1.

    Raises:
        TypeError, ValueError: no panels, not an image each, or a number out of range.
    """
    check_integer(side, "side", 32)
    check_integer(details, "details", 0)
    crop = side // 4 if crop is None else crop
    check_integer(crop, "crop", 1, side)
    if not panels:
        raise ValueError("panels: expected at least one, got none")
    views = {label: _shown(image, label) for label, image in panels.items()}
    H, W = list(views.values())[-1].shape[-2:]
    views = {
        label: view if view.shape[-2:] == (H, W) else resample(view, (H, W), "nearest") for label, view in views.items()
    }
    rows = [[(label, _fitted(view, side)) for label, view in views.items()]]
    if max(H, W) > crop:
        magnify = max(side // crop, 1)
        for top, left, height, width in detail_boxes(list(views.values())[-1], crop, details):
            cut = [view[..., top : top + height, left : left + width] for view in views.values()]
            rows.append([("", _repeated(part, magnify)) for part in cut])
    return arrange(rows, column=side, title=title)


def arrange(rows: Sequence[Sequence[tuple[str, Tensor]]], *, column: int = 0, title: str = "") -> Tensor:
    """Lay labelled images out in rows.

    Args:
        rows: rows of (label, image `[1, C, H, W]` in 0..1); a row without labels has no line for them.
        column: width of every column in pixels; 0 takes the widest image.
        title: a line above the rows.

    Returns:
        `[1, 3, H', W']` float32 in 0..1 on white.

    Raises:
        TypeError, ValueError: no image at all, or not an image.
    """
    cells = [[(label, _shown(image, label or "image")) for label, image in row] for row in rows if row]
    if not cells:
        raise ValueError("rows: expected at least one image, got none")
    column = max([column, *(image.shape[-1] for row in cells for _, image in row)])
    width = GAP + max(len(row) for row in cells) * (column + GAP)
    line = 2 * TEXT
    strips = [_text(title, width - 2 * GAP, line, TEXT + 4)] if title else []
    for row in cells:
        if any(label for label, _ in row):
            strips.append(_beside([_text(label, column, line, TEXT) for label, _ in row], column))
        strips.append(_beside([image for _, image in row], column))
        strips.append(torch.full((1, 3, GAP, 1), _PAPER))
    sheet = torch.full((1, 3, GAP + sum(strip.shape[2] for strip in strips), width), _PAPER)
    top = GAP
    for strip in strips:
        height, wide = strip.shape[2:]
        sheet[..., top : top + height, GAP : GAP + wide] = strip
        top += height
    return sheet


def detail_boxes(image: Tensor, side: int, count: int) -> list[Box]:
    """Find the places of an image with the most detail (mean absolute gradient), which do not overlap.

    Args:
        image: `[1, C, H, W]`.
        side: side of a place in pixels; a shorter image gives a shorter place.
        count: how many at most.

    Returns:
        (top, left, height, width) of each in pixels, most detail first.
    """
    grey = image[:1, :3].float().mean(1, keepdim=True).cpu()
    height, width = min(side, grey.shape[2]), min(side, grey.shape[3])
    energy = torch.zeros_like(grey)
    energy[..., 1:, :] += (grey[..., 1:, :] - grey[..., :-1, :]).abs()
    energy[..., :, 1:] += (grey[..., :, 1:] - grey[..., :, :-1]).abs()
    step = (max(height // 4, 1), max(width // 4, 1))
    score = F.avg_pool2d(energy, (height, width), step)[0, 0]
    boxes: list[Box] = []
    for place in score.flatten().argsort(descending=True, stable=True).tolist():
        top, left = place // score.shape[1] * step[0], place % score.shape[1] * step[1]
        if len(boxes) == count:
            break
        if all(abs(top - box[0]) >= height or abs(left - box[1]) >= width for box in boxes):
            boxes.append((top, left, height, width))
    return boxes


def heat_map(image: Tensor, reference: Tensor, full: float = 0.1) -> Tensor:
    """Where two images differ, in colours from black (equal) to white.

    Args:
        image: `[B, C, H, W]`, 0..1.
        reference: the same shape.
        full: the difference that is white, in 0..1 image units; the mean over the channels counts.

    Returns:
        `[B, 3, H, W]` float32 in 0..1.

    Raises:
        TypeError, ValueError: not images of one shape, or `full` not above 0.
    """
    check_image(image)
    check_image(reference, "reference")
    check_number(full, "full", above=0.0)
    if image.shape != reference.shape:
        raise ValueError(f"reference: expected {tuple(image.shape)} as image, got {tuple(reference.shape)}")
    difference = (image.float() - reference.to(image).float()).abs().mean(1)
    place = (difference / full).clamp(0.0, 1.0) * (len(_HEAT) - 1)
    colours = torch.tensor(_HEAT, device=image.device)
    low = place.floor().long().clamp(max=len(_HEAT) - 2)
    mixed = torch.lerp(colours[low], colours[low + 1], (place - low)[..., None])
    return mixed.movedim(-1, 1).contiguous()


def _shown(image: Tensor, name: str) -> Tensor:
    """What a screen shows of an image: `[1, 3, H, W]`, alpha over a chequerboard of 8 pixels."""
    check_image(image, name)
    image = image[:1].detach().float().cpu().clamp(0.0, 1.0)
    if image.shape[1] == 4:
        H, W = image.shape[-2:]
        board = (torch.arange(H)[:, None] // 8 + torch.arange(W) // 8) % 2 * 0.2 + 0.7
        image = image[:, :3] * image[:, 3:] + board * (1.0 - image[:, 3:])
    return image.expand(-1, 3, -1, -1)


def _fitted(image: Tensor, side: int) -> Tensor:
    """Reduced smoothly, or repeated a whole number of times, to fit in a square."""
    H, W = image.shape[-2:]
    if max(H, W) <= side:
        return _repeated(image, side // max(H, W))
    size = (max(round(H * side / max(H, W)), 1), max(round(W * side / max(H, W)), 1))
    return resample(image, size).clamp(0.0, 1.0)


def _repeated(image: Tensor, times: int) -> Tensor:
    return image.repeat_interleave(times, 2).repeat_interleave(times, 3)


def _beside(images: Sequence[Tensor], column: int) -> Tensor:
    strip = torch.full((1, 3, max(image.shape[2] for image in images), len(images) * (column + GAP) - GAP), _PAPER)
    for i, image in enumerate(images):
        left = i * (column + GAP)
        strip[..., : image.shape[2], left : left + image.shape[3]] = image
    return strip


def _text(text: str, width: int, height: int, size: int) -> Tensor:
    """A line of text, smaller or cut short where it is too long."""
    paper = Image.new("L", (width, height), int(255 * _PAPER))
    draw = ImageDraw.Draw(paper)
    # Letters without their accents, as far as the font is concerned.
    text = unicodedata.normalize("NFKD", text.translate(_PLAIN)).encode("ascii", "ignore").decode()
    while size > _SMALLEST_TEXT and draw.textlength(text, font=ImageFont.load_default(size)) > width:
        size -= 1
    font = ImageFont.load_default(size)
    shown = text
    while shown and draw.textlength(shown, font=font) > width:
        text = text[:-1]
        shown = f"{text}..." if text else ""
    draw.text((0, height // 2), shown, fill=_INK, font=font, anchor="lm")
    return (torch.from_numpy(np.asarray(paper).astype(np.float32)) / 255.0).expand(1, 3, -1, -1)
