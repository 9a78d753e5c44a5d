"""Validation on a fixed set: Y-PSNR of every stage on the middle of each picture, by the protocol."""

from __future__ import annotations

import torch

from ..chain import Chain
from ..metrics import psnr
from .data import PictureFolder
from .degrade import matlab_imresize

SIDE = 512  # pixels of each picture's middle: enough to rank models, quick enough to run often


def validate(chain: Chain, pictures: PictureFolder, stages: int, dtype: str = "auto") -> dict[str, float]:
    """Mean Y-PSNR in dB after each stage, by name ("x2", "x4", …), targets being the picture reduced.

    Args:
        chain: the model.
        pictures: the validation set.
        stages: how many stages to run; the input is the picture reduced by 2^stages.
        dtype: format of the networks.
    """
    sums = [0.0] * stages
    factor = 2**stages
    for index in range(len(pictures)):
        picture = torch.from_numpy(pictures[index].copy()).permute(2, 0, 1)[None]
        H, W = (min(side, SIDE) // factor * factor for side in picture.shape[-2:])
        top, left = (picture.shape[-2] - H) // 2, (picture.shape[-1] - W) // 2
        truth = picture[..., top : top + H, left : left + W]
        targets = [matlab_imresize(truth, scale=1 / 2**k) for k in range(stages, 0, -1)] + [truth]
        outputs = chain.stages_of(targets[0].float() / 255, scale=factor, dtype=dtype)
        for k, (output, target) in enumerate(zip(outputs, targets[1:], strict=True)):
            sums[k] += float(psnr(output, target.float() / 255, crop=2 ** (k + 1)))
    return {f"x{2 ** (k + 1)}": total / len(pictures) for k, total in enumerate(sums)}
