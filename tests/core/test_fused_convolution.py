"""A convolution fused with what follows it gives what both give one after the other, wherever it runs."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from progressive_upsampling.core import fused_convolution
from progressive_upsampling.core.fused_convolution import FusedConvolution


@pytest.fixture(params=["fused", "not fused"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    fused_convolution._fuses.cache_clear()
    if request.param == "not fused":
        monkeypatch.setattr(fused_convolution, "_fuses", lambda: False)
    elif not fused_convolution._fuses():
        pytest.skip("bfloat16 is not faster on this processor, or its oneDNN does not fuse")
    with torch.no_grad():
        yield request.param


def layer(channels: int = 16, out: int = 16, *, bias: bool = True, kernel: int = 3) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(channels, out, kernel, padding=kernel // 2, bias=bias)


def rows(count: int, width: int = 7, channels: int = 16, batch: int = 1) -> Tensor:
    drawn = torch.randn(batch, channels, count, width, generator=torch.Generator().manual_seed(1))
    return drawn.bfloat16().contiguous(memory_format=torch.channels_last)


def reference(conv: nn.Conv2d, image: Tensor) -> Tensor:
    """Of weights and rows rounded to bfloat16, in float64."""
    bias = None if conv.bias is None else conv.bias.bfloat16().double()
    padding = (0, conv.kernel_size[1] // 2)
    return nn.functional.conv2d(image.double(), conv.weight.bfloat16().double(), bias, padding=padding)


def close(found: Tensor, expected: Tensor, roundings: int = 2) -> None:
    assert found.dtype is torch.bfloat16
    torch.testing.assert_close(found.double(), expected, rtol=roundings * 2.0**-8, atol=roundings * 2.0**-8)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sizes", [(16, 16), (64, 12), (5, 3)])
@pytest.mark.parametrize("kernel", [3, 5])
def test_a_convolution_with_a_rectifier_or_without(sizes: tuple[int, int], bias: bool, kernel: int) -> None:
    conv = layer(*sizes, bias=bias, kernel=kernel)
    image = rows(9, channels=sizes[0])
    fused, expected = FusedConvolution(conv), reference(conv, image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        close(fused(image), expected)
        close(fused.rectified(image), expected.clamp(min=0))


@pytest.mark.parametrize("scale", [1.0, 0.1])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_sum_is_written_to_the_rows_and_nowhere_else(batch: int, scale: float) -> None:
    conv, image = layer(), rows(8, batch=batch)
    memory = rows(12, batch=batch)
    before = memory.clone(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        FusedConvolution(conv).add_to(memory[:, :, 2:8], image, scale)
    close(memory[:, :, 2:8], before[:, :, 2:8].double() + scale * reference(conv, image), 3)
    assert torch.equal(memory[:, :, :2], before[:, :, :2]) and torch.equal(memory[:, :, 8:], before[:, :, 8:])


def test_a_part_of_memory_is_read_as_the_rows_that_it_is() -> None:
    conv, memory = layer(), rows(20, batch=2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        close(FusedConvolution(conv).rectified(memory[:, :, 5:14]), reference(conv, memory[:, :, 5:14]).clamp(min=0))


def test_one_that_has_seen_other_rows_takes_any_number_of_any_width() -> None:
    conv = layer()
    fused = FusedConvolution(conv)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for count, width in ((3, 7), (90, 3), (4, 200)):
            close(fused(rows(count, width)), reference(conv, rows(count, width)))


def test_other_formats_are_computed_in_themselves() -> None:
    conv, image = layer().double(), rows(6).double()
    expected = nn.functional.conv2d(image, conv.weight, conv.bias, padding=(0, 1))
    out = image[:, :, :4].clone(memory_format=torch.channels_last)
    FusedConvolution(conv).add_to(out, image)
    torch.testing.assert_close(out, image[:, :, :4] + expected)
    torch.testing.assert_close(FusedConvolution(conv).rectified(image), expected.clamp(min=0))


def test_without_autocast_nothing_is_rounded() -> None:
    conv, image = layer(), rows(6).float()
    expected = nn.functional.conv2d(image, conv.weight, conv.bias, padding=(0, 1))
    torch.testing.assert_close(FusedConvolution(conv)(image), expected)


def test_it_works_in_inference_mode_and_after_it() -> None:
    conv, image = layer(), rows(6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with torch.inference_mode():
            fused = FusedConvolution(conv)
            first = fused(image)
        close(first, reference(conv, image))
        assert torch.equal(fused(image), first)


@pytest.mark.parametrize("changed", ["weight", "bias"])
@pytest.mark.parametrize("how", ["in place", "in the place of its data", "in its data", "replaced"])
def test_changed_weights_are_seen_by_the_next_one(changed: str, how: str) -> None:
    conv, image = layer(), rows(6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        FusedConvolution(conv)(image)
    parameter = getattr(conv, changed)
    if how == "in place":
        parameter.mul_(2)
    elif how == "in the place of its data":  # which torch does not count
        parameter.data.mul_(2)
    elif how == "in its data":
        parameter.data = parameter.data * 2
    else:
        setattr(conv, changed, nn.Parameter(parameter * 2))
    with torch.autocast("cpu", dtype=torch.bfloat16):  # another one: torch keeps what it has rounded in the first
        close(FusedConvolution(conv)(image), reference(conv, image))


def test_weights_are_ordered_once_for_each_layer(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    order = torch.ops.mkldnn._reorder_convolution_weight
    changed = Operators("_reorder_convolution_weight", lambda *given: calls.append(1) or order(*given))
    monkeypatch.setattr(fused_convolution, "_operators", lambda: changed)
    conv = layer()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for count in (6, 9):
            FusedConvolution(conv)(rows(count))
    assert len(calls) == (1 if way == "fused" else 0)


def test_a_layer_that_is_gone_leaves_nothing_behind(way: str) -> None:
    gc.collect()
    before = len(fused_convolution._packed)
    conv = layer()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        FusedConvolution(conv)(rows(6))
    assert len(fused_convolution._packed) == before + (way == "fused")
    del conv
    gc.collect()
    assert len(fused_convolution._packed) == before


class Operators:
    """torch's, of which one does something else."""

    def __init__(self, name: str, function: object) -> None:
        self._changed = {name: function}

    def __getattr__(self, name: str) -> object:
        found = self._changed.get(name, getattr(torch.ops.mkldnn, name))
        if found is None:
            raise AttributeError(name)
        return found


def refuses(*_: object) -> Tensor:
    raise RuntimeError("mkldnn_bf16_device_check")


def wrong_signature() -> None:
    """Takes nothing."""


@pytest.mark.parametrize("name", ["_convolution_pointwise", "_convolution_pointwise_", "_reorder_convolution_weight"])
@pytest.mark.parametrize("function", [None, refuses, wrong_signature, lambda x, *_: x])
def test_operators_that_are_missing_or_do_something_else_are_not_used(
    name: str, function: object, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "not fused" or (name == "_reorder_convolution_weight" and function not in (None, refuses)):
        pytest.skip("nothing is tried, or another order of the weights is as good")
    monkeypatch.setattr(fused_convolution, "_operators", lambda: Operators(name, function))
    fused_convolution._fuses.cache_clear()
    assert not fused_convolution._fuses()
    conv, image = layer(), rows(6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        close(FusedConvolution(conv).rectified(image), reference(conv, image).clamp(min=0))
    monkeypatch.undo()
    fused_convolution._fuses.cache_clear()
