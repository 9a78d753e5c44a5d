"""The three attentions of the denoising U-Net: windowed multi-head self-attention, channel and spatial attention.

All three have a finite reach, so that a tile with enough halo gives the same pixels as the whole image: windows
lie on a fixed grid whose origin is the image's top left corner, and channel statistics are taken per window, never
over the whole image (global statistics at test time also cost quality, arXiv 2112.04491).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .checks import check_choice, check_integer
from .row_stream import Chained, Convolved, Grouped, Interpolated, Joined, Local, Stream

POSITIONS = ("relative", "rotary")


class PixelNorm(nn.Module):
    """Layer normalisation over the channels of each pixel: [B, C, H, W] -> [B, C, H, W], reach 0."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        # In channels_last the permutations are views, and layer_norm reads contiguous rows.
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias)
        return x.permute(0, 3, 1, 2)


def rotary_angles(window: int, head_dim: int) -> Tensor:
    """Angles of two-dimensional rotary position encoding, [window * window, head_dim / 2].

    The first half of the angles turns with the row, the second with the column (axial RoPE, arXiv 2403.13298).
    """
    per_axis = head_dim // 4
    frequencies = torch.pi * torch.logspace(0, 1, per_axis, base=1.0 / window, dtype=torch.float32)
    position = torch.arange(window, dtype=torch.float32)
    angles = position[:, None] * frequencies  # [window, per_axis]
    rows = angles[:, None].expand(window, window, per_axis)
    columns = angles[None, :].expand(window, window, per_axis)
    return torch.cat([rows, columns], -1).reshape(window * window, 2 * per_axis)


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turns the pairs (x[..., i], x[..., i + D/2]) of `x` [..., tokens, D] by `angles` [tokens, D / 2]."""
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


class WindowAttention(nn.Module):
    """Multi-head self-attention inside non-overlapping windows: x + proj(attention(norm(x))).

    Args:
        channels: C, a multiple of `heads`.
        heads: number of heads.
        window: side of a window in tokens.
        position: "relative" (a learned bias per offset and head, Swin, arXiv 2103.14030) or "rotary".

    Shape:
        [B, C, H, W] -> the same; H and W multiples of `window`.

    Raises:
        TypeError, ValueError: `heads` does not divide `channels`, or, with "rotary", into multiples of 4; any other
            argument is not as described; in `forward`, a size that windows do not fill.
    """

    bias_index: Tensor
    angles: Tensor

    def __init__(self, channels: int, heads: int, window: int = 8, position: str = "relative") -> None:
        super().__init__()
        check_heads(channels, heads, position)
        check_integer(window, "window", minimum=1)
        self.heads, self.window, self.position = heads, window, position
        self.norm = PixelNorm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.proj.weight)  # the block starts as identity
        nn.init.zeros_(self.proj.bias)  # type: ignore[arg-type]
        if position == "relative":
            self.bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
            self.register_buffer("bias_index", relative_index(window), persistent=False)
        else:
            self.register_buffer("angles", rotary_angles(window, channels // heads), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        check_grid(x, self.window)
        H, W = x.shape[-2:]
        windows = "b (three heads d) (h i) (w j) -> three (b h w) heads (i j) d"
        size = {"three": 3, "heads": self.heads, "i": self.window, "j": self.window}
        q, k, v = rearrange(self.qkv(self.norm(x)), windows, **size).unbind(0)
        bias = None
        if self.position == "relative":
            bias = self.bias_table[self.bias_index].permute(2, 0, 1)[None].to(q.dtype)  # [1, heads, tokens, tokens]
        else:
            q, k = rotate(q, self.angles), rotate(k, self.angles)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        grid = {"i": self.window, "j": self.window, "h": H // self.window, "w": W // self.window}
        out = rearrange(out, "(b h w) heads (i j) d -> b (h i) (w j) (heads d)", **grid)
        return x + self.proj(out.permute(0, 3, 1, 2))

    def stream(self) -> Stream:
        """The same over the rows of an image, see `core.row_stream`."""
        return Grouped(self.window, self)

    def context(self, tokens: int) -> int:
        """How many tokens beyond a border of the grid are looked at by the first `tokens` beyond it."""
        return math.ceil(tokens / self.window) * self.window


def check_heads(channels: int, heads: int, position: str) -> None:
    """Checks that `channels` can be split into `heads` that the position encoding can turn.

    Raises:
        TypeError, ValueError: they cannot; `position` is none of POSITIONS.
    """
    check_choice(position, "position", POSITIONS)
    check_integer(heads, "heads", minimum=1)
    if channels % heads:
        raise ValueError(f"heads: expected a divisor of {channels} channels, got {heads}")
    if position == "rotary" and (channels // heads) % 4:
        raise ValueError(
            f"heads: expected a multiple of 4 channels a head for rotary, got {channels} channels / {heads} heads"
        )


def check_grid(x: Tensor, window: int) -> None:
    """Checks that windows fill `x` [B, C, H, W].

    Raises:
        ValueError: height or width is no multiple of `window`.
    """
    if x.shape[-2] % window or x.shape[-1] % window:
        raise ValueError(f"x: expected height and width in multiples of {window}, got {tuple(x.shape)}")


def relative_index(window: int) -> Tensor:
    """[window², window²] indices into the table of offsets: row of the token, then of what it looks at."""
    y, x = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    y, x = y.flatten(), x.flatten()
    dy = y[:, None] - y[None, :] + window - 1
    dx = x[:, None] - x[None, :] + window - 1
    return dy * (2 * window - 1) + dx


class ChannelAttention(nn.Module):
    """Gates each channel by a small network over window means (squeeze-and-excitation, arXiv 1709.01507).

    The means are taken over windows of a fixed grid and the gates interpolated between the windows' centres, so the
    gate is smooth (no window shows in the picture) and its reach finite. Gates lie in 0..2 and start at 1.

    Args:
        channels: C, at least `reduction`.
        window: side of a window in tokens.
        reduction: how much narrower the small network is than C.

    Shape:
        [B, C, H, W] -> the same; H and W multiples of `window`.

    Raises:
        TypeError, ValueError: an argument is not as described; in `forward`, a size that windows do not fill.
    """

    def __init__(self, channels: int, window: int = 4, reduction: int = 4) -> None:
        super().__init__()
        check_integer(window, "window", minimum=1)
        check_integer(reduction, "reduction", minimum=1)
        check_integer(channels, "channels", minimum=reduction)
        self.window = window
        self.squeeze = nn.Conv2d(channels, channels // reduction, 1)
        self.excite = nn.Conv2d(channels // reduction, channels, 1)
        nn.init.zeros_(self.excite.weight)
        nn.init.zeros_(self.excite.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        check_grid(x, self.window)
        return x * F.interpolate(self._gates(x), scale_factor=self.window, mode="bilinear")

    def stream(self) -> Stream:
        """The same over the rows of an image, see `core.row_stream`."""
        gates = Chained(Grouped(self.window, self._gates), Interpolated(self.window))
        return Joined(lambda gate, x: x * gate, gates)

    def _gates(self, x: Tensor) -> Tensor:
        """One gate a window and channel."""
        return 2 * torch.sigmoid(self.excite(F.relu(self.squeeze(F.avg_pool2d(x, self.window)))))

    def context(self, tokens: int) -> int:
        """How many tokens beyond a border of the grid are looked at by the first `tokens` beyond it."""
        # Past its window's centre a token's gate is made of the next window's, too.
        return math.ceil((tokens + self.window // 2) / self.window) * self.window


class SpatialAttention(nn.Module):
    """Gates each pixel by a 7×7 convolution over the channels' mean and maximum (CBAM, arXiv 1807.06521).

    Gates lie in 0..2 and start at 1. Shape: [B, C, H, W] -> the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return _gated(self.conv(_summary(x)), x)

    def stream(self) -> Stream:
        """The same over the rows of an image, see `core.row_stream`."""
        return Joined(_gated, Chained(Local(_summary), Convolved(self.conv)))

    def context(self, tokens: int) -> int:
        """How many tokens beyond a border of the grid are looked at by the first `tokens` beyond it."""
        return tokens + 3


def _summary(x: Tensor) -> Tensor:
    return torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)


def _gated(logits: Tensor, x: Tensor) -> Tensor:
    return x * (2 * torch.sigmoid(logits))
