from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from progressive_upsampling.core.pictures import PictureError
from progressive_upsampling.core.train.data import MARGIN, Batch, CropSampler, PictureFolder
from progressive_upsampling.core.train.degrade import matlab_imresize

from .conftest import noise_picture, save

SHAPE = {"stages": 2, "crop": 5, "batch": 3}
SIDE = (5 + 2 * MARGIN) * 4


def folder(path: Path, memory: int = 1 << 30) -> PictureFolder:
    return PictureFolder(path, memory)


def equal(a: Batch, b: Batch) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.scales, b.scales, strict=True))


def turned(picture: np.ndarray) -> list[np.ndarray]:
    turns = [np.rot90(picture, k) for k in range(4)]
    return turns + [turn[:, ::-1] for turn in turns]


def place_of(crop: np.ndarray, picture: np.ndarray) -> tuple[int, int] | None:
    """Where a crop of a picture whose pixels are all different lies in it."""
    for top, left in np.argwhere((picture == crop[0, 0]).all(axis=2)):
        if np.array_equal(picture[top : top + crop.shape[0], left : left + crop.shape[1]], crop):
            return int(top), int(left)
    return None


def finest(batch: Batch, index: int = 0) -> np.ndarray:
    return (batch.scales[-1][index] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def test_crops_are_a_function_of_seed_and_step_alone(photos):
    one, other = CropSampler(folder(photos), 3), CropSampler(folder(photos, memory=0), 3)
    forward = [one.batch(step, **SHAPE) for step in (0, 1, 7)]
    backward = [other.batch(step, **SHAPE) for step in (7, 1, 0)]
    assert all(equal(a, b) for a, b in zip(forward, reversed(backward), strict=True))


def test_another_step_or_seed_gives_other_crops(photos):
    pictures = folder(photos)
    first = CropSampler(pictures, 0).batch(0, **SHAPE)
    assert not equal(first, CropSampler(pictures, 0).batch(1, **SHAPE))
    assert not equal(first, CropSampler(pictures, 1).batch(0, **SHAPE))


def test_a_batch_has_every_scale_in_0_to_1(photos):
    batch = CropSampler(folder(photos), 0).batch(0, **SHAPE)
    assert [tuple(scale.shape) for scale in batch.scales] == [(3, 3, 5, 5), (3, 3, 10, 10), (3, 3, 20, 20)]
    assert all(scale.dtype == torch.float32 and 0 <= scale.min() <= scale.max() <= 1 for scale in batch.scales)


def test_crops_are_pieces_of_the_picture_in_all_eight_positions(tmp_path):
    picture = noise_picture(61, 53)
    save(tmp_path / "a.png", picture)
    sampler, seen = CropSampler(folder(tmp_path), 0), set()
    for step in range(60):
        crop = finest(sampler.batch(step, stages=1, crop=4, batch=1))
        places = [i for i, view in enumerate(turned(picture)) if place_of(crop, view) is not None]
        assert len(places) == 1
        seen.add(places[0])
    assert seen == set(range(8))


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_a_crop_is_degraded_as_if_the_whole_picture_were(tmp_path, stages):
    side, factor = (3 + 2 * MARGIN) * 2**stages, 2**stages
    # only positions on the grid of the reduction can be compared, and this leaves few others
    picture = noise_picture(side + factor, side + factor)
    save(tmp_path / "a.png", picture)
    sampler, compared = CropSampler(folder(tmp_path), 0), 0
    for step in range(150 * stages):
        batch = sampler.batch(step, stages=stages, crop=3, batch=1)
        for view in turned(picture):
            place = place_of(finest(batch), view)
            if place is None or place[0] % factor or place[1] % factor:
                continue
            whole = torch.from_numpy(view.copy()).permute(2, 0, 1)[None]
            for k, scale in enumerate(batch.scales):
                divisor = 2 ** (stages - k)
                top, left = place[0] // divisor, place[1] // divisor
                reduced = matlab_imresize(whole, scale=1 / divisor) if divisor > 1 else whole
                expected = reduced[..., top : top + scale.shape[2], left : left + scale.shape[3]].float() / 255
                assert torch.equal(scale, expected)
            compared += 1
        if compared >= 4:
            return
    raise AssertionError(f"only {compared} crops lay on the grid")


def test_folders_are_searched_at_all_levels_and_other_files_left_alone(photos):
    save(photos / "deep" / "er" / "b.JPG", noise_picture(64, 64))
    (photos / "notes.txt").write_text("no picture")
    names = [path.name for path in folder(photos).paths]
    assert names == ["0.png", "1.png", "2.png", "b.JPG"]


def test_a_file_that_is_no_picture_is_named_and_skipped(photos, caplog):
    (photos / "bad.png").write_text("no picture")
    with caplog.at_level(logging.WARNING):
        pictures = folder(photos)
    assert len(pictures) == 3 and len(pictures.skipped) == 1
    assert "bad.png" in pictures.skipped[0] and "bad.png" in caplog.text


def test_a_truncated_picture_is_named_once_and_another_takes_its_place(photos, caplog):
    whole = (photos / "0.png").read_bytes()
    for path in list(photos.iterdir())[1:]:
        path.write_bytes(whole)
    (photos / "0.png").write_bytes(whole[: len(whole) // 2])
    pictures = folder(photos)
    assert len(pictures) == 3
    with caplog.at_level(logging.WARNING):
        batches = [CropSampler(pictures, 0).batch(step, **SHAPE) for step in range(4)]
    assert len(pictures.skipped) == 1 and caplog.text.count("0.png") == 1
    again = CropSampler(folder(photos), 0)
    assert all(equal(again.batch(step, **SHAPE), batches[step]) for step in (3, 2, 1, 0))


def test_a_folder_of_damaged_pictures_is_an_error(tmp_path):
    path = save(tmp_path / "a.png", noise_picture(64, 64))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ValueError, match="can be decoded"):
        CropSampler(folder(tmp_path), 0).batch(0, **SHAPE)
    with pytest.raises(PictureError, match=r"a\.png"):
        folder(tmp_path)[0]


@pytest.mark.parametrize("name", ["missing", "file.png", "empty"])
def test_no_folder_and_no_pictures_are_errors(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.png").write_text("x")
    with pytest.raises(ValueError, match="data: expected"):
        folder(tmp_path / name)


def test_pictures_that_are_too_small_are_reported_once_and_not_used(photos, caplog):
    for number in range(7):
        save(photos / f"small{number}.png", np.full((SIDE - 1, 300, 3), 255, np.uint8))
    sampler = CropSampler(folder(photos), 0)
    with caplog.at_level(logging.WARNING):
        batches = [sampler.batch(step, **SHAPE) for step in range(5)]
    assert caplog.text.count("7 of 10 pictures") == 1 and "small0.png" in caplog.text
    assert all((batch.scales[0].amin((1, 2, 3)) < 1).all() for batch in batches)


def test_a_picture_of_just_the_size_is_used(tmp_path):
    save(tmp_path / "a.png", noise_picture(SIDE, SIDE))
    assert CropSampler(folder(tmp_path), 0).batch(0, **SHAPE).scales[-1].shape == (3, 3, 20, 20)


def test_only_small_pictures_are_an_error_with_both_sizes(tmp_path):
    save(tmp_path / "a.png", noise_picture(SIDE - 1, 200))
    with pytest.raises(ValueError, match=rf"at least {SIDE}x{SIDE} px .*got at most {SIDE - 1} px"):
        CropSampler(folder(tmp_path), 0).batch(0, **SHAPE)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK", "I;16"])
def test_every_kind_of_picture_becomes_8_bit_rgb(tmp_path, mode):
    if mode == "I;16":
        Image.fromarray(np.full((40, 50), 257 * 77, np.uint16)).save(tmp_path / "a.tif")
    else:
        Image.fromarray(np.full((40, 50), 77, np.uint8)).convert(mode).save(tmp_path / "a.tif")
    pixels = folder(tmp_path)[0]
    assert pixels.shape == (40, 50, 3) and pixels.dtype == np.uint8
    if mode not in ("1", "CMYK"):
        assert (pixels == 77).all()


def test_decoded_pictures_are_kept_within_the_budget(photos):
    pictures = folder(photos, memory=3 * 70 * 66 + 100)
    for index in (1, 0, 2):
        assert np.array_equal(pictures[index], np.asarray(Image.open(pictures.paths[index])))
    assert pictures[1] is pictures[1] and pictures[0] is not pictures[0]


def test_textured_places_are_preferred(tmp_path):
    flat = np.full((64, 256, 3), 128, np.uint8)
    flat[:, 192:] = noise_picture(64, 64)
    save(tmp_path / "a.png", flat)
    batch = CropSampler(folder(tmp_path), 0).batch(0, stages=1, crop=8, batch=64)
    textured = (batch.scales[-1].flatten(1).std(1) > 0.01).float().mean()
    assert textured > 0.5  # a quarter of the picture, three tries: about 1 - 0.7³


def test_the_fingerprint_tells_folders_apart(photos):
    before = folder(photos).fingerprint
    assert folder(photos).fingerprint == before
    (photos / "0.png").rename(photos / "z.png")
    assert folder(photos).fingerprint != before
