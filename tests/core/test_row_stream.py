"""Streams of rows give what the whole image would, compute nothing twice, and stay in channels_last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from progressive_upsampling.core import resample, upsample
from progressive_upsampling.core import row_stream as streams
from progressive_upsampling.core.denoise import regress
from progressive_upsampling.core.denoiser import Denoiser, DenoiserConfig
from progressive_upsampling.core.unet import AttnUNet, UNetConfig
from progressive_upsampling.core.upsamplers import EDSR, ESPCN, EDSRConfig, ESPCNConfig

SIZES = [(1, 9), (2, 5), (7, 30), (33, 8), (64, 17)]


def image(height: int, width: int, batch: int = 1, channels: int = 3) -> Tensor:
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(height * 100 + width))


def edsr(**settings: object) -> EDSR:
    torch.manual_seed(0)
    network = EDSR(EDSRConfig(width=8, blocks=3, **settings)).eval()  # type: ignore[arg-type]
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)  # the direct tail is born as zeros
    return network


@torch.no_grad()
def in_rows(stream: streams.Stream, picture: Tensor, rows: int) -> Tensor:
    """The whole result of a stream that is given so many rows at a time."""
    found = []
    for start in range(0, picture.shape[2], rows):
        strip = picture[:, :, start : start + rows].contiguous(memory_format=torch.channels_last)
        found.append(stream.push(strip, start + rows >= picture.shape[2]))
    return torch.cat([part for part in found if part is not None], 2)


@pytest.mark.parametrize("rows", [1, 2, 5, 16, 100])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tail", ["direct", "classic"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_an_edsr_gives_the_same_row_by_row(scale: int, tail: str, size: tuple[int, int], rows: int) -> None:
    network, picture = edsr(scale=scale, tail=tail, res_scale=0.5), image(*size)
    with torch.no_grad():
        whole = network(picture)
    torch.testing.assert_close(in_rows(network.stream(size[0]), picture, rows), whole, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("rows", [1, 3, 64])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kernel", [1, 3, 5, (5, 3), (1, 7)])
def test_a_convolution_is_that_of_the_whole(kernel: int | tuple[int, int], size: tuple[int, int], rows: int) -> None:
    torch.manual_seed(1)
    down, across = (kernel, kernel) if isinstance(kernel, int) else kernel
    layer, picture = nn.Conv2d(3, 4, (down, across), padding=(down // 2, across // 2)), image(*size, batch=2)
    with torch.no_grad():
        whole = layer(picture)
    torch.testing.assert_close(in_rows(streams.Convolved(layer), picture, rows), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rows", [1, 4, 64])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_is_that_of_the_whole(scale: int, size: tuple[int, int], rows: int) -> None:
    picture = image(*size)
    whole = resample(picture, (size[0] * scale, size[1] * scale), "bicubic")
    found = in_rows(streams.Bicubic(size[0], scale), picture, rows)
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rows", [1, 7, 32, 100])
@pytest.mark.parametrize("size", [(1, 1), (30, 50), (64, 33), (97, 64)])
@pytest.mark.parametrize(
    "config",
    [
        UNetConfig(widths=(8, 12), heads=3, window=4, channel_window=2),
        UNetConfig(
            unshuffle=1,
            widths=(8, 12, 16),
            blocks=(1, 1, 2),
            self_attention=(True, False, True),
            channel_attention=(True, True, True),
            spatial_attention=(True, False, True),
            heads=1,
            window=4,
            channel_window=3,
            position="rotary",
        ),
    ],
    ids=["two levels", "three levels"],
)
def test_a_denoising_unet_gives_the_same_row_by_row(config: UNetConfig, size: tuple[int, int], rows: int) -> None:
    torch.manual_seed(3)
    network, picture = AttnUNet(config).eval().double(), image(*size, channels=8).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    with torch.no_grad():
        whole = network(picture)
    torch.testing.assert_close(in_rows(network.stream(*size), picture, rows), whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rows", [1, 2, 5, 64])
@pytest.mark.parametrize("height", [1, 2, 9])
@pytest.mark.parametrize("scale", [1, 2, 3, 4, 7])
def test_bilinear_interpolation_is_torchs(scale: int, height: int, rows: int) -> None:
    picture = image(height, 6).double()
    whole = F.interpolate(picture, scale_factor=scale, mode="bilinear")
    torch.testing.assert_close(in_rows(streams.Interpolated(scale), picture, rows), whole, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rows", [4, 16, 64])
def test_results_may_overwrite_the_image(rows: int) -> None:
    layer, pictures = nn.Conv2d(3, 3, 5, padding=2).double(), image(40, 7, batch=2).double()
    with torch.no_grad():
        whole = pictures + layer(pictures)
        for picture in (pictures.clone(), pictures.clone(memory_format=torch.channels_last)):
            stream = lambda: streams.added(streams.Convolved(layer))  # noqa: E731
            assert streams.run_in_rows(stream, [picture], rows=rows, out=picture) is picture
            torch.testing.assert_close(picture, whole)


def test_several_images_are_one_after_the_other_in_the_channels() -> None:
    one, two = image(9, 5, batch=2), image(9, 5, batch=2, channels=1)
    found = streams.run_in_rows(lambda: streams.Local(lambda rows: rows[:, 2:]), [one, two], rows=4)
    assert torch.equal(found, torch.cat([one[:, 2:], two], 1))


def test_every_strip_of_a_batch_is_reported() -> None:
    calls: list[tuple[int, int]] = []
    pictures = image(5, 4, batch=2)
    streams.run_in_rows(lambda: streams.Local(torch.neg), [pictures], rows=2, on_rows=lambda *call: calls.append(call))
    assert calls == [(rows, 10) for rows in (2, 4, 5, 7, 9, 10)]


@torch.no_grad()
@pytest.mark.parametrize(
    "made",
    [
        lambda: streams.Convolved(nn.Conv2d(3, 3, 5, padding=2)),
        lambda: streams.Interpolated(2),
        lambda: streams.Bicubic(1000, 2),
    ],
    ids=["convolved", "interpolated", "bicubic"],
)
def test_few_rows_stay_in_memory(made: Callable[[], Any]) -> None:
    stream, strip = made(), image(40, 7)
    for _ in range(10):
        stream.push(strip, False)
    kept = stream._border._kept if isinstance(stream, streams.Convolved) else stream._kept
    assert kept.untyped_storage().nbytes() <= 8 * strip[:, :, 0].nbytes


@pytest.mark.parametrize(("size", "side", "rows"), [((10, 10), 10, None), ((11, 10), 10, 10), ((99, 9000), 100, 8)])
def test_as_many_rows_run_as_have_the_area(size: tuple[int, int], side: int, rows: int | None) -> None:
    assert streams.rows_at_a_time(*size, side) == rows


def test_hardly_a_row_is_convolved_twice_and_all_stay_in_channels_last(monkeypatch: pytest.MonkeyPatch) -> None:
    network, picture = edsr(tail="direct"), image(50, 12)
    rows, formats = [0], []
    real = F.conv2d

    def counted(x: Tensor, weight: Tensor, *args: object, **kwargs: object) -> Tensor:
        formats.append(x.is_contiguous(memory_format=torch.channels_last))
        result = real(x, weight, *args, **kwargs)  # type: ignore[arg-type]
        rows[0] += result.shape[2]
        return result

    monkeypatch.setattr(streams.F, "conv2d", counted)
    in_rows(network.stream(50), picture, 8)
    convolutions = 1 + 2 * 3 + 1 + 1  # head, blocks, their end, tail
    assert rows[0] == convolutions * 50 + 3 * 2 * 7  # blocks, rows, strips
    assert all(formats)


def test_the_sum_of_branches_of_any_delay_is_aligned() -> None:
    torch.manual_seed(2)
    slow, fast = nn.Conv2d(3, 3, 7, padding=3), nn.Conv2d(3, 3, 3, padding=1)
    picture = image(20, 6)
    with torch.no_grad():
        whole = slow(picture) + fast(picture)
    for first, second in ((slow, fast), (fast, slow)):
        stream = streams.added(streams.Convolved(first), streams.Convolved(second))
        torch.testing.assert_close(in_rows(stream, picture, 2), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_upsampling_in_strips_is_that_of_the_whole(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, picture = edsr(tail="direct"), image(40, 33, batch=2)
    whole = upsample(picture, (80, 66), network, dtype=dtype)
    steps: list[tuple[float, float]] = []
    strips = upsample(
        picture, (80, 66), network, tile=18, dtype=dtype, on_step=lambda *step: steps.append((step[0], step[1]))
    )
    exact = upsample(picture, (80, 66), network, dtype="fp32")
    rounding = 1e-5 if dtype == "fp32" else 2 * (whole - exact).abs().max()  # a sum is rounded once or twice
    torch.testing.assert_close(strips, whole, rtol=0, atol=float(rounding))
    assert (strips - exact).abs().mean() <= 1.1 * (whole - exact).abs().mean() + 1e-6
    done = [part / total for part, total in steps]
    assert done == sorted(done) and done[-1] == 1 and len(done) >= 2 * (40 // 9)


def test_a_cancel_is_noticed_after_a_strip() -> None:
    class Stop(Exception):
        pass

    calls = []

    def on_step(done: float, total: float, preview: Tensor | None) -> None:
        calls.append(done / total)
        raise Stop

    with pytest.raises(Stop):
        upsample(image(64, 64), (128, 128), edsr(), tile=24, on_step=on_step)
    assert len(calls) == 1 and calls[0] < 0.2


@pytest.mark.parametrize("tile", [0, -3, 1.5])
def test_a_tile_that_is_none_is_refused(tile: float) -> None:
    with pytest.raises((TypeError, ValueError), match="tile"):
        upsample(image(64, 64), (128, 128), edsr(), tile=tile)  # type: ignore[arg-type]


def test_small_images_of_a_batch_run_together() -> None:
    calls: list[int] = []
    network, denoiser = edsr(), Denoiser(DenoiserConfig())
    for module in (network, denoiser.unet):
        module.register_forward_hook(lambda module, inputs, result: calls.append(len(result)))
    large = upsample(image(16, 16, batch=40), (32, 32), network)
    regress(denoiser, large)
    assert calls == [40, 40]
    small = ESPCN(ESPCNConfig()).eval()
    small.register_forward_hook(lambda module, inputs, result: calls.append(len(result)))
    upsample(image(16, 16, batch=40), (32, 32), small)
    assert calls[2:] == [40]


def test_kept_rows_stay_in_the_memory_of_those_before() -> None:
    stream = streams.Convolved(nn.Conv2d(2, 2, 3))
    strip = image(5, 7, channels=2).contiguous(memory_format=torch.channels_last)
    stream.push(strip, False)
    memory = stream._border._kept.data_ptr()
    stream.push(strip, False)
    assert stream._border._kept.data_ptr() == memory
    assert torch.equal(stream._border._kept, strip[:, :, -2:])


class Given:
    """A stream that gives what it is told to, whatever it is given."""

    def __init__(self, *found: Tensor | None) -> None:
        self._found = iter(found)

    def push(self, rows: Tensor, last: bool) -> Tensor | None:
        return next(self._found)


def test_rows_wait_until_they_are_taken_and_come_in_order() -> None:
    numbered = torch.arange(12.0).view(1, 1, 12, 1).expand(1, 1, 12, 2)
    waiting = streams._Waiting(Given(numbered[:, :, :5], None, numbered[:, :, 5:7], numbered[:, :, 7:]))
    rows, taken = torch.zeros(1, 1, 1, 2), []
    for wait, take in ((5, 2), (3, 1), (4, 3), (6, 6)):
        assert waiting.push(rows, False) == wait
        taken.append(waiting.take(take))
        assert taken[-1].shape[2] == take
    assert torch.equal(torch.cat(taken, 2), numbered)
    for count in (0, 1):
        with pytest.raises(ValueError, match="count: expected"):
            waiting.take(count)


def test_rows_that_are_kept_are_not_written_over_with_those_taken() -> None:
    waiting = streams._Waiting(Given(torch.ones(1, 1, 5, 2), torch.full((1, 1, 3, 2), 2.0)))
    rows = torch.zeros(1, 1, 1, 2)
    waiting.push(rows, False)
    waiting.take(2).zero_()  # as `added_over` does
    waiting.push(rows, False)
    assert waiting.take(6).flatten().tolist() == [1.0] * 6 + [2.0] * 6
