"""What each part of the chain is worth: the chain built up part by part, and with single attentions switched off.

    python -m tests.tools.ablation --data FOLDER [--scale 8] [--squeezenet FILE] [--model NAME|FILE] [--list FILE]

Nothing is trained anew: a part that is left out was there while the others learned, so that what it is worth is shown
as it is used, and not what a chain trained without it would do. The rows from "upsampler" to "+ regression" add one
part after the other, at detail 0; the chain's config says whether it is projected back and whether its denoisers have
a regression. Below, the chain adds texture from noise of each kind (detail 1, one seed), and from learned noise
without one attention. The table is Markdown.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from progressive_upsampling.core.adaptive_noise import MODES
from progressive_upsampling.core.attention import ChannelAttention, SpatialAttention, WindowAttention
from progressive_upsampling.core.chain import Chain, ChainConfig
from progressive_upsampling.core.evaluate import Method
from progressive_upsampling.core.row_stream import Local, Stream
from progressive_upsampling.core.sizes import stage_sizes

from .variants import compare

ATTENTIONS = {
    "self-attention": WindowAttention,
    "channel attention": ChannelAttention,
    "spatial attention": SpatialAttention,
}


class Off(nn.Module):
    """In the place of an attention: it leaves everything as it is."""

    def forward(self, x: Tensor) -> Tensor:
        return x

    def stream(self) -> Stream:
        """The same over the rows of an image."""
        return Local(lambda rows: rows)


def without(chain: Chain, kind: type[nn.Module]) -> Chain:
    """A copy of a chain with one kind of attention switched off."""
    lame = copy.deepcopy(chain)
    for layers in [module for module in lame.modules() if isinstance(module, nn.Sequential)]:
        for place, layer in enumerate(layers):
            if isinstance(layer, kind):
                layers[place] = Off()
    return lame


def changed(chain: Chain, regression: bool, back_projection: bool) -> Chain:
    """A copy of a chain with the denoisers' regression and the back-projection on or off."""
    stages = [replace(s, denoiser=replace(s.denoiser, regression=regression)) for s in chain.config.stages]
    other = Chain(ChainConfig(tuple(stages), back_projection))
    other.load_state_dict(chain.state_dict())
    return other.eval()


def upsampled(chain: Chain, dtype: str) -> Method:
    """The stages' upsamplers alone."""

    def run(image: Tensor, scale: int) -> Tensor:
        H, W = image.shape[2:]
        for number, size in enumerate(stage_sizes(H, W, H * scale, W * scale), 1):
            image = chain.stage(number).upsample(image, size, dtype=dtype)
        return image

    return run


def variants(chain: Chain, dtype: str = "fp32") -> dict[str, Method]:
    """All rows by name."""

    def with_(model: Chain, **settings: object) -> Method:
        return lambda image, scale: model(image, scale=scale, dtype=dtype, **settings)

    bare = changed(chain, regression=False, back_projection=False)
    return {
        "upsampler": upsampled(chain, dtype),
        "+ skip": with_(bare, fusion=False),
        "+ fusion": with_(bare),
        "+ back-projection": with_(changed(chain, regression=False, back_projection=True)),
        "+ regression": with_(changed(chain, regression=True, back_projection=True)),
        **{f"{mode} noise": with_(chain, noise=mode, detail=1.0) for mode in MODES},
        **{f"without {name}": with_(without(chain, kind), detail=1.0) for name, kind in ATTENTIONS.items()},
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool."""
    return compare("ablation", __doc__, variants, argv)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    sys.exit(main())
