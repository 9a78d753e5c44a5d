"""Measures networks of others beside the bundled ones, in one run.

    python -m tests.tools.peers --peers FOLDER --data FOLDER [--set Set5] [--scale 8] [--squeezenet FILE]

The first folder holds the peers' weights, which are no part of this project: VDSR, CARN-M, IMDN and SAFMN as
.safetensors; LapSRN, MS-LapSRN and OpenCV's ESPCN and FSRCNN as .npz with their graphs (.json) beside them. They are
known by the names and shapes of their tensors. The second holds the folders Set5, Set14 and B100. For every set and
factor the peers and the bundled models of that factor enlarge the same pictures by turns, which are of 8 bits: peers
that see luma alone were often measured with reductions that are not rounded, which gives up to 0.08 dB more (VDSR, ×2,
Set14; `--unrounded` measures so, and writes nothing). The table is printed, and the figures go to docs/peers.json, from
which `python -m tests.tools.quality render` takes them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from progressive_upsampling.core.cli.evaluate import table
from progressive_upsampling.core.evaluate import evaluate_folder
from progressive_upsampling.core.perceptual_distance import PerceptualDistance
from progressive_upsampling.core.picture_output import write_atomic
from progressive_upsampling.core.squeezenet import load_squeezenet

from ..quality.ledger import RESULTS
from ..quality.measure import SETS, entry
from ..quality.models import Bundled, bundled_models
from ..quality.pages import PEERS
from .catalogue import Peer, load_peers

OWN, OTHERS = "bundled", "peers"

Figures = dict[str, dict[str, Any]]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; the exit status is 1 where something is not as it should be."""
    args = _parser().parse_args(argv)
    try:
        _run(args)
    except (ValueError, OSError) as error:
        print(f"peers: error: {error}", file=sys.stderr)
        return 1
    return 0


def _run(args: argparse.Namespace) -> None:
    peers, unknown = load_peers(args.peers)
    if unknown:
        print(f"left out, not known: {', '.join(unknown)}", flush=True)
    judge = PerceptualDistance(load_squeezenet(args.squeezenet)) if args.squeezenet else None
    own = bundled_models()
    figures = read_figures(args.json)
    offered = {scale for one in (*peers, *own) for scale in one.scales}
    for folder in args.set or SETS:
        for scale in sorted(offered & set(args.scale or offered)):
            if not (Path(args.data) / folder).is_dir():
                print(f"{folder}: left out, not in the folder", flush=True)
                break
            _measure(figures, Path(args.data) / folder, scale, own, peers, judge, args)
            if not args.unrounded:
                write_figures(args.json, figures)


def _measure(
    figures: Figures,
    folder: Path,
    scale: int,
    own: list[Bundled],
    peers: list[Peer],
    judge: PerceptualDistance | None,
    args: argparse.Namespace,
) -> None:
    own = [model for model in own if scale in model.scales]
    peers = [peer for peer in peers if scale in peer.scales]
    methods = {model.name: model.enlarge("fp32") for model in own} | {peer.name: peer.run for peer in peers}
    result = evaluate_folder(folder, scale, methods, rounded=not args.unrounded, distance=judge)
    print(table(result, per_picture=args.per_picture) + "\n", flush=True)
    facts = {model.name: (OWN, {"sha256": model.digest}) for model in own}
    facts |= {peer.name: (OTHERS, {"parameters": peer.parameters}) for peer in peers}
    for name, (section, told) in facts.items():
        record = figures[section].setdefault(name, {})
        if section == OWN and record.get("sha256") != told["sha256"]:
            record.clear()  # figures of other weights
        record |= told
        record.setdefault(RESULTS, {})[f"{folder.name} x{scale}"] = entry(result, name, "fp32")


def read_figures(path: Path) -> Figures:
    """The figures so far; none where the file is not there.

    Raises:
        ValueError: it is something else.
    """
    if not path.exists():
        return {OWN: {}, OTHERS: {}}
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
        return {OWN: figures[OWN], OTHERS: figures[OTHERS]}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected a file that this tool has written: {error!r}") from error


def write_figures(path: Path, figures: Figures) -> None:
    """Write the figures, whole or not at all, in the order of names."""
    ordered = {
        section: {
            name: record | {RESULTS: dict(sorted(record[RESULTS].items()))} for name, record in sorted(records.items())
        }
        for section, records in figures.items()
    }
    write_atomic(path, (json.dumps(ordered, indent=2, allow_nan=False) + "\n").encode())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", required=True, metavar="FOLDER", help="the peers' weights")
    parser.add_argument("--data", required=True, metavar="FOLDER", help="with the folders Set5, Set14, B100")
    parser.add_argument("--set", action="append", choices=SETS, help="may be repeated (default: all)")
    parser.add_argument("--scale", action="append", type=int, help="may be repeated (default: all)")
    parser.add_argument("--squeezenet", metavar="FILE", help="SqueezeNet's weights, to measure PD-squeeze too")
    parser.add_argument("--unrounded", action="store_true", help="reductions that are not rounded; nothing is written")
    parser.add_argument("--per-picture", action="store_true", help="a line for every picture")
    parser.add_argument("--json", type=Path, default=PEERS, metavar="FILE", help="figures (default: docs/peers.json)")
    return parser


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    sys.exit(main())
