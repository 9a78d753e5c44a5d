from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from progressive_upsampling.core import tiling
from progressive_upsampling.core.adaptive_noise import NoiseController
from progressive_upsampling.core.rows import BAND_PIXELS
from progressive_upsampling.core.tiling import (
    BAND_BYTES,
    DEFAULT_BUDGET,
    MINIMUM_TILE,
    auto_tile,
    band_pixels,
    run_tiled,
    tiles,
    working_memory,
)
from progressive_upsampling.core.unet import AttnUNet
from progressive_upsampling.core.upsamplers import build_upsampler

from .tiny import UPSAMPLER, largest_difference, picture, randomised, unet_config

TILES = [64, 96, 128, 192, 256]


def unet(**changes: Any) -> AttnUNet:
    return randomised(AttnUNet(unet_config(in_channels=3, **changes)), 0.1)


class Negative(nn.Module):
    """Reaches nowhere."""

    halo, align, scale = 0, 1, 1

    def forward(self, image: Tensor) -> Tensor:
        return 1 - image


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "two levels": unet,
    "rotary": lambda: unet(position="rotary", widths=(8, 8)),
    "one level, unshuffle 1, odd windows": lambda: unet(
        widths=(8,),
        blocks=(1,),
        unshuffle=1,
        window=5,
        channel_window=3,
        self_attention=(True,),
        channel_attention=(True,),
        spatial_attention=(True,),
    ),
    "upsampler": lambda: randomised(build_upsampler(UPSAMPLER), 0.1),
    "controller": lambda: randomised(NoiseController(), 0.1),
    "no reach": Negative,
}


def tiled(net: nn.Module, image: Tensor, tile: int | None, on_tile: Any = None) -> Tensor:
    scale, align = int(getattr(net, "scale", 1)), int(getattr(net, "align", 1))
    with torch.no_grad():
        return run_tiled(net, [image], scale=scale, halo=int(net.halo), align=align, tile=tile, on_tile=on_tile)


@pytest.mark.parametrize("name", NETWORKS)
def test_tiles_give_the_whole_image(name: str) -> None:
    net, image = NETWORKS[name](), picture(257, 129)
    whole = tiled(net, image, None)
    for tile in TILES:
        assert largest_difference(tiled(net, image, tile), whole) < 1e-5


@pytest.mark.parametrize("size", [(1, 1), (33, 47), (3, 700), (150, 65)])
@pytest.mark.parametrize("name", ["two levels", "upsampler"])
def test_tiles_give_the_whole_image_at_any_size(name: str, size: tuple[int, int]) -> None:
    net, image = NETWORKS[name](), picture(*size, batch=2)
    assert largest_difference(tiled(net, image, 64), tiled(net, image, None)) < 1e-5


def test_a_halo_too_small_would_show() -> None:
    # Without this the tests above could hold because the networks do nothing.
    net, image = unet(), picture(257, 129)
    whole = tiled(net, image, None)
    net.halo = 8
    assert largest_difference(tiled(net, image, 64), whole) > 1e-3


def test_a_grid_off_the_networks_would_show() -> None:
    net, image = unet(), picture(257, 129)
    with torch.no_grad():
        crooked = run_tiled(net, [image], halo=net.halo, align=net.stride, tile=68)
    assert largest_difference(crooked, tiled(net, image, None)) > 1e-3


@settings(max_examples=50)
@given(st.integers(1, 99), st.integers(1, 99), st.integers(5, 99), st.integers(0, 40), st.sampled_from([1, 2, 16, 24]))
def test_tiles_cover_every_pixel_once_with_halo_on_the_grid(
    height: int, width: int, tile: int, halo: int, align: int
) -> None:
    covered = torch.zeros(height, width, dtype=torch.int)
    for part in tiles(height, width, tile, halo, align):
        covered[part.keep] += 1
        for read, keep, size in zip(part.read, part.keep, (height, width), strict=True):
            assert keep.start % align == read.start % align == 0
            assert read.stop % align == 0 or read.stop == size
            assert 0 <= read.start <= max(keep.start - halo, 0)
            assert size >= read.stop >= min(keep.stop + halo, size)
            assert keep.stop - keep.start <= -(-tile // align) * align
            assert read.stop - read.start <= tile + 2 * halo + 3 * align
    assert (covered == 1).all()


@pytest.mark.parametrize(("side", "tile", "align", "widths"), [
    (8192, 2100, 32, [2048] * 4),
    (100, 64, 1, [50, 50]),
    (100, 64, 32, [64, 36]),
    (130, 64, 1, [44, 44, 42]),
])  # fmt: skip
def test_tiles_are_of_about_the_same_size(side: int, tile: int, align: int, widths: list[int]) -> None:
    for height, width, axis in ((side, 1, 0), (1, side, 1)):
        parts = [part.keep[axis] for part in tiles(height, width, tile, 10, align)]
        assert [part.stop - part.start for part in parts] == widths


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("tile", [64, 96, None])
def test_a_result_can_take_the_place_of_its_image(tile: int | None, batch: int) -> None:
    net, image, other = unet(), picture(200, 129, batch), picture(200, 129, batch, seed=1)
    whole = tiled(net, image + other, None)
    before = other.clone()

    def run(image: Tensor, other: Tensor) -> Tensor:
        with torch.no_grad():
            return net(image + other)

    out = run_tiled(run, [image, other], halo=int(net.halo), align=int(net.align), tile=tile, out=image)
    assert out is image
    assert largest_difference(out, whole) < 1e-5
    assert torch.equal(other, before)


def test_a_view_of_the_image_is_known_as_the_image() -> None:
    net, image = unet(), picture(200, 129, channels=4)
    colours = image[:, :3]
    whole = tiled(net, colours.clone(), None)
    with torch.no_grad():
        run_tiled(net, [image[:, :3]], halo=int(net.halo), align=int(net.align), tile=64, out=colours)
    assert largest_difference(image[:, :3], whole) < 1e-5


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_batch_runs_in_groups_of_one_tiles_area(batch: int) -> None:
    shapes: list[tuple[int, ...]] = []
    calls: list[tuple[int, int]] = []

    def record(image: Tensor) -> Tensor:
        shapes.append(tuple(image.shape))
        return 1 - image

    image = picture(40, 60, batch)
    # A tile of 64 with a halo of 10 on either side, grid included, holds two images of 40×60.
    out = run_tiled(record, [image], halo=10, tile=64, on_tile=lambda done, total: calls.append((done, total)))
    assert torch.equal(out, 1 - image)
    assert [shape[0] for shape in shapes] == {1: [1], 2: [2], 5: [3, 2]}[batch]
    assert calls == [(i + 1, len(shapes)) for i in range(len(shapes))]


def test_no_run_is_larger_than_a_tile_whatever_the_batch() -> None:
    areas: list[int] = []

    def record(image: Tensor) -> Tensor:
        areas.append(image.shape[0] * image.shape[2] * image.shape[3])
        return 1 - image

    for size in ((20, 30), (64, 64), (100, 150), (3, 700)):
        image = picture(*size, batch=7)
        assert torch.equal(run_tiled(record, [image], halo=8, align=4, tile=64), 1 - image)
    assert max(areas) <= (64 + 2 * (8 + 4)) ** 2


def test_an_image_longer_than_a_tile_is_cut_however_narrow() -> None:
    widths: list[int] = []
    run_tiled(lambda image: widths.append(image.shape[3]) or image, [picture(8, 1000)], halo=2, tile=64)
    assert max(widths) <= 68


def test_a_batch_in_groups_gives_the_same() -> None:
    net, images = unet(), picture(70, 90, batch=3)
    assert largest_difference(tiled(net, images, 64), tiled(net, images, None)) < 1e-5
    assert largest_difference(tiled(net, images, 96), tiled(net, images, None)) < 1e-5


def test_without_a_tile_all_runs_at_once() -> None:
    calls: list[tuple[int, int]] = []
    out = tiled(Negative(), picture(70, 90, batch=9), None, lambda done, total: calls.append((done, total)))
    assert out.shape[0] == 9
    assert calls == [(1, 1)]


def test_every_tile_is_reported() -> None:
    calls: list[tuple[int, int]] = []
    tiled(Negative(), picture(257, 129), 64, lambda done, total: calls.append((done, total)))
    assert calls == [(i, 15) for i in range(1, 16)]


def test_several_images_are_cut_alike_and_the_scale_is_kept() -> None:
    a, b = picture(70, 90), picture(70, 90, seed=1)[:, :1]

    def function(a: Tensor, b: Tensor) -> Tensor:
        return (a[:, :2] * b).repeat_interleave(3, 2).repeat_interleave(3, 3)

    out = run_tiled(function, [a, b], scale=3, halo=1, tile=32)
    assert torch.equal(out, function(a, b))


def test_what_the_callback_raises_stops_the_run() -> None:
    runs: list[int] = []

    def cancel(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    def function(image: Tensor) -> Tensor:
        runs.append(1)
        return image

    image = picture(129, 129)
    before = image.clone()
    with pytest.raises(KeyboardInterrupt):
        run_tiled(function, [image], halo=0, tile=64, on_tile=cancel)
    assert len(runs) == 2
    assert torch.equal(image, before)


def test_the_format_of_the_result_is_the_functions() -> None:
    out = run_tiled(lambda image: image.double(), [picture(70, 90)], halo=0, tile=32)
    assert out.dtype is torch.float64


@given(st.floats(1, 1e5), st.floats(0, 1e12), st.integers(0, 300), st.sampled_from([1, 4, 32, 96]))
def test_an_automatic_tile_fits_the_budget(bytes_per_pixel: float, budget: float, halo: int, align: int) -> None:
    tile = auto_tile(bytes_per_pixel, halo, align, budget)
    assert tile % align == 0
    assert tile >= MINIMUM_TILE
    if tile >= MINIMUM_TILE + align:  # the least tile is used whatever the budget
        assert (tile + 2 * halo + 2 * (align - 1)) ** 2 * bytes_per_pixel <= budget


@given(st.floats(1, 1e4), st.floats(1e3, 1e11), st.floats(1, 10), st.integers(0, 100), st.sampled_from([1, 32]))
def test_more_budget_never_means_a_smaller_tile(
    bytes_per_pixel: float, budget: float, factor: float, halo: int, align: int
) -> None:
    tile = auto_tile(bytes_per_pixel, halo, align, budget)
    assert auto_tile(bytes_per_pixel, halo, align, budget * factor) >= tile
    assert auto_tile(bytes_per_pixel * factor, halo, align, budget) <= tile
    assert auto_tile(bytes_per_pixel, halo + 10, align, budget) <= tile


def test_an_image_that_fits_is_one_tile_without_a_halo() -> None:
    budget = 100 * 1000**2
    assert auto_tile(100, 10, 4, budget, (1000, 1000)) == 1000
    assert auto_tile(100, 10, 4, budget, (20, 50_000)) == 50_000
    assert auto_tile(100, 10, 4, budget, (1000, 1001)) == 972
    assert auto_tile(1, 4, budget=100**2, whole=(10, 12)) == 100  # small images of a batch run together


@pytest.mark.parametrize(
    ("free", "kept", "expected"),
    [
        (0, 0, 0),
        (3 << 28, 0, 3 << 27),
        (1 << 28, 1 << 29, 3 << 27),
        (1 << 31, 0, DEFAULT_BUDGET),
        (80 << 30, 0, DEFAULT_BUDGET),
    ],
)
def test_a_tile_takes_no_more_than_half_of_what_a_gpu_has_free(
    monkeypatch: pytest.MonkeyPatch, free: int, kept: int, expected: float
) -> None:
    gpu = torch.device("cuda", 1)

    def told(value: object) -> Callable[[torch.device], object]:
        return lambda device: value if device == gpu else pytest.fail(f"asked of {device}")

    monkeypatch.setattr(torch.cuda, "mem_get_info", told((free, 80 << 30)))
    monkeypatch.setattr(torch.cuda, "memory_reserved", told(5 + kept))
    monkeypatch.setattr(torch.cuda, "memory_allocated", told(5))
    assert working_memory(gpu) == expected


@pytest.mark.parametrize("kind", ["cpu", "mps", "meta"])
def test_a_device_that_does_not_tell_has_the_usual_budget(kind: str) -> None:
    assert working_memory(torch.device(kind)) == DEFAULT_BUDGET


def test_bands_are_what_a_cpu_caches_and_what_fits_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert band_pixels(torch.device("cpu")) == BAND_PIXELS
    assert band_pixels(torch.device("mps")) == DEFAULT_BUDGET // BAND_BYTES > BAND_PIXELS
    monkeypatch.setattr(tiling, "working_memory", lambda device: 1000.0)
    assert band_pixels(torch.device("mps")) == BAND_PIXELS


def test_an_automatic_tile_uses_the_budget() -> None:
    assert auto_tile(100, 10, 4, budget=100 * 1000**2) == 972


@pytest.mark.parametrize(("tile", "error"), [(0, ValueError), (-64, ValueError), (64.0, TypeError), (True, TypeError)])
def test_a_tile_that_is_none_is_refused(tile: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="tile: expected an integer >= 1, got"):
        run_tiled(lambda image: image, [picture()], halo=0, tile=tile)


def test_images_of_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"images\[1\]: expected \[1, C, 33, 47\] as images\[0\], got \(1, 3"):
        run_tiled(lambda a, b: a, [picture(), picture(33, 46)], halo=0)
    with pytest.raises(ValueError, match=r"images\[1\]: expected \[1, C, 33, 47\]"):
        run_tiled(lambda a, b: a, [picture(), picture(batch=2)], halo=0)


@pytest.mark.parametrize("images", [[], [torch.zeros(1, 3, 0, 5)]])
def test_images_without_a_pixel_are_refused(images: list[Tensor]) -> None:
    with pytest.raises(ValueError, match="images: expected at least one pixel"):
        run_tiled(lambda image: image, images, halo=0)
