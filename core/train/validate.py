"""Validation on a fixed set: Y-PSNR of every stage on the middle of each picture, by the protocol."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..chain import Chain
from ..metrics import psnr
from ..pictures import PictureError
from .data import PictureFolder
from .degrade import matlab_imresize

SIDE = 512  # pixels of each picture's middle: enough to rank models, quick enough to run often
FEWEST = 4  # pixels of the input's short side; of less the cropped border leaves nothing
BEST_PSNR = 100.0  # dB given to a picture that is met exactly, which has no finite PSNR


def large_enough(pictures: PictureFolder, stages: int) -> list[int]:
    """The pictures that can be reduced by 2^stages.

    Raises:
        ValueError: there are none.
    """
    short = [min(size) for size in pictures.sizes]
    side = FEWEST * 2**stages
    usable = [index for index, length in enumerate(short) if length >= side]
    if not usable:
        raise ValueError(f"val: expected pictures of at least {side}x{side} px, got at most {max(short)} px")
    return usable


def validate(
    chain: Chain,
    pictures: PictureFolder,
    stages: int,
    dtype: str = "auto",
    poll: Callable[[], None] | None = None,
) -> dict[str, float]:
    """Mean Y-PSNR in dB after each stage, by name ("x2", "x4", …), targets being the picture reduced.

    Pictures that are too small or cannot be decoded are left out.

    Args:
        chain: the model.
        pictures: the validation set.
        stages: how many stages to run; the input is the picture reduced by 2^stages.
        dtype: format of the networks.
        poll: called before each picture; may raise to stop.

    Raises:
        ValueError: there is no picture that can be used.
    """
    sums, count = [0.0] * stages, 0
    factor = 2**stages
    for index in large_enough(pictures, stages):
        if poll is not None:
            poll()
        try:
            pixels = pictures[index]
        except PictureError:  # the folder has named it
            continue
        picture = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
        H, W = (min(side, SIDE) // factor * factor for side in picture.shape[-2:])
        top, left = (picture.shape[-2] - H) // 2, (picture.shape[-1] - W) // 2
        truth = picture[..., top : top + H, left : left + W]
        targets = [matlab_imresize(truth, scale=1 / 2**k) for k in range(stages, 0, -1)] + [truth]
        outputs = chain.stages_of(targets[0].float() / 255, scale=factor, dtype=dtype)
        for k, (output, target) in enumerate(zip(outputs, targets[1:], strict=True)):
            quality = float(psnr(output, target.float() / 255, crop=2 ** (k + 1)))
            sums[k] += min(quality, BEST_PSNR)
        count += 1
    if count == 0:
        raise ValueError(f"val: none of the pictures under {pictures.root} can be decoded")
    return {f"x{2 ** (k + 1)}": total / count for k, total in enumerate(sums)}
