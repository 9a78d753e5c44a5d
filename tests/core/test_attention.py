from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from progressive_upsampling.core.attention import (
    POSITIONS,
    ChannelAttention,
    PixelNorm,
    SpatialAttention,
    WindowAttention,
    rotary_angles,
    rotate,
)

from .tiny import largest_difference, randomised


def tokens(channels: int, height: int, width: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(5))


def dense(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """What a 1×1 convolution makes of one token, or of one in each row."""
    assert layer.bias is not None
    return x @ layer.weight[:, :, 0, 0].T + layer.bias


def plain_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    centred = x - x.mean()
    return centred / (centred.square().mean() + 1e-5).sqrt() * weight + bias


def turned(x: Tensor, row: int, column: int, window: int) -> Tensor:
    """Axial rotary encoding of one token, as a product of complex numbers."""
    half = x.shape[0] // 2
    per_axis = half // 2
    exponents = [i / max(per_axis - 1, 1) for i in range(per_axis)]
    frequencies = [math.pi * window**-e for e in exponents]
    angles = torch.tensor([row * f for f in frequencies] + [column * f for f in frequencies], dtype=x.dtype)
    product = torch.complex(x[:half], x[half:]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([product.real, product.imag])


def plain_window_attention(net: WindowAttention, x: Tensor) -> Tensor:
    """Token by token, without any batched product."""
    B, C, H, W = x.shape
    s, D = net.window, C // net.heads
    result = x.clone()
    for b in range(B):
        for top in range(0, H, s):
            for left in range(0, W, s):
                places = [(i, j) for i in range(s) for j in range(s)]
                q, k, v = {}, {}, {}
                for i, j in places:
                    normed = plain_norm(x[b, :, top + i, left + j], net.norm.weight, net.norm.bias)
                    qkv = dense(net.qkv, normed)
                    q[i, j], k[i, j], v[i, j] = qkv[:C], qkv[C : 2 * C], qkv[2 * C :]
                for i, j in places:
                    heads = []
                    for h in range(net.heads):
                        part = slice(h * D, (h + 1) * D)
                        logits = []
                        for m, n in places:
                            query, key = q[i, j][part], k[m, n][part]
                            if net.position == "rotary":
                                query, key = turned(query, i, j, s), turned(key, m, n, s)
                            logit = query @ key / math.sqrt(D)
                            if net.position == "relative":
                                offset = (i - m + s - 1) * (2 * s - 1) + (j - n + s - 1)
                                logit = logit + net.bias_table[offset, h]
                            logits.append(logit)
                        shares = torch.stack(logits).softmax(0)
                        heads.append(sum(a * v[place][part] for a, place in zip(shares, places, strict=True)))
                    out = dense(net.proj, torch.cat(heads))
                    result[b, :, top + i, left + j] += out
    return result


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize(("channels", "heads"), [(8, 2), (16, 1)])
def test_window_attention_is_attention_token_by_token(position: str, channels: int, heads: int) -> None:
    net = randomised(WindowAttention(channels, heads, 3, position), 0.5).double()
    x = tokens(channels, 3, 6).double()
    with torch.no_grad():
        expected = plain_window_attention(net, x)
        assert largest_difference(net(x), expected) < 1e-4  # the angles are kept in float32
        assert largest_difference(expected, x) > 0.1


def test_window_attention_does_not_depend_on_the_memory_format() -> None:
    net, x = randomised(WindowAttention(8, 2, 4), 0.5), tokens(8, 8, 12)
    with torch.no_grad():
        torch.testing.assert_close(net(x.contiguous(memory_format=torch.channels_last)), net(x))


def test_pixel_norm_is_layer_norm_of_each_pixel() -> None:
    net, x = randomised(PixelNorm(5), 0.5), tokens(5, 3, 4)
    with torch.no_grad():
        out = net(x)
        for i in range(3):
            for j in range(4):
                expected = plain_norm(x[1, :, i, j], net.weight, net.bias)
                torch.testing.assert_close(out[1, :, i, j], expected)


def test_rotary_products_depend_on_the_offset_alone() -> None:
    window, D = 5, 16
    angles = rotary_angles(window, D)
    assert angles.shape == (window**2, D // 2)
    q, k = torch.randn(2, D, generator=torch.Generator().manual_seed(1))
    queries, keys = (rotate(x.expand(window**2, D), angles) for x in (q, k))
    products: dict[tuple[int, int], list[float]] = {}
    for a in range(window**2):
        for b in range(window**2):
            offset = (a // window - b // window, a % window - b % window)
            products.setdefault(offset, []).append((queries[a] @ keys[b]).item())
    for values in products.values():
        assert max(values) - min(values) < 1e-4
    assert products[0, 0][0] == pytest.approx((q @ k).item(), abs=1e-4)
    means = sorted(values[0] for values in products.values())
    assert all(b - a > 1e-5 for a, b in itertools.pairwise(means))  # every offset is told apart


def test_rotation_keeps_lengths() -> None:
    x = tokens(16, 1, 1)[..., 0, 0].expand(9, 2, 16).transpose(0, 1)
    torch.testing.assert_close(rotate(x, rotary_angles(3, 16)).norm(dim=-1), x.norm(dim=-1))


@pytest.mark.parametrize("window", [1, 3, 4])
def test_channel_attention_gates_by_window_means(window: int) -> None:
    net = randomised(ChannelAttention(8, window), 0.7).double()
    x = tokens(8, 2 * window, 3 * window).double()
    rows, columns = 2, 3
    with torch.no_grad():
        gates = torch.empty(2, 8, rows, columns, dtype=torch.float64)
        for r in range(rows):
            for c in range(columns):
                cell = x[:, :, r * window : (r + 1) * window, c * window : (c + 1) * window]
                hidden = dense(net.squeeze, cell.mean((2, 3)))
                out = dense(net.excite, hidden.clamp(min=0))
                gates[:, :, r, c] = 2 / (1 + (-out).exp())
        expected = torch.empty_like(x)
        for i in range(rows * window):
            for j in range(columns * window):
                # position between the windows' centres, held inside the outermost ones
                y = min(max((i + 0.5) / window - 0.5, 0), rows - 1)
                z = min(max((j + 0.5) / window - 0.5, 0), columns - 1)
                gate = torch.zeros(2, 8, dtype=torch.float64)
                for r in range(rows):
                    for c in range(columns):
                        gate += max(0, 1 - abs(y - r)) * max(0, 1 - abs(z - c)) * gates[:, :, r, c]
                expected[:, :, i, j] = gate * x[:, :, i, j]
        assert largest_difference(net(x), expected) < 1e-10
        assert largest_difference(expected, x) > 0.1


def test_the_gate_of_channel_attention_has_no_steps() -> None:
    net, window = randomised(ChannelAttention(8, 4), 2.0), 4
    x = 0.05 + tokens(8, 16, 24, 1).abs()
    with torch.no_grad():
        gate = net(x) / x
    assert gate.min() >= 0 and gate.max() <= 2
    contrast = gate.max() - gate.min()
    assert contrast > 0.1
    for step in (gate.diff(dim=2), gate.diff(dim=3)):
        assert step.abs().max() <= contrast / window + 1e-5


def test_spatial_attention_gates_by_mean_and_maximum() -> None:
    net, x = randomised(SpatialAttention(), 0.3), tokens(6, 5, 9)
    bias = dict(net.named_parameters())["conv.bias"]
    with torch.no_grad():
        padded = F.pad(torch.stack([x.sum(1) / 6, x.max(1).values], 1), (3, 3, 3, 3))
        expected = torch.empty_like(x)
        for i in range(5):
            for j in range(9):
                logit = (padded[:, :, i : i + 7, j : j + 7] * net.conv.weight[0]).sum((1, 2, 3)) + bias
                expected[:, :, i, j] = x[:, :, i, j] * 2 / (1 + (-logit[:, None]).exp())
        assert largest_difference(net(x), expected) < 1e-5
        assert largest_difference(expected, x) > 0.1


def attentions() -> list[nn.Module]:
    return [
        WindowAttention(8, 2, 4),
        WindowAttention(8, 2, 4, "rotary"),
        ChannelAttention(8),
        SpatialAttention(),
    ]


@pytest.mark.parametrize("net", attentions())
def test_an_attention_is_identity_at_birth(net: nn.Module) -> None:
    x = tokens(8, 8, 12)
    assert torch.equal(net(x), x)


@pytest.mark.parametrize("net", attentions())
def test_every_weight_learns(net: nn.Module) -> None:
    net(tokens(8, 8, 12)).square().sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in net.parameters())  # the zero layer itself, at birth
    net = randomised(net, 0.5, seed=1).train()
    x = tokens(8, 8, 12).requires_grad_()
    net(x).square().sum().backward()
    assert x.grad is not None and x.grad.all()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


def last_touched(net: nn.Module, length: int, width: int, dim: int) -> list[int]:
    """For each place along one axis the last input along it that matters, by gradients of the outputs there."""
    size = (length, width) if dim == 2 else (width, length)
    x = tokens(8, *size).abs().double().requires_grad_()
    lines = net(x).movedim(dim, 0)
    found = []
    for line in lines:
        (grad,) = torch.autograd.grad(line.sum(), x, retain_graph=True)
        found.append(int((grad.movedim(dim, 0).flatten(1).abs().amax(1) > 1e-12).nonzero().max()))
    return found


@pytest.mark.parametrize(
    "net",
    [
        WindowAttention(8, 2, 4),
        WindowAttention(8, 1, 5, "rotary"),
        ChannelAttention(8, 4),
        ChannelAttention(8, 3),
        ChannelAttention(8, 2),
        ChannelAttention(8, 1),
        SpatialAttention(),
    ],
)
@pytest.mark.parametrize("dim", [2, 3])
def test_the_context_is_what_gradients_show(net: nn.Module, dim: int) -> None:
    window, net = getattr(net, "window", 3), randomised(net, 0.3).double()
    if isinstance(net, ChannelAttention):
        net.squeeze.weight.data.abs_()  # or its ReLU may hide what matters
        net.squeeze.bias.data.abs_()
    border = 2 * window
    touched = last_touched(net, 6 * window, window, dim)
    for count in range(3 * window):
        assert max(touched[: border + count]) + 1 - border == net.context(count)


def test_windows_lie_on_the_grid_of_the_top_left_corner() -> None:
    net, x = randomised(WindowAttention(8, 2, 4), 0.5), tokens(8, 8, 16)
    with torch.no_grad():
        torch.testing.assert_close(net(x[..., 4:, 8:]), net(x)[..., 4:, 8:])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((8, 3), "heads: expected a divisor of 8 channels, got 3"),
        ((8, 0), "heads: expected an integer >= 1, got 0"),
        ((12, 2, 8, "rotary"), "heads: expected a multiple of 4 channels a head for rotary, got 12 channels / 2 heads"),
        ((8, 2, 8, "absolute"), "position: expected one of 'relative', 'rotary', got str 'absolute'"),
        ((8, 2, 0), "window: expected an integer >= 1, got 0"),
    ],
)
def test_window_attention_names_what_is_wrong(arguments: tuple[object, ...], words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}"):
        WindowAttention(*arguments)


def test_channel_attention_names_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="channels: expected an integer >= 4, got 3"):
        ChannelAttention(3)
    with pytest.raises(ValueError, match="window: expected an integer >= 1, got 0"):
        ChannelAttention(8, 0)


@pytest.mark.parametrize("net", [WindowAttention(8, 2, 4), ChannelAttention(8, 4)])
@pytest.mark.parametrize("size", [(8, 6), (6, 8)])
def test_a_size_that_windows_do_not_fill_is_refused(net: nn.Module, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="x: expected height and width in multiples of 4, got"):
        net(tokens(8, *size))
