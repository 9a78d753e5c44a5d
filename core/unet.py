"""AttnUNet: the denoising U-Net of the article's sections 2.3 and 2.4, with a finite receptive field.

Residual blocks without normalisation (as EDSR, arXiv 1707.02921: on CPUs with matrix units one normalisation costs
as much as a 3×3 convolution), pixel-unshuffle at the entrance (FFDNet, arXiv 1710.04026: full-resolution work four
times cheaper), skips by addition (DRUNet, arXiv 2008.13751), attentions at the levels that the config names.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import POSITIONS, ChannelAttention, SpatialAttention, WindowAttention, check_heads
from .checks import check_choice, check_integer
from .row_stream import Chained, Convolved, Cut, Framed, Grouped, Local, Stream, added


@dataclass(frozen=True)
class UNetConfig:
    """Shape of an AttnUNet. The tuples have one entry a level, finest level first.

    Attributes:
        in_channels, out_channels: channels of the input and the output.
        unshuffle: side of the cells of pixels that become one token of the finest level.
        widths: channels of each level; every level has half the tokens of the one before, per axis.
        blocks: residual blocks of each level, at least 1.
        self_attention, channel_attention, spatial_attention: whether each level has it.
        heads: heads of the self-attention; divides the widths that have it.
        window, channel_window: side of the windows of self-attention and channel attention, in tokens.
        position: position encoding of the self-attention, "relative" or "rotary".

    Raises:
        TypeError, ValueError: a field is not as described.
    """

    in_channels: int = 8
    out_channels: int = 3
    unshuffle: int = 2
    widths: tuple[int, ...] = (64, 96)
    blocks: tuple[int, ...] = (2, 3)  # on the way down and again on the way up; once at the coarsest level
    self_attention: tuple[bool, ...] = (False, True)  # coarse levels only: at full size it outweighs all convolutions
    channel_attention: tuple[bool, ...] = (False, True)
    spatial_attention: tuple[bool, ...] = (False, True)
    heads: int = 3  # 32 channels a head, the tile size of the matrix units
    window: int = 8
    channel_window: int = 4
    position: str = "relative"

    def __post_init__(self) -> None:
        for name in ("in_channels", "out_channels", "unshuffle", "heads", "window", "channel_window"):
            check_integer(getattr(self, name), name, minimum=1)
        check_choice(self.position, "position", POSITIONS)
        levels = len(self.widths)
        if levels == 0:
            raise ValueError("widths: expected at least one level, got ()")
        for name in ("blocks", "self_attention", "channel_attention", "spatial_attention"):
            if len(getattr(self, name)) != levels:
                raise ValueError(f"{name}: expected {levels} entries, one a level, got {getattr(self, name)}")
        for level in range(levels):
            check_integer(self.widths[level], f"widths[{level}]", minimum=4 if self.channel_attention[level] else 1)
            check_integer(self.blocks[level], f"blocks[{level}]", minimum=1)
            if self.self_attention[level]:
                check_heads(self.widths[level], self.heads, self.position)

    @property
    def stride(self) -> int:
        """Pixels a token of the coarsest level stands for, per axis."""
        return self.unshuffle * 2 ** (len(self.widths) - 1)

    @property
    def align(self) -> int:
        """The input is padded to a multiple of this, and tiles begin at multiples of it (pixels)."""
        align = self.stride
        for level in range(len(self.widths)):
            pixels = self.unshuffle * 2**level
            if self.self_attention[level]:
                align = math.lcm(align, self.window * pixels)
            if self.channel_attention[level]:
                align = math.lcm(align, self.channel_window * pixels)
        return align


class ResidualBlock(nn.Module):
    """x + gates(conv(relu(conv(x)))), the second convolution zero at birth. [B, C, H, W] -> the same."""

    def __init__(self, width: int, gates: list[ChannelAttention | SpatialAttention]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)  # zero-init: the block starts as identity
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]
        self.gates = nn.Sequential(*gates)

    def forward(self, x: Tensor) -> Tensor:
        # in place: a fresh feature map costs as much as the arithmetic on it
        return self.gates(self.conv2(F.relu(self.conv1(x), inplace=True))).add_(x)

    def stream(self) -> Stream:
        """The block over the rows of an image, see `core.row_stream`."""
        activation = Local(lambda rows: F.relu(rows, inplace=True))
        return added(Chained(Convolved(self.conv1), activation, Convolved(self.conv2), *_streams(self.gates)))

    def context(self, tokens: int) -> int:
        """How many tokens beyond a border of the grid are looked at by the first `tokens` beyond it."""
        return 2 + _context(self.gates, tokens)


class Level(nn.Module):
    """The residual blocks of one level: self-attention follows the first, the gates sit in the last."""

    def __init__(self, config: UNetConfig, level: int) -> None:
        super().__init__()
        width, count = config.widths[level], config.blocks[level]
        layers: list[ResidualBlock | WindowAttention] = []
        for i in range(count):
            gates: list[ChannelAttention | SpatialAttention] = []
            if i == count - 1 and config.channel_attention[level]:
                gates.append(ChannelAttention(width, config.channel_window))
            if i == count - 1 and config.spatial_attention[level]:
                gates.append(SpatialAttention())
            layers.append(ResidualBlock(width, gates))
            if i == 0 and config.self_attention[level]:
                layers.append(WindowAttention(width, config.heads, config.window, config.position))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)

    def stream(self) -> Stream:
        """The level over the rows of an image, see `core.row_stream`."""
        return Chained(*_streams(self.layers))

    def context(self, tokens: int) -> int:
        """How many tokens beyond a border of the grid are looked at by the first `tokens` beyond it."""
        return _context(self.layers, tokens)


def _streams(layers: nn.Sequential) -> list[Stream]:
    return [layer.stream() for layer in layers]  # type: ignore[operator]


def _context(layers: nn.Sequential, tokens: int) -> int:
    for layer in reversed(layers):
        tokens = layer.context(tokens)  # type: ignore[operator]
    return tokens


class AttnUNet(nn.Module):
    """U-Net with residual blocks, skips and attentions; its last layer is zero at birth.

    Shape:
        [B, in_channels, H, W] -> [B, out_channels, H, W], any H and W (padded inside by repeating the edge).

    Attributes:
        halo: pixels of context that its output depends on around a tile which begins and ends on the grid.
        align: tiles must begin at multiples of this many pixels.
        stride: pixels of one token at the coarsest level.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths, r = config.widths, config.unshuffle
        self.head = nn.Conv2d(config.in_channels * r * r, widths[0], 3, padding=1)
        self.down_levels = nn.ModuleList(Level(config, i) for i in range(len(widths) - 1))
        self.downs = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in itertools.pairwise(widths))
        self.middle = Level(config, len(widths) - 1)
        self.ups = nn.ModuleList(nn.Conv2d(b, 4 * a, 1) for a, b in itertools.pairwise(widths))
        self.up_levels = nn.ModuleList(Level(config, i) for i in range(len(widths) - 1))
        self.tail = nn.Conv2d(widths[0], config.out_channels * r * r, 3, padding=1)
        nn.init.zeros_(self.tail.weight)  # zero-init: an untrained network adds nothing
        nn.init.zeros_(self.tail.bias)  # type: ignore[arg-type]
        self.stride, self.align = config.stride, config.align
        self.halo = self._halo()

    def _halo(self) -> int:
        # From the output back to the input: how much lies beyond a border of the grid, in tokens of each level.
        # The way through the middle sees further than the skips beside it.
        tokens = 1  # what the tail looks at
        for level in self.up_levels:
            tokens = math.ceil(level.context(tokens) / 2)  # type: ignore[operator]
        tokens = self.middle.context(tokens)
        for level in reversed(self.down_levels):
            tokens = level.context(2 * tokens)  # type: ignore[operator]
        return self.config.unshuffle * (tokens + 1)  # what the head looks at

    def forward(self, x: Tensor) -> Tensor:
        H, W = x.shape[-2:]
        if H % self.align or W % self.align:
            x = F.pad(x, (0, -W % self.align, 0, -H % self.align), mode="replicate")
        cells = F.pixel_unshuffle(x, self.config.unshuffle)
        x = self.head(cells.contiguous(memory_format=torch.channels_last))
        skips = []
        for level, down in zip(self.down_levels, self.downs, strict=True):
            x = level(x)
            skips.append(x)
            x = down(x)
        x = self.middle(x)
        for level, up in zip(reversed(self.up_levels), reversed(self.ups), strict=True):
            x = level(F.pixel_shuffle(up(x), 2) + skips.pop())
        return F.pixel_shuffle(self.tail(x), self.config.unshuffle)[..., :H, :W]

    def stream(self, height: int, width: int) -> Stream:
        """The network over the rows of an image, see `core.row_stream`.

        Args:
            height, width: of the image.
        """
        r = self.config.unshuffle
        return Chained(
            Framed(-height % self.align, -width % self.align),
            Grouped(r, lambda rows: F.pixel_unshuffle(rows, r).contiguous(memory_format=torch.channels_last)),
            Convolved(self.head),
            self._stream_from(0),
            Convolved(self.tail),
            Local(lambda rows: F.pixel_shuffle(rows, r)),
            Cut(height, width),
        )

    def _stream_from(self, level: int) -> Stream:
        if level == len(self.downs):
            return self.middle.stream()

        def up(rows: Tensor) -> Tensor:
            return F.pixel_shuffle(self.ups[level](rows), 2)

        below = Chained(Grouped(2, self.downs[level]), self._stream_from(level + 1), Local(up))
        return Chained(self.down_levels[level].stream(), added(below), self.up_levels[level].stream())  # type: ignore[operator]


def parameter_count(module: nn.Module) -> int:
    """Number of values in the parameters of `module`, frozen ones too."""
    return sum(p.numel() for p in module.parameters())
