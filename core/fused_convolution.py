"""A convolution and what follows it in one pass over memory, where the library below torch can do that.

A rectifier or a sum takes a quarter as long as the convolution before it where a CPU multiplies bfloat16 matrices, as
both wait for memory. oneDNN applies them to a result that is still in registers. torch has no public call for that; the
operators are those that `torch.compile` makes of such layers, without its compiler. They are tried once: where they are
missing, fail or give something else, torch's own convolution is followed by the rectifier or the sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .interrupt import check_interrupted
from .precision import autocast_dtype, resolve_dtype


class FusedConvolution:
    """A convolution of stride 1 and odd size over rows that are all there: it pads to the left and right alone.

    For use without gradients; the layer's weights must not change while it lives.

    Args:
        layer: the layer.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        self._layer = layer
        self._padding = [0, layer.kernel_size[1] // 2]
        self._ordered: tuple[Tensor, Tensor | None] | None = None

    def __call__(self, rows: Tensor) -> Tensor:
        """conv(rows), of shapes as `rectified`."""
        check_interrupted()  # no hook of the layer is called
        return self._with(rows, "none") if _is_fused(rows) else self._convolved(rows)

    def rectified(self, rows: Tensor) -> Tensor:
        """relu(conv(rows)).

        Args:
            rows: [B, C, at least the kernel's rows, W] in channels_last.

        Returns:
            [B, C', rows − kernel's rows + 1, W] in the format that the layer computes in.
        """
        check_interrupted()
        return self._with(rows, "relu") if _is_fused(rows) else self._convolved(rows).clamp_min_(0)

    def add_to(self, out: Tensor, rows: Tensor, scale: float = 1.0) -> None:
        """out += scale · conv(rows), the sum in float32 where both are one pass.

        Args:
            out: as many rows as the result has, in channels_last and in the format that the layer computes in.
            rows: [B, C, at least the kernel's rows, W] in channels_last; does not overlap with `out`.
            scale: of the convolution.
        """
        check_interrupted()
        if scale != 1.0 or not _is_fused(rows):
            torch.add(out, self._convolved(rows), alpha=scale, out=out)
            return
        weight, bias = self._weights(rows)
        _operators()._convolution_pointwise_(out, rows, weight, bias, *self._geometry(), "add", 1.0, None, [], None)

    def _with(self, rows: Tensor, function: str) -> Tensor:
        weight, bias = self._weights(rows)
        return _operators()._convolution_pointwise(rows, weight, bias, *self._geometry(), function, [], "")

    def _convolved(self, rows: Tensor) -> Tensor:
        return F.conv2d(rows, self._layer.weight, self._layer.bias, padding=(0, self._padding[1]))

    def _geometry(self) -> tuple[list[int], list[int], list[int], int]:
        return self._padding, [1, 1], [1, 1], self._layer.groups

    def _weights(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """In the order that oneDNN wants them in, which depends on the size of the rows and fits any other."""
        if self._ordered is not None:
            return self._ordered
        weight, bias = self._layer.weight.detach(), self._layer.bias
        known = _packed.get(self._layer)
        if known is None or not torch.equal(known.source, weight):
            order = _operators()._reorder_convolution_weight
            with torch.inference_mode(False), torch.no_grad():
                packed = order(weight.to(rows.dtype), *self._geometry(), list(rows.shape))
                known = _packed[self._layer] = _Packed(packed, weight.clone())
        self._ordered = known.weight, None if bias is None else bias.detach().to(rows.dtype)
        return self._ordered


@dataclass(frozen=True)
class _Packed:
    """A layer's weights as oneDNN wants them.

    Attributes:
        weight: the weights.
        source: what they were made of, to see whether they have changed.
    """

    weight: Tensor
    source: Tensor


# For as long as the layer lives: a small picture needs them ordered as a large one does.
_packed: WeakKeyDictionary[nn.Conv2d, _Packed] = WeakKeyDictionary()


def _operators() -> Any:
    return torch.ops.mkldnn


def _is_fused(rows: Tensor) -> bool:
    # one image: rows of several are not next to each other in memory, and oneDNN would work on copies
    fits = rows.device.type == "cpu" and rows.dtype is torch.bfloat16 and len(rows) == 1
    return fits and autocast_dtype(rows.device) is torch.bfloat16 and _fuses()


@lru_cache(maxsize=1)
def _fuses() -> bool:
    """Whether the operators are there and do what they did when this was written."""
    if resolve_dtype("auto", "cpu") is not torch.bfloat16:
        return False
    with torch.inference_mode(False), torch.no_grad():
        ramp = partial(torch.arange, dtype=torch.float32, device="cpu")
        rows = ramp(7 * 5 * 16).sub_(280).div_(64).view(1, 7, 5, 16).bfloat16().permute(0, 3, 1, 2)
        weight = ramp(16 * 16 * 9).sin_().view(16, 16, 3, 3).div_(16).bfloat16()
        bias = ramp(16).bfloat16()
        geometry = [0, 1], [1, 1], [1, 1], 1
        plain = F.conv2d(rows, weight, bias, padding=(0, 1)).float()
        memory = rows.clone(memory_format=torch.channels_last)
        total = memory[:, :, 1:6]
        expected = [plain.clamp(min=0), plain + total.float()]
        calls = _operators()
        try:
            packed = calls._reorder_convolution_weight(weight, *geometry, list(rows.shape))
            found = [calls._convolution_pointwise(rows, packed, bias, *geometry, "relu", [], "").float()]
            calls._convolution_pointwise_(total, rows, packed, bias, *geometry, "add", 1.0, None, [], None)
        except (AttributeError, RuntimeError, TypeError):  # no such operator, this build cannot, another signature
            return False
        found.append(total.float())
        alike = zip(found, expected, strict=True)
        same = all(a.shape == b.shape and torch.allclose(a, b, rtol=2.0**-7, atol=2.0**-5) for a, b in alike)
        return same and torch.equal(memory[:, :, :1], rows[:, :, :1])
