"""The body of an EDSR with the paper's tail as the upsampler of a chain's first stage.

    python -m tests.tools.first_stage UPSAMPLER CHAIN --data FOLDER --out FILE.safetensors

Such a body has learned for hours what a first stage needs, but ends in another tail and works in 0..255. Its biases are
divided by 255, so that its features are (it is of convolutions, ReLU and sums alone, and homogeneous in its input and
biases together); the direct tail is linear in them, and gets the least squares solution on the pictures of a folder,
reduced by bicubic. A training end to end has to follow: the later stages know another first one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from progressive_upsampling.core.chain import Chain
from progressive_upsampling.core.evaluate import read_8bit
from progressive_upsampling.core.resample import resample
from progressive_upsampling.core.train.degrade import matlab_imresize
from progressive_upsampling.core.train.picture_files import picture_files
from progressive_upsampling.core.upsamplers import load_upsampler
from progressive_upsampling.core.upsamplers.edsr import EDSR

LARGEST = 256  # side of the part of a picture that is used
RIDGE = 1e-7  # of the mean square of a feature: keeps what never lights up from dividing by 0


def with_direct_tail(source: EDSR) -> EDSR:
    """An EDSR whose features are those of `source` over 255, with a direct tail that is still 0.

    Raises:
        ValueError: `source` has a direct tail itself.
    """
    if source.config.tail != "classic":
        raise ValueError(f"source: expected an EDSR with the classic tail, got {source.config.tail}")
    result = EDSR(replace(source.config, tail="direct"))
    body = {name: value for name, value in source.state_dict().items() if not name.startswith("tail.")}
    scaled = {name: value.float() / 255 if name.endswith(".bias") else value.float() for name, value in body.items()}
    result.load_state_dict(result.state_dict() | scaled)
    return result.eval()


@torch.no_grad()
def fit_tail(network: EDSR, truths: Iterable[Tensor]) -> None:
    """Give the direct tail the weights of the least squared error.

    Args:
        network: changed.
        truths: `[1, 3, H, W]` uint8, sides multiples of the factor.
    """
    last = network.tail[0]
    assert isinstance(last, nn.Conv2d)
    inputs = last.weight[0].numel() + 1
    gram = torch.zeros(inputs, inputs, dtype=torch.float64)
    products = torch.zeros(inputs, last.out_channels, dtype=torch.float64)
    for truth in truths:
        known, missing = _equations(network, truth)
        gram += known.T @ known
        products += known.T @ missing
    gram += RIDGE * gram.diagonal().mean() * torch.eye(inputs, dtype=torch.float64)
    weights = torch.linalg.solve(gram, products).T.float()
    last.weight.copy_(weights[:, :-1].view_as(last.weight))
    last.bias.copy_(weights[:, -1])  # type: ignore[union-attr]


def _equations(network: EDSR, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Features [pixels, 9 width + 1] and what bicubic lacks [pixels, 3 scale²], float64."""
    scale = network.scale
    small = matlab_imresize(truth, scale=1 / scale).float() / 255
    features = F.unfold(network._features(small - network.mean), 3, padding=1)[0].T
    lacking = truth.float() / 255 - resample(small, truth.shape[2:])
    ones = torch.ones(len(features), 1)
    missing = F.pixel_unshuffle(lacking, scale)[0].flatten(1).T
    return torch.cat([features, ones], 1).double(), missing.double()


def centres(folder: Path, scale: int) -> Iterator[Tensor]:
    """The middle of each picture of a folder and its subfolders, `[1, 3, H, W]` uint8, sides multiples of `scale`."""
    for path in picture_files(folder):
        picture = read_8bit(path).expand(-1, 3, -1, -1)
        H, W = (min(side, LARGEST) // scale * scale for side in picture.shape[2:])
        top, left = (picture.shape[2] - H) // 2, (picture.shape[3] - W) // 2
        yield picture[..., top : top + H, left : left + W]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool."""
    parser = argparse.ArgumentParser(
        prog="first_stage", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("upsampler", metavar="UPSAMPLER", help="an EDSR, name or file")
    parser.add_argument("chain", metavar="CHAIN", help="name or file; its first stage has an EDSR of the same shape")
    parser.add_argument("--data", required=True, type=Path, metavar="FOLDER", help="pictures to fit the tail on")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="the chain with its new first stage")
    args = parser.parse_args(argv)
    source, chain = load_upsampler(args.upsampler), Chain.from_pretrained(args.chain)
    if not isinstance(source, EDSR):
        parser.error(f"UPSAMPLER: expected an EDSR, got {type(source).__name__}")
    upsampler = with_direct_tail(source)
    first = chain.stages[0].upsampler
    if not isinstance(first, EDSR) or first.config != upsampler.config:
        parser.error(f"CHAIN: expected a first stage of {upsampler.config}, got {getattr(first, 'config', first)}")
    fit_tail(upsampler, centres(args.data, upsampler.scale))
    first.load_state_dict(upsampler.state_dict())
    chain.save(args.out, {"recipe": f"tests.tools.first_stage {args.upsampler} {args.chain}"})
    return 0


if __name__ == "__main__":
    sys.exit(main())
