"""A folder of pictures: those of one size go through the networks together, while files are read and written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..chain import GROUP_PIXELS
from ..pictures import Picture, PictureError, read_picture
from .console import out_of_memory

_AHEAD = 2  # groups whose results may wait to be written


@dataclass(frozen=True)
class Job:
    """One picture to be read and one to be written."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Loaded:
    """A picture that has been read."""

    job: Job
    picture: Picture


Work = Callable[[list[Loaded]], list[Callable[[], None]]]
Failed = Callable[[Job, ValueError], None]


def grouped(jobs: Iterable[Job], pixels: Callable[[int, int], int]) -> list[list[Job]]:
    """Pictures of one size together, as many as make a megapixel of results; in the order of the first of each.

    Args:
        jobs: the pictures; only the heads of the files are read.
        pixels: of the result, from (height, width) of a picture.
    """
    groups: list[list[Job]] = []
    open_groups: dict[tuple[int, int], list[Job]] = {}
    for job in jobs:
        size = _size(job.source)
        group = None if size is None else open_groups.get(size)
        if group is None:
            group = []
            groups.append(group)
        group.append(job)
        if size is not None:
            full = (len(group) + 1) * pixels(*size) > GROUP_PIXELS
            open_groups[size] = group
            if full:
                del open_groups[size]
    return groups


def run_pipeline(
    groups: Sequence[Sequence[Job]],
    work: Work,
    failed: Failed,
) -> None:
    """Runs groups of pictures.

    Args:
        groups: from `grouped`.
        work: does the work of some pictures of one shape, and returns what writes the result of each; that is run in
            another thread, while the next are worked on.
        failed: told of each picture that cannot be read, whose work or writing raised a ValueError, or that there is
            not enough memory for.
    """
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        upcoming = reader.submit(_read, groups[0])
        writing: list[tuple[Job, Future[None]]] = []
        for number, group in enumerate(groups):
            found = upcoming.result()
            if number + 1 < len(groups):
                upcoming = reader.submit(_read, groups[number + 1])
            for job, error in zip(group, found, strict=True):
                if isinstance(error, ValueError):
                    failed(job, error)
            for batch in _alike([one for one in found if isinstance(one, Loaded)]):
                writing += [(one.job, writer.submit(write)) for one, write in _worked(batch, work, failed)]
                while len(writing) > _AHEAD * len(batch):
                    _finish(*writing.pop(0), failed)
        for job, future in writing:
            _finish(job, future, failed)


def _worked(batch: list[Loaded], work: Work, failed: Failed) -> list[tuple[Loaded, Callable[[], None]]]:
    """The pictures whose work was done, with what writes them; one by one where it cannot be done for all together."""
    try:
        return list(zip(batch, work(batch), strict=True))
    except ValueError as error:
        if len(batch) == 1:
            failed(batch[0].job, error)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        if len(batch) == 1:
            failed(batch[0].job, _too_large(batch[0].job))
    # only here: the error holds what the failed attempt had in memory
    return [done for one in batch for done in _worked([one], work, failed)] if len(batch) > 1 else []


def _finish(job: Job, future: Future[None], failed: Failed) -> None:
    try:
        future.result()
    except ValueError as error:
        failed(job, error)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        failed(job, _too_large(job))


def _too_large(job: Job) -> PictureError:
    return PictureError(f"{job.source}: not enough memory for so large a result")


def _read(jobs: Sequence[Job]) -> list[Loaded | ValueError]:
    found: list[Loaded | ValueError] = []
    for job in jobs:
        try:
            found.append(Loaded(job, read_picture(job.source)))
        except ValueError as error:
            found.append(error)
    return found


def _alike(loaded: list[Loaded]) -> list[list[Loaded]]:
    """By shape: a file's head tells neither alpha nor whether the picture will be turned."""
    batches: dict[tuple[int, ...], list[Loaded]] = {}
    for found in loaded:
        batches.setdefault(tuple(found.picture.image.shape), []).append(found)
    return list(batches.values())


def _size(path: Path) -> tuple[int, int] | None:
    try:
        with Image.open(path) as file:
            return file.height, file.width
    except Exception:  # what is wrong with it is said when it is read
        return None
