"""Measures what is bundled, and writes the tables and model cards from the figures.

    python -m tests.tools.quality bundle RUN/best.safetensors NAME [--set limits="..."] [--denoiser]
    python -m tests.tools.quality measure --data FOLDER [--squeezenet FILE] [--only NAME] [--again]
    python -m tests.tools.quality render [--check]
    python -m tests.tools.quality card NAME --set limits="..." --set data_licence="..." [--metrics]

`bundle` writes a trained model to core/weights in half precision; --denoiser takes only that of a chain's first stage.
`measure` fills docs/quality.json: every bundled model and bicubic on Set5, Set14 and B100 below the folder, at the
factors that the model is for; denoisers on CBSD68 (a folder, or CBSD68.txt with names of pictures of B100); and the
figures on scikit-image's photographs that a test measures again. What has been measured of the same weights is kept,
and after every piece the file is written, so that it can be stopped at any time. `render` writes the parts of README.md
and core/weights/README.md that stand between comments. `card` changes what a checkpoint says of itself (a value is read
as JSON where it can be; null takes the key out), and proves that its tensors are the same; --metrics puts in what was
measured.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from progressive_upsampling.core.checkpoint import resolve, tensor_digest
from progressive_upsampling.core.perceptual_distance import PerceptualDistance
from progressive_upsampling.core.squeezenet import load_squeezenet

from .blocks import differences, write_page
from .ledger import read_ledger, stale, write_ledger
from .measure import Measurement
from .models import bundled_models
from .pages import JSON, PEERS, ROOT, pages
from .provenance import bundle, changes_of, metrics_of, rewrite


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; the exit status is 1 where something is not as it should be."""
    args = _parser().parse_args(argv)
    try:
        return {"bundle": _bundle, "measure": _measure, "render": _render, "card": _card}[args.command](args)
    except (ValueError, OSError) as error:
        print(f"quality: error: {error}", file=sys.stderr)
        return 1


def _bundle(args: argparse.Namespace) -> int:
    target = ROOT / "core" / "weights" / f"{args.name}.safetensors"
    bundle(Path(args.file), target, changes_of(args.set), half=not args.whole, denoiser=args.denoiser)
    print(f"{target.relative_to(ROOT)}: {target.stat().st_size / 1e6:.2f} MB")
    return 0


def _measure(args: argparse.Namespace) -> int:
    ledger, judge = read_ledger(args.json), None
    if args.squeezenet:
        judge, digest = PerceptualDistance(load_squeezenet(args.squeezenet)), tensor_digest(args.squeezenet)
        if ledger["judge"] not in (None, digest):
            raise ValueError("--squeezenet: other weights than those of the figures so far, which cannot be compared")
        ledger["judge"] = digest
    Measurement(
        ledger,
        Path(args.data),
        lambda: write_ledger(args.json, ledger),
        judge,
        args.dtype,
        lambda text: print(text, flush=True),
    ).run(bundled_models(), args.only, again=args.again)
    return 0


def _render(args: argparse.Namespace) -> int:
    models, ledger = bundled_models(), read_ledger(args.json)
    problems = [f"{args.json.name}: {problem}; run `measure`" for problem in stale(ledger, models)]
    if not problems:
        wanted = pages(ROOT, models, ledger, PEERS)
        for path, text in wanted.items():
            if args.check:
                problems += differences(path, text)
            else:
                write_page(path, text)
    print("\n".join(problems), end="\n" if problems else "")
    return 1 if problems else 0


def _card(args: argparse.Namespace) -> int:
    path, changes = resolve(args.model), changes_of(args.set)
    if args.metrics:
        changes["metrics"] = metrics_of(read_ledger(args.json), path.stem)
    for key, value in rewrite(path, changes).items():
        print(f"{key}: {value}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="quality", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("bundle", help="write a trained model to core/weights")
    make.add_argument("file", metavar="FILE", help="a checkpoint, as best.safetensors of a run")
    make.add_argument("name", metavar="NAME", help="what it is to be called")
    make.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as for card")
    make.add_argument("--whole", action="store_true", help="store it as it is, not in half precision")
    make.add_argument("--denoiser", action="store_true", help="the denoiser of a chain's first stage alone")
    command = commands.add_parser("measure", help="fill in what has not been measured")
    command.add_argument("--data", required=True, metavar="FOLDER", help="with the folders Set5, Set14, B100")
    command.add_argument("--squeezenet", metavar="FILE", help="SqueezeNet's weights, to measure PD-squeeze too")
    command.add_argument("--only", action="append", metavar="NAME", help="a bundled model; may be repeated")
    command.add_argument("--dtype", default="fp32", help="number format (default: fp32, alike on all machines)")
    command.add_argument("--again", action="store_true", help="forget what is known of them; for code that has changed")
    render = commands.add_parser("render", help="write the tables and cards")
    render.add_argument("--check", action="store_true", help="write nothing; show what differs")
    card = commands.add_parser("card", help="change what a checkpoint says of itself")
    card.add_argument("model", metavar="NAME|FILE", help="a bundled name, or a file")
    card.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="may be repeated")
    card.add_argument("--metrics", action="store_true", help="put in what was measured")
    for one in (command, render, card):
        one.add_argument(
            "--json", type=Path, default=JSON, metavar="FILE", help="the figures (default: docs/quality.json)"
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
