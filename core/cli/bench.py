"""`bench`: how fast, beside its peers, in one run."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

import torch

from ..bench.training import TrainingBench, bench_training
from ..picture_output import check_target, write_atomic
from ..train.hardware import describe
from ..train.pictures import PictureFolder
from .console import Console, columns
from .models import pick_device


def run(args: argparse.Namespace, console: Console) -> int:
    """Run the subcommand.

    Args:
        args: the parsed options.
        console: where to report.

    Returns:
        0.

    Raises:
        ValueError, OSError: an option or the folder is not usable.
    """
    device = pick_device(args.device)
    if args.json:
        check_target(args.json)
    pictures = None if args.data is None else PictureFolder(args.data, 2 << 30)
    with console.progress("bench training") as bar:

        def on_round(done: int) -> None:
            if bar is not None:
                bar(done, args.rounds, None)

        result = bench_training(device, recipe=args.recipe, pictures=pictures, rounds=args.rounds, on_round=on_round)
    machine = f"{describe(device)}, torch {torch.__version__}"
    print("\n".join([machine, *table(result)]))
    if args.json:
        figures = {"machine": machine, args.suite: asdict(result)}
        write_atomic(args.json, (json.dumps(figures, indent=2) + "\n").encode())
    return 0


def table(result: TrainingBench) -> list[str]:
    """The suite's figures as text."""
    head = ("step", "seconds", "faster", "GFLOP/s", "of the ceiling")
    rows = [
        (
            timing.name,
            f"{timing.seconds:.3f}",
            f"{timing.ratio:.2f}x",
            f"{result.flops / timing.seconds / 1e9:.0f}",
            f"{result.flops / timing.seconds / result.ceiling:.0%}",
        )
        for timing in result.timings
    ]
    rounds = result.timings[0].rounds
    return [
        f"training, recipe {result.recipe}, {result.dtype}, medians of {rounds} paired steps; "
        f"ceiling: a convolution of 64 channels, {result.ceiling / 1e9:.0f} GFLOP/s",
        *columns([head, *rows]),
        f"in a run: {result.seconds:.3f} s a step, {result.waiting:.1%} of the time waiting for crops",
    ]
