"""`bench`: how fast, beside its peers, in one run."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from ..bench.inference import bench_inference
from ..bench.layers import LayerGraph
from ..bench.memory import bench_memory
from ..bench.report import Report, against, read_figures, to_json
from ..bench.tiles import bench_tiling
from ..bench.training import bench_training, training_report
from ..chain import Chain
from ..evaluate import picture_paths
from ..picture_output import check_target, write_atomic
from ..train.hardware import describe
from ..train.pictures import PictureFolder
from .console import Console, columns
from .models import pick_device

_DECODED = 2 << 30  # bytes of decoded training pictures

OnRound = Callable[[int], None]


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
    if args.json:
        check_target(args.json)
    if args.quality:  # before hours of timing
        picture_paths(Path(args.quality))
    before = None if args.against is None else read_figures(args.against)
    suites = {
        "inference": lambda on_round: _inference(args, device, on_round),
        "tiling": lambda on_round: bench_tiling(device, _chain(args), rounds=args.rounds, on_round=on_round),
        "training": lambda on_round: _training(args, device, on_round),
        "memory": lambda on_round: bench_memory(device, args.model, on_round=on_round),
    }
    machine = f"{describe(device)}, torch {torch.__version__}"
    print(machine)
    found: dict[str, Sequence[Report]] = {}
    for name in args.suite or suites:
        with console.progress(f"bench {name}") as bar:

            def on_round(done: int) -> None:
                if bar is not None:
                    bar(done, args.rounds, None)

            found[name] = suites[name](on_round)
        for report in found[name]:
            print("\n".join(["", report.title, *columns(report.table), *report.notes]))
    if args.json:
        write_atomic(args.json, to_json(machine, _version(), found).encode())
    if before is not None:
        print("\n".join(["", f"against {args.against}: {before[0]}", *columns(against(found, before[1]), words=2)]))
    return 0


def _inference(args: argparse.Namespace, device: torch.device, on_round: OnRound) -> list[Report]:
    peer = None if args.peer is None else LayerGraph(args.peer)
    chain = _chain(args)
    return bench_inference(device, chain, data=args.quality, peer=peer, rounds=args.rounds, on_round=on_round)


def _training(args: argparse.Namespace, device: torch.device, on_round: OnRound) -> list[Report]:
    pictures = None if args.data is None else PictureFolder(args.data, _DECODED)
    result = bench_training(device, recipe=args.recipe, pictures=pictures, rounds=args.rounds, on_round=on_round)
    return [training_report(result)]


def _chain(args: argparse.Namespace) -> Chain:
    return Chain.from_pretrained(args.model)


def _version() -> str:
    return importlib.import_module("...", __package__).__version__
