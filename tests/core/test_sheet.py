from __future__ import annotations

import pytest
import torch

from progressive_upsampling.core.sheet import GAP, arrange, compare, detail_boxes, heat_map

SIZES = [(33, 47), (1, 1), (257, 129), (3, 700), (700, 3), (512, 512)]


def grey(height: int, width: int, value: float = 0.5, channels: int = 3) -> torch.Tensor:
    return torch.full((1, channels, height, width), value)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_sheet_of_any_picture_is_an_image_with_a_column_each(size, channels):
    sheet = compare({"before": torch.rand(1, channels, *size), "after": torch.rand(1, channels, *size)}, side=256)
    assert sheet.shape[:2] == (1, 3) and sheet.shape[3] == 2 * 256 + 3 * GAP
    assert sheet.min() >= 0 and sheet.max() <= 1


def test_panels_are_shown_pixel_by_pixel():
    image = torch.rand(1, 3, 40, 40)
    sheet = arrange([[("", image), ("", 1 - image)]])
    assert torch.equal(sheet[..., GAP : GAP + 40, GAP : GAP + 40], image)
    assert torch.equal(sheet[..., GAP : GAP + 40, 2 * GAP + 40 : 2 * GAP + 80], 1 - image)


def test_details_are_magnified_by_repeating_pixels():
    image = torch.rand(1, 3, 64, 64)
    sheet = compare({"only": image}, side=64, details=1, crop=16)
    top, left, height, width = detail_boxes(image, 16, 1)[0]
    expected = image[..., top : top + height, left : left + width].repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert torch.equal(sheet[..., -64 - GAP : -GAP, GAP : GAP + 64], expected)


def test_a_smaller_version_is_enlarged_to_the_last():
    small, large = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 64, 64)
    sheet = compare({"small": small, "large": large}, side=64, details=0)
    shown = sheet[..., -64 - GAP : -GAP, GAP : GAP + 64]
    assert torch.equal(shown, small.repeat_interleave(8, 2).repeat_interleave(8, 3))


def test_a_small_picture_has_no_details():
    assert compare({"x": grey(20, 20)}).shape == compare({"x": grey(20, 20)}, details=0).shape


def test_labels_and_title_are_drawn_and_long_ones_stay_in_their_column():
    plain = arrange([[("", grey(50, 200)), ("", grey(50, 200))]])
    labelled = arrange([[("bicubic × → …", grey(50, 200)), ("W" * 300, grey(50, 200))]], title="title " * 100)
    assert labelled.shape[3] == plain.shape[3] and labelled.shape[2] > plain.shape[2]
    assert labelled[..., GAP : GAP + 30, :].min() < 0.3
    assert labelled[..., -GAP:].min() == 1 and labelled[..., :GAP].min() == 1


def test_detail_is_found_where_it_is():
    image = grey(256, 256)
    image[..., 128:160, 64:96] = torch.rand(1, 3, 32, 32)
    top, left, height, width = detail_boxes(image, 32, 1)[0]
    assert (top, left, height, width) == (128, 64, 32, 32)


def test_places_of_detail_do_not_overlap():
    boxes = detail_boxes(torch.rand(1, 3, 200, 190), 32, 5)
    assert len(boxes) == 5
    covered = torch.zeros(200, 190)
    for top, left, height, width in boxes:
        covered[top : top + height, left : left + width] += 1
    assert covered.max() == 1


def test_alpha_is_shown_over_a_chequerboard():
    image = torch.zeros(1, 4, 32, 32)
    shown = arrange([[("", image)]])[..., GAP:-GAP, GAP:-GAP]
    assert shown[..., :32, :32].unique().numel() == 2


def test_heat_is_black_where_equal_and_white_where_far_apart():
    image = torch.rand(2, 3, 33, 47) * 0.5
    other = image.clone()
    other[:, :, 10, 20] += 0.2
    heat = heat_map(image, other, full=0.1)
    assert heat.shape == (2, 3, 33, 47)
    assert heat[:, :, 10, 20].eq(1).all() and heat[:, :, 0, 0].eq(0).all()


def test_heat_grows_with_the_difference():
    steps = torch.linspace(0, 0.1, 50).view(1, 1, 1, 50)
    heat = heat_map(steps, torch.zeros_like(steps)).mean(1).flatten()
    assert (heat[1:] > heat[:-1]).all()


def test_the_inputs_are_not_changed():
    image, other = torch.rand(1, 4, 33, 47), torch.rand(1, 4, 33, 47)
    copies = image.clone(), other.clone()
    compare({"a": image, "b": other})
    heat_map(image, other)
    assert torch.equal(image, copies[0]) and torch.equal(other, copies[1])


@pytest.mark.parametrize(
    "call",
    [
        lambda: compare({}),
        lambda: arrange([]),
        lambda: compare({"x": torch.rand(3, 4, 4)}),
        lambda: compare({"x": grey(4, 4)}, side=0),
        lambda: heat_map(grey(4, 4), grey(4, 5)),
        lambda: heat_map(grey(4, 4), grey(4, 4), full=0.0),
    ],
)
def test_bad_arguments_are_refused(call):
    with pytest.raises(ValueError, match="expected"):
        call()
