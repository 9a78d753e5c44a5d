"""`upscale`: a picture, or a folder of pictures, to a larger size."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

from ..chain import Settings
from ..checks import check_integer, check_number
from ..pictures import (
    Picture,
    PictureError,
    check_output,
    find_pictures,
    read_picture,
    write_picture,
)
from ..precision import resolve_dtype
from ..resample import resample
from ..sheet import compare
from ..sizes import target_size
from .console import Console
from .folders import folders_for_output
from .models import Model, load_model, pick_device


@dataclass(frozen=True)
class Job:
    """One picture to be read and one to be written."""

    source: Path
    target: Path


def run(args: argparse.Namespace, console: Console) -> int:
    """Run the subcommand.

    Args:
        args: the parsed options.
        console: where to report.

    Returns:
        0, or 1 if some pictures of a folder failed.

    Raises:
        ValueError, TypeError, OSError: an option, a file or the model is not what it should be.
    """
    source, target = Path(args.input), Path(args.output)
    device = pick_device(args.device)
    resolve_dtype(args.dtype, device)
    _check_settings(args)
    jobs = _jobs(source, target)
    folders = [target] if source.is_dir() else []
    folders += [Path(args.save_stages)] if args.save_stages else []
    if args.compare:
        if source.is_dir():
            raise ValueError("--compare: expected one picture as INPUT, got a folder")
        check_output(args.compare)
    with folders_for_output(folders):
        first = None
        if not source.is_dir():  # a bad picture is said before the model is waited for
            check_output(target)
            first = read_picture(source)
            if args.scale or args.size:
                check_output(target, _target_size(first, args, 0.0))
        model = load_model(args.model, device)
        failed = 0
        for number, job in enumerate(jobs, 1):
            label = f"{job.source.name} ({number}/{len(jobs)})" if len(jobs) > 1 else job.source.name
            try:
                _upscale(job, first or read_picture(job.source), model, args, console, label)
            except ValueError as error:
                if first is not None:
                    raise
                failed += 1
                console.error(str(error) if isinstance(error, PictureError) else f"{job.source}: {error}")
        if failed:
            console.error(f"{failed} of {len(jobs)} pictures could not be upscaled")
    return 1 if failed else 0


def _upscale(job: Job, picture: Picture, model: Model, args: argparse.Namespace, console: Console, label: str) -> None:
    started = time.monotonic()
    size = _target_size(picture, args, model.scale)
    check_output(job.target, size)
    with console.progress(label) as on_step:
        stages = model.stages(
            picture.image,
            size,
            seed=args.seed,
            strength=args.strength,
            detail=args.detail,
            steps=args.steps,
            tile=args.tile,
            dtype=args.dtype,
            on_step=on_step,
        )
    if args.save_stages:
        for number, stage in enumerate(stages, 1):
            height, width = stage.shape[-2:]
            name = f"{job.source.stem}_stage{number}_{width}x{height}.png"
            write_picture(Path(args.save_stages) / name, stage, picture)
    write_picture(job.target, stages[-1], picture)
    if args.compare:
        panels = {
            f"input {_by(picture.image.shape)}": picture.image,
            "bicubic": resample(picture.image, size).clamp(0.0, 1.0),
            f"{model.name} {_by(stages[-1].shape)}": stages[-1],
        }
        write_picture(args.compare, compare(panels))
    seconds = time.monotonic() - started
    console.note(f"{job.target}: {_by(picture.image.shape)} to {_by(stages[-1].shape)} pixels in {seconds:.1f} s")


def _check_settings(args: argparse.Namespace) -> None:
    if args.scale is not None:
        target_size(1, 1, args.scale, None)
    if args.size is not None:
        target_size(1, 1, None, args.size)
    check_integer(args.seed, "seed", 0, 2**64 - 1)
    check_number(args.strength, "strength", 0)
    Settings(strength=args.strength, steps=args.steps, detail=args.detail, dtype=args.dtype)


def _target_size(picture: Picture, args: argparse.Namespace, own: float) -> tuple[int, int]:
    height, width = picture.image.shape[-2:]
    if args.size:
        return target_size(height, width, None, args.size)
    return target_size(height, width, args.scale or own, None)


def _jobs(source: Path, target: Path) -> list[Job]:
    if not source.is_dir():
        if target.exists() and source.exists() and target.samefile(source):
            raise PictureError(f"{target}: OUTPUT is INPUT itself; choose another name")
        return [Job(source, target)]
    if target.exists() and not target.is_dir():
        raise PictureError(f"{target}: expected a folder as OUTPUT, as INPUT is one, got a file")
    if target.exists() and target.samefile(source):
        raise PictureError(f"{target}: OUTPUT is the folder of INPUT; choose another one")
    jobs = [Job(path, target / f"{path.stem}.png") for path in find_pictures(source)]
    if not jobs:
        raise PictureError(f"{source}: no pictures in this folder")
    taken: dict[str, Path] = {}
    for job in jobs:
        # Not every file system tells large letters from small ones.
        other = taken.setdefault(job.target.name.casefold(), job.source)
        if other != job.source:
            raise PictureError(f"{source}: {other.name} and {job.source.name} would both become {job.target.name}")
    return jobs


def _by(shape: tuple[int, ...]) -> str:
    return f"{shape[-1]}x{shape[-2]}"
