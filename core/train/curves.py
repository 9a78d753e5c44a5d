"""The curves of a run: which panels its history has."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks import check_integer
from ..sheet import GAP, arrange
from .axes import Floats
from .canvas import BLACK, BLUE, BROWN, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION, VIOLET, YELLOW, Colour
from .plot import Panel, Series, draw

# A term has the same colour in every run.
TERMS: dict[str, Colour] = {
    "output": BLUE,
    "upsampler": ORANGE,
    "refine": GREEN,
    "blind": SKY,
    "ssim": GREY,
    "frequency": YELLOW,
    "spectrum": BROWN,
    "checkerboard": VIOLET,
    "perceptual": PURPLE,
    "adversarial": VERMILLION,
    "feature_matching": BLACK,
}
LIKELIHOOD = "controller"  # a negative log-likelihood, which may fall below 0

_STAGES = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE)
_NOTE = "faint: as measured, line: running median"
# suffix of a stage's key, title, which value is best
_FIGURES = (
    ("", "Validation PSNR (Y, dB)", "highest"),
    ("_ssim", "Validation SSIM", "highest"),
    ("_pd", "Validation PD-squeeze (lower is better)", "lowest"),
)


def loss_curves(entries: Sequence[Mapping[str, Any]], *, width: int = 1200, title: str = "") -> Tensor:
    """Draws what a run's history holds, one panel below the other.

    Total loss, loss terms, validation figures of every stage, discriminator, learning rate and gradient; whatever
    was never measured has no panel. Upright lines part the phases.

    Args:
        entries: as `read_history` gives them; values may be missing, null or not finite.
        width: of the sheet in pixels.
        title: a line above the panels.

    Returns:
        `[1, 3, H, width]` float32 in 0..1.

    Raises:
        TypeError, ValueError: a width that is no integer of at least 480.
    """
    check_integer(width, "width", 480)
    measured = _Measured(entries)
    panels = [panel for panel in _panels(measured) if panel.series]
    if not panels:
        blank = torch.ones(1, 3, 1, width - 2 * GAP)
        return arrange([[("no steps yet" if not entries else "nothing measured yet", blank)]], title=title)
    span = float(measured.steps[0]) - 1.0, float(measured.steps[-1])
    return arrange([[("", draw(panels, span, width - 2 * GAP, measured.phases()))]], title=title)


class _Measured:
    """The history by columns.

    Attributes:
        keys: all there are.
        steps: how many were done with each entry, as the terminal and the checkpoints count them.
    """

    def __init__(self, entries: Sequence[Mapping[str, Any]]) -> None:
        self._entries = entries
        self.keys = set().union(*entries)
        self.steps = self._column("step") + 1.0

    def series(self, key: str, label: str = "", colour: Colour = BLACK, **style: Any) -> list[Series]:
        """The curve of a key; none where it was never measured."""
        if key not in self.keys:
            return []
        values = self._column(key)
        if np.isnan(values).all():
            return []
        return [Series(label or key.replace("_", " "), self.steps, values, colour, **style)]

    def phases(self) -> list[tuple[float, str]]:
        """After which step each phase begins; nothing for a single one."""
        phase = self._column("phase")
        known = np.flatnonzero(~np.isnan(phase))
        starts = known[np.diff(phase[known], prepend=np.nan) != 0].tolist()
        return [(float(self.steps[i]) - 1.0, f"phase {int(phase[i]) + 1}") for i in starts] if len(starts) > 1 else []

    def _column(self, key: str) -> Floats:
        column = np.array([entry.get(key) for entry in self._entries], dtype=np.float64)  # None becomes NaN
        column[~np.isfinite(column)] = np.nan
        return column


def _panels(measured: _Measured) -> list[Panel]:
    series = measured.series
    faint = {"smooth": "median", "faint": True}
    return [
        Panel("Total loss", series("loss", **faint), log=True, height=220, note=_NOTE),
        *_term_panels(measured),
        *_validation_panels(measured),
        Panel(
            "Discriminator loss",
            series("discriminator", "loss", BLUE, **faint) + series("r1", "R1 penalty", ORANGE, smooth="median"),
            log=True,
            note=_NOTE,
        ),
        Panel(
            "Discriminator right",
            series("discriminator_right", colour=BLUE, smooth="mean"),
            limits=(0.0, 1.0),
            height=80,
            note="share of pairs, running mean; 0.5: it cannot tell",
        ),
        Panel("Learning rate", series("lr", colour=BLUE), height=80),
        Panel(
            "Gradient norm before clipping",
            series("gradient", "model", BLUE, **faint)
            + series("discriminator_gradient", "discriminator", ORANGE, smooth="median"),
            log=True,
            note=_NOTE,
        ),
    ]


def _term_panels(measured: _Measured) -> list[Panel]:
    """One logarithmic panel, and a linear one for each term that is not always above 0."""
    together: list[Series] = []
    alone: list[Panel] = []
    for name, colour in TERMS.items():
        for series in measured.series(name, colour=colour, smooth="median"):
            if np.nanmin(series.values) > 0:
                together.append(series)
            else:
                alone += _alone(measured, name)
    return [
        Panel("Loss terms", together, log=True, height=220, note="unweighted, running median"),
        *alone,
        *_alone(measured, LIKELIHOOD),
    ]


def _alone(measured: _Measured, name: str) -> list[Panel]:
    title = "Noise controller, negative log-likelihood" if name == LIKELIHOOD else f"Loss term {name.replace('_', ' ')}"
    return [Panel(title, measured.series(name, colour=BLUE, smooth="median", faint=True), note=_NOTE)]


def _validation_panels(measured: _Measured) -> list[Panel]:
    """PSNR has a panel a stage, because a tenth of a decibel matters where the stages are several apart."""
    factors = sorted(int(key[1:]) for key in measured.keys if key[:1] == "x" and key[1:].isdigit())
    panels = []
    for suffix, title, best in _FIGURES:
        series = [
            curve
            for factor, colour in zip(factors, itertools.cycle(_STAGES), strict=False)
            for curve in measured.series(f"x{factor}{suffix}", f"x{factor}", colour, smooth="points", best=best)
        ]
        panels += [Panel(title, group) for group in ([[curve] for curve in series] if not suffix else [series])]
    return panels
