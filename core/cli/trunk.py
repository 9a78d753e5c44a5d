"""`vgg`: VGG19's weights from NumPy arrays, for the perceptual loss of `train`."""

from __future__ import annotations

import argparse

from ..train.vgg import convert_npz
from .console import Console


def run(args: argparse.Namespace, console: Console) -> int:
    """Run the subcommand.

    Args:
        args: the parsed options.
        console: where to report.

    Returns:
        0.

    Raises:
        CheckpointError: the source is not VGG19, or the target cannot be written.
    """
    network = convert_npz(args.source, args.target)
    console.note(f"{args.target}: {len(network.layers)} convolutions, conv1_1 to {network.layers[-1]}")
    return 0
