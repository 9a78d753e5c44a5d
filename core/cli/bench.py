"""`bench`: how fast, beside its peers, in one run."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from ..bench.inference import bench_inference, check_peer
from ..bench.layers import LayerGraph
from ..bench.memory import bench_memory, check_told
from ..bench.report import Report, against, read_figures, to_json
from ..bench.tiles import bench_tiling
from ..bench.training import bench_training, check_training, training_report
from ..chain import Chain
from ..checks import check_integer
from ..evaluate import picture_paths
from ..picture_output import check_target, write_atomic
from ..train.hardware import describe
from ..train.pictures import PictureFolder
from .console import Console, columns
from .models import pick_device

_DECODED = 2 << 30  # bytes of decoded training pictures

OnRound = Callable[[int], None]
Suite = Callable[[OnRound], Sequence[Report]]


def run(args: argparse.Namespace, console: Console) -> int:
    """Run the subcommand.

    Args:
        args: the parsed options.
        console: where to report.

    Returns:
        0.

    Raises:
        ValueError, OSError: an option, a file or a folder is not usable.
    """
    device = pick_device(args.device)
    check_integer(args.rounds, "--rounds", 1)
    if args.json:
        check_target(args.json)
    before = None if args.against is None else read_figures(args.against)
    prepare = {"inference": _inference, "tiling": _tiling, "training": _training, "memory": _memory}
    # all of them now: what is wrong with the options of the last must not show after hours of timing
    suites = {name: prepare[name](args, device) for name in args.suite or prepare}
    machine = f"{describe(device)}, torch {torch.__version__}"
    print(machine)
    found: dict[str, Sequence[Report]] = {}
    for name, suite in suites.items():
        with console.progress(f"bench {name}") as bar:

            def on_round(done: int) -> None:
                if bar is not None:
                    bar(done, args.rounds, None)

            found[name] = suite(on_round)
        if args.json:  # first: the reader of the table may have gone
            write_atomic(args.json, to_json(machine, _version(), found).encode())
        for report in found[name]:
            print("\n".join(["", report.title, *columns(report.table), *report.notes]))
    if before is not None:
        print("\n".join(["", f"against {args.against}: {before[0]}", *columns(against(found, before[1]), words=2)]))
    return 0


def _inference(args: argparse.Namespace, device: torch.device) -> Suite:
    chain = Chain.from_pretrained(args.model)
    peer = None if args.peer is None else LayerGraph(args.peer)
    if peer is not None:
        check_peer(peer)
    if args.quality is not None:
        picture_paths(Path(args.quality))
    options = {"data": args.quality, "peer": peer, "rounds": args.rounds}
    return lambda on_round: bench_inference(device, chain, **options, on_round=on_round)


def _tiling(args: argparse.Namespace, device: torch.device) -> Suite:
    chain = Chain.from_pretrained(args.model)
    return lambda on_round: bench_tiling(device, chain, rounds=args.rounds, on_round=on_round)


def _training(args: argparse.Namespace, device: torch.device) -> Suite:
    pictures = None if args.data is None else PictureFolder(args.data, _DECODED)
    check_training(args.recipe, pictures)
    options = {"recipe": args.recipe, "pictures": pictures, "rounds": args.rounds}
    return lambda on_round: [training_report(bench_training(device, **options, on_round=on_round))]


def _memory(args: argparse.Namespace, device: torch.device) -> Suite:
    check_told(device)
    Chain.from_pretrained(args.model)
    return lambda on_round: bench_memory(device, args.model, on_round=on_round)


def _version() -> str:
    return importlib.import_module("...", __package__).__version__
