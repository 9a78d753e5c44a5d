from __future__ import annotations

import pytest
import torch

from progressive_upsampling.core.pyramid import collapse, decompose, gaussian_pyramid, rows_to_weigh, weighed_rows
from progressive_upsampling.core.rows import Rows, bands

SIZES = [(33, 47), (1, 1), (257, 129), (3, 700), (2, 64)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("levels", [1, 2, 3, 6, 12])
def test_collapse_inverts_decompose_at_any_size(size: tuple[int, int], levels: int) -> None:
    image = torch.rand(2, 4, *size)
    torch.testing.assert_close(collapse(decompose(image, levels)), image, atol=1e-6, rtol=0)


def test_each_band_is_half_as_large_as_the_one_before_rounded_up() -> None:
    bands = decompose(torch.rand(1, 3, 33, 47), 4)
    assert [tuple(band.shape[-2:]) for band in bands] == [(33, 47), (17, 24), (9, 12), (5, 6)]


def test_one_level_is_the_image() -> None:
    image = torch.rand(1, 3, 5, 6)
    assert torch.equal(decompose(image, 1)[0], image)


def test_a_constant_has_only_a_rest() -> None:
    *bands, rest = decompose(torch.full((1, 1, 33, 47), 0.7), 4)
    assert max(band.abs().max().item() for band in bands) < 1e-6
    torch.testing.assert_close(rest, torch.full_like(rest, 0.7))


def test_a_checkerboard_lies_in_the_finest_band() -> None:
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    board = ((y + x) % 2 * 2.0 - 1.0)[None, None]
    energy = [band[..., 2:-2, 2:-2].square().mean().item() for band in decompose(board, 3)]
    assert energy[0] > 0.95 and max(energy[1:]) < 0.01


def test_reductions_stay_in_the_range_of_the_image() -> None:
    image = (torch.rand(1, 3, 63, 65) > 0.5).float()
    for reduced in gaussian_pyramid(image, 6):
        assert reduced.min() >= -1e-6 and reduced.max() <= 1 + 1e-6


def test_the_pyramid_is_differentiable() -> None:
    image = torch.rand(1, 1, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: tuple(decompose(x, 3)), (image,))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("weights", [[0.3], [0.1, 0.7], [0.2, 0.0, 0.9], [0.5, 0.1, 0.2, 0.3, 1.0]])
def test_weighed_rows_are_rows_of_the_weighed_bands(size: tuple[int, int], weights: list[float]) -> None:
    image = torch.rand(2, 3, *size) - 0.5
    terms = [weight * band for weight, band in zip(weights, decompose(image, len(weights)), strict=True)]
    whole = collapse(terms)
    for rows in bands(size[0], 10):
        needed = rows_to_weigh(size[0], len(weights), rows)
        part = Rows(image[:, :, needed], needed.start, size[0])
        torch.testing.assert_close(weighed_rows(part, weights, rows), whole[:, :, rows], atol=1e-6, rtol=0)


def test_fewer_rows_than_needed_would_show() -> None:
    image, weights, rows = torch.rand(1, 3, 200, 20), [0.2, 0.5, 0.9], slice(90, 100)
    needed = rows_to_weigh(200, 3, rows)
    assert needed.stop - needed.start < 50
    cut = slice(needed.start + 10, needed.stop)
    whole = weighed_rows(Rows(image, 0, 200), weights, rows)
    padded = torch.cat([image[:, :, cut.start : cut.start + 1].expand(-1, -1, 10, -1), image[:, :, cut]], 2)
    assert (weighed_rows(Rows(padded, needed.start, 200), weights, rows) - whole).abs().max() > 1e-4
