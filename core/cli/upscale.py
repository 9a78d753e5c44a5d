"""`upscale`: a picture, or a folder of pictures, to a larger size."""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..chain import GROUP_PIXELS, Chain, Settings
from ..checks import MAX_SIDE, check_integer, check_number
from ..layout import through_rgb_only
from ..pictures import (
    PictureError,
    check_output,
    find_pictures,
    read_picture,
    write_picture,
)
from ..precision import resolve_dtype
from ..sheet import compare
from ..sizes import target_size
from ..upsample import upsample
from .console import Console
from .folders import folders_for_output
from .models import Model, load_model, pick_device
from .pipeline import Job, Loaded, grouped, run_pipeline

_MASK = "--detail-mask"
Named = dict[str, str]  # what a command reads and writes, in words, by its real path
_OF_CHAINS = ("strength", "detail", "steps", "detail_mask", "skip")  # options that single networks have no use for


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
    settings = _settings(args)
    jobs = _jobs(source, target)
    folders = {"OUTPUT": target} if source.is_dir() else {}
    folders |= {"--save-stages": Path(args.save_stages)} if args.save_stages else {}
    if args.compare:
        if source.is_dir():
            raise ValueError("--compare: expected one picture as INPUT, got a folder")
        check_output(args.compare)
    named = _check_distinct(args, jobs)
    with folders_for_output(folders):
        if source.is_dir():
            return _folder(jobs, args, settings, named, device, console)
        # a bad picture is said before the model is waited for
        check_output(target)
        picture = read_picture(source)
        if args.scale or args.size:
            check_output(target, _target_size(picture.image.shape[-2:], args, 0.0), picture)
        model = _model(args, device, console)
        for write in _work([Loaded(jobs[0], picture)], model, args, settings, named, console, source.name):
            write()
    return 0


def _check_distinct(args: argparse.Namespace, jobs: list[Job]) -> Named:
    """Nothing that is written may take the place of something that is read, or written too; what there is of both."""
    taken = {os.path.realpath(job.source): f"{job.source} (INPUT)" for job in jobs}
    if args.detail_mask:
        taken[os.path.realpath(args.detail_mask)] = _MASK
    for option, path in (*(("OUTPUT", job.target) for job in jobs), ("--compare", args.compare)):
        other = taken.setdefault(os.path.realpath(path), option) if path else option
        if other != option:
            raise PictureError(f"{path}: {option} is {other} itself; choose another name")
    return taken


def _model(args: argparse.Namespace, device: torch.device, console: Console) -> Model:
    model, plain = load_model(args.model, device), Settings()
    given = [name for name in _OF_CHAINS if getattr(args, name) != getattr(plain, name)]
    if not isinstance(model.method, Chain) and given:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        console.note(f"warning: {options} without effect: {model.name} is no chain")
    return model


def _folder(
    jobs: list[Job],
    args: argparse.Namespace,
    settings: dict[str, Any],
    named: Named,
    device: torch.device,
    console: Console,
) -> int:
    model = _model(args, device, console)
    begun: set[Job] = set()
    failures = 0

    def work(batch: list[Loaded]) -> list[Callable[[], None]]:
        begun.update(found.job for found in batch)
        label = f"{batch[-1].job.source.name} ({len(begun)}/{len(jobs)})"
        return _work(batch, model, args, settings, named, console, label)

    def failed(job: Job, error: ValueError) -> None:
        nonlocal failures
        failures += 1
        console.error(str(error) if isinstance(error, PictureError) else f"{job.source}: {error}")

    def pixels(height: int, width: int) -> int:
        try:
            return math.prod(_target_size((height, width), args, model.scale))
        except ValueError:  # too large a result: said when its turn comes
            return GROUP_PIXELS

    run_pipeline(grouped(jobs, pixels), work, failed)
    if failures:
        console.error(f"{failures} of {len(jobs)} pictures could not be upscaled")
    return 1 if failures else 0


def _work(
    batch: list[Loaded],
    model: Model,
    args: argparse.Namespace,
    settings: dict[str, Any],
    named: Named,
    console: Console,
    label: str,
) -> list[Callable[[], None]]:
    """Upscales pictures of one shape; returns what writes the result of each."""
    started = time.monotonic()
    size = _target_size(batch[0].picture.image.shape[-2:], args, model.scale)
    for found in batch:
        check_output(found.job.target, size, found.picture)
    with console.progress(label) as on_step:
        stages = model.stages(
            torch.cat([found.picture.image for found in batch]),
            size,
            tile=args.tile,
            dtype=args.dtype,
            on_step=on_step,
            every=bool(args.save_stages),
            **settings,
        )
    seconds = (time.monotonic() - started) / len(batch)

    def write(number: int, found: Loaded) -> None:
        _write(found, [stage[number : number + 1] for stage in stages], model, args, named)
        before, after = _by(found.picture.image.shape), _by(stages[-1].shape)
        console.note(f"{found.job.target}: {before} to {after} pixels in {seconds:.1f} s")

    return [partial(write, number, found) for number, found in enumerate(batch)]


def _write(found: Loaded, stages: list[Tensor], model: Model, args: argparse.Namespace, named: Named) -> None:
    image = found.picture.image
    if args.save_stages:
        paths = [_stage_path(found.job, number, stage, args) for number, stage in enumerate(stages, 1)]
        for path in paths:
            if other := named.get(os.path.realpath(path)):
                raise PictureError(f"{path}: --save-stages would write over {other}; choose another folder")
        for path, stage in zip(paths, stages, strict=True):
            write_picture(path, stage, found.picture)
    write_picture(found.job.target, stages[-1], found.picture)
    if args.compare:
        panels = {
            f"input {_by(image.shape)}": image,
            "bicubic": upsample(image, (stages[-1].shape[2], stages[-1].shape[3])),
            f"{model.name} {_by(stages[-1].shape)}": stages[-1],
        }
        write_picture(args.compare, compare(panels))


def _stage_path(job: Job, number: int, stage: Tensor, args: argparse.Namespace) -> Path:
    return Path(args.save_stages) / f"{job.source.stem}_stage{number}_{_by(stage.shape)}.png"


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """What is asked of a chain, checked; a mask is read."""
    if args.scale is not None:
        target_size(1, 1, args.scale, None)
    if args.size is not None and not all(1 <= side <= MAX_SIDE for side in args.size):
        raise ValueError(f"--size: expected WxH, each in 1..{MAX_SIDE}, got {_by(args.size)}")
    check_integer(args.seed, "seed", 0, 2**64 - 1)
    check_number(args.strength, "strength", 0)
    settings = {name: getattr(args, name) for name in ("seed", "strength", "detail", "steps", "skip")}
    if args.detail_mask:
        image = read_picture(args.detail_mask).image
        settings["detail_mask"] = through_rgb_only(image).mean(1, keepdim=True)
    Settings(dtype=args.dtype, **settings)
    return settings


def _target_size(before: Sequence[int], args: argparse.Namespace, own: float) -> tuple[int, int]:
    height, width = before
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
        # Not every file system tells large letters from small ones; and a name may be a link to another.
        other = taken.setdefault(os.path.realpath(job.target).casefold(), job.source)
        if other != job.source:
            raise PictureError(f"{source}: {other.name} and {job.source.name} would both become {job.target.name}")
    return jobs


def _by(shape: tuple[int, ...]) -> str:
    return f"{shape[-1]}x{shape[-2]}"
