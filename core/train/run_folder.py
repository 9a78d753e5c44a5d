"""The files of a run, and the pictures among them."""

from __future__ import annotations

from pathlib import Path

from ..picture_output import write_picture
from .curves import loss_curves
from .history import read_history

STATE, LAST, BEST, HISTORY, CONFIG, CURVES, SAMPLES = (
    "state.safetensors",
    "last.safetensors",
    "best.safetensors",
    "history.jsonl",
    "config.json",
    "curves.png",
    "samples",  # a folder with a sheet for each validation, named by the step
)


def write_curves(run: Path) -> None:
    """Draws the history of a run into its folder."""
    write_picture(run / CURVES, loss_curves(read_history(run / HISTORY), title=run.resolve().name))


def sheet_path(run: Path, step: int) -> Path:
    """Where the sheet of a step belongs; its folder is made."""
    (run / SAMPLES).mkdir(exist_ok=True)
    return run / SAMPLES / f"{step:07}.png"
