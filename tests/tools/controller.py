"""How well the noise controller's map predicts the error of the upsampler, on pictures that it has not seen.

    python -m tests.tools.controller --data FOLDER [--model NAME|FILE] [--list FILE]

Each picture is reduced by 2 and enlarged by the first stage's upsampler. Its absolute error, averaged over R, G, B, is
compared with the controller's map and with the gradient map: Spearman's rank correlation, pixel by pixel and of means
over blocks of 8 pixels (a single pixel's error is one draw of chance, of which a map can tell the size only), and the
negative log-likelihood under a Laplace distribution. The gradient map knows no unit: it is given the factor that is
best for these pictures, which the controller is not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor

from progressive_upsampling.core.adaptive_noise import gradient_map, laplace_nll
from progressive_upsampling.core.chain import Chain
from progressive_upsampling.core.evaluate import picture_paths, read_8bit
from progressive_upsampling.core.stage import Stage
from progressive_upsampling.core.train.degrade import matlab_imresize

from .quality.tables import markdown

BLOCK = 8  # pixels a side
MAPS = ("controller", "gradient")


@dataclass(frozen=True)
class Judgement:
    """What is said of a map.

    Attributes:
        pixels, blocks: Spearman's rank correlation with the error.
        likelihood: negative logarithm of it, lower is better.
    """

    pixels: float
    blocks: float
    likelihood: float


def judge(error: Tensor, expected: Tensor) -> Judgement:
    """Compare a map with what it predicts.

    Args:
        error: `[1, 3, H, W]`, signed.
        expected: `[1, 1, H, W]`, > 0, in the unit of the error.
    """
    size = error.abs().mean(1, keepdim=True)
    return Judgement(
        _ranks(size, expected),
        _ranks(F.avg_pool2d(size, BLOCK), F.avg_pool2d(expected, BLOCK)),
        laplace_nll(error, expected).item(),
    )


def best_factor(errors: Sequence[Tensor], shapes: Sequence[Tensor]) -> float:
    """What maps are to be multiplied with for the greatest likelihood of the errors: the mean of |e| / m."""
    ratios = [(error.abs() / shape).mean().item() for error, shape in zip(errors, shapes, strict=True)]
    return sum(ratios) / len(ratios)


def measure(stage: Stage, folder: Path, names: Collection[str] | None = None) -> dict[str, Judgement]:
    """Means over the pictures of a folder, of both maps by name."""
    errors, learned, gradients = [], [], []
    for path in picture_paths(folder, names):
        truth = read_8bit(path).expand(-1, 3, -1, -1)
        H, W = truth.shape[2:]
        truth = truth[..., : H - H % 2, : W - W % 2]
        up = stage.upsample(matlab_imresize(truth, scale=0.5).float() / 255, truth.shape[2:], dtype="fp32")
        errors.append(truth.float() / 255 - up)
        learned.append(stage.controller(up))
        gradients.append(gradient_map(up))
    factor = best_factor(errors, gradients)
    maps = {"controller": learned, "gradient": [factor * shape for shape in gradients]}
    return {name: _mean([judge(*pair) for pair in zip(errors, maps[name], strict=True)]) for name in MAPS}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool."""
    parser = argparse.ArgumentParser(
        prog="controller", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, type=Path, metavar="FOLDER", help="pictures to measure on")
    parser.add_argument("--model", default="default", metavar="NAME|FILE", help="a chain (default: default)")
    parser.add_argument("--list", type=Path, metavar="FILE", help="names of the pictures to take, one a line")
    args = parser.parse_args(argv)
    names = args.list.read_text(encoding="utf-8").split() if args.list else None
    with torch.no_grad():
        found = measure(Chain.from_pretrained(args.model).stage(1), args.data, names)
    rows = [(name, f"{one.pixels:.3f}", f"{one.blocks:.3f}", f"{one.likelihood:.3f}") for name, one in found.items()]
    print(markdown(("map", "rank correlation, pixels", "of blocks", "negative log-likelihood"), rows, right=3))
    return 0


def _ranks(one: Tensor, other: Tensor) -> float:
    return float(spearmanr(one.flatten().numpy(), other.flatten().numpy()).statistic)


def _mean(found: Sequence[Judgement]) -> Judgement:
    count = len(found)
    return Judgement(
        sum(one.pixels for one in found) / count,
        sum(one.blocks for one in found) / count,
        sum(one.likelihood for one in found) / count,
    )


if __name__ == "__main__":
    sys.exit(main())
