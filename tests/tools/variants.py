"""A chain run in several ways over a folder of pictures, as one table: what the tools on its parts have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from progressive_upsampling.core.chain import Chain
from progressive_upsampling.core.evaluate import Evaluation, Method, evaluate_folder
from progressive_upsampling.core.perceptual_distance import PerceptualDistance
from progressive_upsampling.core.squeezenet import load_squeezenet

from .quality.tables import markdown

Variants = Callable[[Chain, str], dict[str, Method]]  # of a chain and a number format: the rows by name


def as_table(result: Evaluation) -> str:
    """Means of every variant, as Markdown."""
    rows = [result.mean(method) for method in result.methods]
    judged = rows[0].distance is not None
    head = ["", "Y-PSNR", "Y-SSIM", "spectrum", *(["PD-squeeze"] if judged else []), "seconds"]
    cells = [
        [
            row.method,
            f"{row.psnr:.3f}",
            f"{row.ssim:.4f}",
            f"{row.spectrum:.2f}",
            *([f"{row.distance:.4f}"] if row.distance is not None else []),
            f"{row.seconds:.2f}",
        ]
        for row in rows
    ]
    return markdown(head, cells, right=len(head) - 1)


def compare(prog: str, about: str | None, variants: Variants, argv: Sequence[str] | None = None) -> int:
    """Runs a tool that prints such a table.

    Args:
        prog: its name.
        about: what its help says.
        variants: the rows.
        argv: its arguments; None takes those of the process.
    """
    parser = argparse.ArgumentParser(prog, description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="FOLDER", help="pictures to measure on")
    parser.add_argument("--scale", type=int, default=8)
    parser.add_argument("--model", default="default", metavar="NAME|FILE", help="a chain (default: default)")
    parser.add_argument("--squeezenet", metavar="FILE", help="SqueezeNet's weights, to measure PD-squeeze too")
    parser.add_argument("--list", metavar="FILE", help="names of the pictures to take, one a line")
    parser.add_argument("--dtype", default="fp32", help="number format (default: fp32)")
    args = parser.parse_args(argv)
    judge = PerceptualDistance(load_squeezenet(args.squeezenet)) if args.squeezenet else None
    names = None
    if args.list:
        with open(args.list, encoding="utf-8") as lines:
            names = lines.read().split()
    methods = variants(Chain.from_pretrained(args.model), args.dtype)
    result = evaluate_folder(args.data, args.scale, methods, distance=judge, names=names)
    print(as_table(result), flush=True)
    return 0
