"""The pictures of a run: what is trained on, and what is held out of it to validate with."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from .config import TrainConfig
from .data import MARGIN
from .pictures import Budget, PictureFolder, Pictures, Subset, decodable, split
from .task import task_of
from .validate import fewest_pixels

SPLIT_SEED = 0  # the same pictures are held back whatever a run's seed, so that runs can be compared

log = logging.getLogger(__name__)


def open_pictures(
    data: Pictures | str | Path,
    val: Pictures | str | Path | None,
    *,
    share: float,
    memory: int,
    side: int = 0,
    arguments: tuple[str, str] = ("data", "val"),
) -> tuple[Pictures, Pictures | None]:
    """Training pictures, and validation pictures if there are any; of two folders none is in both.

    Args:
        data: training pictures, or the folder that they are in.
        val: validation pictures, or their folder. What of the training folder is in it, too, also by a link, is not
            trained on. None holds back a share of the training pictures.
        share: that part, 0 up to below 1.
        memory: bytes of decoded pictures to keep, of both together.
        side: pixels that the short side of a picture must have to be held back, see `whole_side`. The only such
            picture is trained on.
        arguments: what messages call `data` and `val`.

    Raises:
        ValueError: no readable picture in one of them, or none to train on that is not in both.
    """
    budget = Budget(memory)
    pictures = _opened(data, budget, arguments[0])
    if val is not None:
        validation = _opened(val, budget, arguments[1])
        if not any(decodable(validation, index) for index in range(len(validation))):
            raise ValueError(f"{arguments[1]}: none of the pictures of {validation.name} can be decoded")
        if isinstance(pictures, PictureFolder) and isinstance(validation, PictureFolder):
            return _without(pictures, validation, arguments), validation
        return pictures, validation
    large = sum(min(size) >= side for size in pictures.sizes)
    if share > 0 and large > 1:
        return split(pictures, share, SPLIT_SEED, side)
    if share > 0:
        wanted = f"2 pictures of at least {side}x{side} px" if side else "2 pictures"
        log.warning("%s: there is no validation, as it takes %s to hold one back, got %d", arguments[0], wanted, large)
    return pictures, None


def whole_side(config: TrainConfig, pd: bool) -> int:
    """Pixels that the short side of a picture must have, so that every phase can cut crops from it and measure it.

    Args:
        config: of the run.
        pd: whether PD-squeeze is measured.
    """
    task, sides = task_of(config), []
    for phase in config.phases:
        factors = task.factors(phase.stages)
        sides.append(factors[-1] * max(phase.crop + 2 * MARGIN, fewest_pixels(factors, pd)))
    return max(sides)


def _opened(source: Pictures | str | Path, budget: Budget, argument: str) -> Pictures:
    return PictureFolder(source, budget, argument) if isinstance(source, (str, Path)) else source


def _without(pictures: PictureFolder, others: PictureFolder, arguments: tuple[str, str]) -> Pictures:
    data, val = arguments
    taken = {os.path.realpath(path) for path in others.paths}
    kept = [index for index, path in enumerate(pictures.paths) if os.path.realpath(path) not in taken]
    if not kept:
        raise ValueError(f"{data}: expected pictures that are not in {val}, got {len(pictures)} that are")
    if len(kept) == len(pictures):
        return pictures
    log.warning("%s: %d pictures are not trained on, as they are in %s", data, len(pictures) - len(kept), val)
    return Subset(pictures, kept)
