"""`vgg` and `squeezenet`: the original weights of a trunk, NumPy arrays, turned into a file that the others read."""

from __future__ import annotations

import argparse

from ..squeezenet import LAYERS, convert_squeezenet
from ..train.vgg import convert_npz
from .console import Console


def run(args: argparse.Namespace, console: Console) -> int:
    """Run the subcommand.

    Args:
        args: the parsed options; the command says which trunk it is.
        console: where to report.

    Returns:
        0.

    Raises:
        CheckpointError: the source is not that trunk, or the target cannot be written.
    """
    if args.command == "vgg":
        network = convert_npz(args.source, args.target)
        console.note(f"{args.target}: {len(network.layers)} convolutions, conv1_1 to {network.layers[-1]}")
    else:
        convert_squeezenet(args.source, args.target)
        console.note(f"{args.target}: SqueezeNet 1.0, {', '.join(LAYERS)}")
    return 0
