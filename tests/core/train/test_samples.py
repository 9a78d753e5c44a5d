from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from progressive_upsampling.core.sheet import GAP, detail_boxes
from progressive_upsampling.core.train import samples
from progressive_upsampling.core.train.samples import Sample, sample_sheet


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def sample(name: str = "a", size: tuple[int, int] = (96, 128), seed: int = 0) -> Sample:
    truth = picture(*size, seed)
    small = picture(size[0] // 4, size[1] // 4, seed + 1)
    return Sample(name, {"input": small, "now": (truth + 0.1 * picture(*size, seed + 2)).clamp(0, 1), "truth": truth})


def y_psnr(image: torch.Tensor, reference: torch.Tensor, border: int) -> float:
    """By the definition, in NumPy."""
    weights = np.array([65.481, 128.553, 24.966]) / 255
    lumas = []
    for tensor in (image, reference):
        pixels = np.floor(tensor[0].permute(1, 2, 0).double().numpy() * 255 + 0.5) @ weights + 16
        lumas.append(pixels[border:-border, border:-border])
    return 10 * math.log10(255**2 / np.square(lumas[0] - lumas[1]).mean())


@pytest.fixture
def rows(monkeypatch):
    """What the sheet is arranged from."""
    found = []
    arrange = samples.arrange

    def noted(cells, **options):
        found[:] = cells
        return arrange(cells, **options)

    monkeypatch.setattr(samples, "arrange", noted)
    return found


@pytest.mark.parametrize("size", [(33, 47), (257, 129), (64, 64)])
@pytest.mark.parametrize("side", [32, 64])
def test_a_sheet_has_a_column_for_each_version_and_a_row_for_each_picture(size, side):
    one, two = (sample_sheet([sample(size=size)] * count, side=side) for count in (1, 2))
    column = max(side, min(side, size[1]))
    assert one.shape[:2] == (1, 3) and one.dtype == torch.float32
    assert one.shape[3] == two.shape[3] == 3 * column + 4 * GAP
    assert two.shape[2] - one.shape[2] > min(side, size[0])
    assert one.min() >= 0 and one.max() <= 1


def test_the_place_with_most_detail_is_shown_in_every_version(rows):
    row = sample()
    truth = torch.full((1, 3, 96, 128), 0.5)
    truth[..., 40:72, 64:96] = picture(32, 32)
    row = Sample("a", {**row.versions, "truth": truth})
    sheet = sample_sheet([row], side=32)
    top, left, height, width = detail_boxes(truth, 32, 1)[0]
    assert (top, left, height, width) == (40, 64, 32, 32)
    cut = (..., slice(40, 72), slice(64, 96))
    enlarged = row.versions["input"].repeat_interleave(4, 2).repeat_interleave(4, 3)
    expected = [enlarged[cut], row.versions["now"][cut], truth[cut]]
    for place, image in enumerate(expected):
        start = GAP + place * (32 + GAP)
        assert torch.equal(sheet[..., -32 - GAP : -GAP, start : start + 32], image)


def test_a_small_picture_is_shown_whole():
    row = sample(size=(40, 48))
    sheet = sample_sheet([row], side=64)
    start = GAP + 2 * (64 + GAP)
    assert torch.equal(sheet[..., -40 - GAP : -GAP, start : start + 48], row.versions["truth"])


def test_the_columns_are_named_once_at_the_top(rows):
    sample_sheet([sample("a"), sample("b", seed=5)])
    assert [label for label, _ in rows[0]] == ["input", "now", "truth"]
    assert len(rows) == 3 and not {"input", "now", "truth"} & {label for row in rows[1:] for label, _ in row}


def test_each_version_has_its_score_and_the_last_the_name(rows):
    row = sample("portrait")
    sample_sheet([row], side=32)
    *scores, name = [label for label, _ in rows[1]]
    truth = row.versions["truth"]
    enlarged = row.versions["input"].repeat_interleave(4, 2).repeat_interleave(4, 3)
    # of the whole picture without a border of four pixels, because the input is four times smaller
    expected = [y_psnr(image, truth, 4) for image in (enlarged, row.versions["now"])]
    assert scores == [f"{value:.2f} dB" for value in expected]
    assert name == "portrait"


def test_versions_of_one_size_are_scored_whole(rows):
    truth = picture(33, 47)
    now = truth.clone()
    now[..., 0, :] = 1 - now[..., 0, :]  # wrong at the border alone
    sample_sheet([Sample("a", {"now": now, "truth": truth})])
    assert rows[1][0][0].endswith(" dB")


def test_a_version_that_is_the_truth_is_called_identical(rows):
    truth = picture(33, 47)
    sample_sheet([Sample("a", {"now": truth.clone(), "truth": truth})])
    assert [label for label, _ in rows[1]] == ["identical", "a"]


def test_a_picture_too_small_for_a_border_has_a_score(rows):
    sample_sheet([Sample("a", {"input": picture(1, 1), "truth": picture(8, 8, 1)})])
    assert rows[1][0][0].endswith(" dB")


def test_one_version_alone_is_shown_with_its_name(rows):
    sample_sheet([Sample("alone", {"now": picture(40, 40)})])
    assert [[label for label, _ in row] for row in rows] == [["now"], ["alone"]]


def test_half_precision_and_gradients_are_taken():
    row = sample()
    learned = row.versions["now"].clone().requires_grad_()
    half = Sample("a", {**row.versions, "now": learned.half()})
    assert not sample_sheet([half]).requires_grad


def test_the_pictures_stay_as_they_are_and_give_the_same_sheet():
    row = sample()
    copies = {label: image.clone() for label, image in row.versions.items()}
    assert torch.equal(sample_sheet([row]), sample_sheet([row]))
    assert all(torch.equal(row.versions[label], image) for label, image in copies.items())


@pytest.mark.parametrize(
    "call",
    [
        lambda: sample_sheet([]),
        lambda: sample_sheet([sample()], side=31),
        lambda: sample_sheet([sample(), Sample("b", {"truth": picture(8, 8)})]),
        lambda: Sample("b", {}),
        lambda: Sample("b", {"now": picture(8, 8)[:, :1]}),
        lambda: Sample("b", {"now": picture(8, 8).repeat(2, 1, 1, 1)}),
        lambda: Sample("b", {"now": picture(8, 8) * math.nan}),
    ],
)
def test_bad_arguments_are_refused(call):
    with pytest.raises(ValueError, match="expected"):
        call()
