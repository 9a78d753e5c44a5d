from __future__ import annotations

import math

import pytest
import torch

from progressive_upsampling.core import separable
from progressive_upsampling.core.resample import resample
from progressive_upsampling.core.rows import Original, Rows, bands, resample_rows, rows_for

from .tiny import picture

SIZES = [((33, 47), (66, 94)), ((33, 47), (50, 47)), ((67, 20), (34, 10)), ((7, 5), (100, 3)), ((1, 1), (9, 9))]


@pytest.mark.parametrize("method", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(("size", "target"), SIZES)
def test_bands_of_a_resampled_image_are_the_resampled_image(
    size: tuple[int, int], target: tuple[int, int], method: str
) -> None:
    image = picture(*size, batch=2)
    whole = resample(image, target, method)
    for rows in bands(target[0], 7):
        needed = rows_for(size[0], target[0], rows, method)
        part = Rows(image[:, :, needed], needed.start, size[0])
        torch.testing.assert_close(resample_rows(part, target, rows, method), whole[:, :, rows], atol=1e-6, rtol=0)


@pytest.mark.parametrize("length", [5, 32, 256])
def test_how_many_rows_a_product_makes_is_no_matter(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    image, rows = picture(60, 45), slice(37, 111)
    known = resample(image, (130, 77))
    needed = rows_for(60, 130, rows, "bicubic")
    part = Rows(image[:, :, needed], needed.start, 60)
    separable._blocks.cache_clear()
    try:
        with monkeypatch.context() as changed:
            changed.setattr(separable, "_ROWS", length)
            torch.testing.assert_close(resample(image, (130, 77)), known, atol=1e-6, rtol=0)
        found = resample_rows(part, (130, 77), rows, "bicubic")  # of the products that are kept
    finally:
        separable._blocks.cache_clear()
    torch.testing.assert_close(found, known[:, :, rows], atol=1e-6, rtol=0)


@pytest.mark.parametrize(("device", "length"), [("cpu", 64), ("meta", 256)])
def test_products_are_larger_where_starting_one_is_dear(device: str, length: int) -> None:
    blocks = separable._blocks(separable.Axis(300, 600, 2.0, "bicubic"), torch.device(device), torch.float32)
    assert {block.matrix.shape[0] for block in blocks[:-1]} == {length}


@pytest.mark.parametrize(("target", "length"), [(75, 16), (150, 16), (300, 32), (600, 64), (2400, 64)])
def test_products_read_about_as_many_rows_whatever_the_scale(target: int, length: int) -> None:
    axis = separable.Axis(300, target, target / 300, "bicubic")
    first, *_ = separable._blocks(axis, torch.device("cpu"), torch.float32)
    assert first.matrix.shape[0] == length


def test_a_row_too_few_would_show() -> None:
    image = picture(80, 20)
    needed = rows_for(80, 160, slice(50, 60), "bicubic")
    part = Rows(image[:, :, needed.start + 2 : needed.stop], needed.start + 2, 80)
    whole = resample(image, (160, 40))[:, :, 50:60]
    assert (resample_rows(part, (160, 40), slice(50, 60), "bicubic") - whole).abs().max() > 1e-3


@pytest.mark.parametrize("target", [40, 79, 80, 131, 700])
def test_the_rows_needed_are_few(target: int) -> None:
    for rows in bands(target, 16):
        needed = rows_for(80, target, rows, "bicubic")
        assert 0 <= needed.start < needed.stop <= 80
        assert needed.stop - needed.start <= (rows.stop - rows.start) * 80 / target + 4 * max(80 / target, 1) + 3


@pytest.mark.parametrize(("height", "rows"), [(10, 3), (10, 10), (10, 99), (1, 1)])
def test_bands_cover_every_row_once(height: int, rows: int) -> None:
    covered = [row for band in bands(height, rows) for row in range(band.start, band.stop)]
    assert covered == list(range(height))
    assert all(band.stop - band.start <= rows for band in bands(height, rows))


@pytest.mark.parametrize("margin", [0, 1, 5, 30])
def test_an_image_that_is_overwritten_is_read_as_it_was(margin: int) -> None:
    image = picture(50, 6)
    before, original = image.clone(), Original(image)
    for rows in bands(50, 8):
        read = slice(max(rows.start - margin, 0), min(rows.stop + margin, 50))
        assert torch.equal(original.read(read), before[:, :, read])
        assert torch.equal(original.read(read), before[:, :, read])  # asking twice is no harm
        image[:, :, rows] = -1
    assert (image == -1).all()


@pytest.mark.parametrize("method", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(("height", "target"), [(8, 16), (8, 4), (9, 5), (5, 9), (12, 36), (40, 7), (7, 40), (1, 3)])
def test_rows_are_made_of_all_with_a_weight_and_none_beyond_the_kernel(height: int, target: int, method: str) -> None:
    support = 2 * {"bilinear": 1, "bicubic": 2, "lanczos": 3}[method] * max(height / target, 1)
    pulses = torch.eye(height, dtype=torch.float64)[:, None, :, None]  # image i is 1 in row i alone
    weights = resample(pulses, (target, 1), method)[:, 0, :, 0]
    for at in range(target):
        found = (weights[:, at].abs() > 1e-12).nonzero().flatten().tolist()
        needed = rows_for(height, target, slice(at, at + 1), method)
        assert needed.start <= found[0] and found[-1] < needed.stop
        assert needed.stop - needed.start <= math.ceil(support)
