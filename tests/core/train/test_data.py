from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from progressive_upsampling.core.train.data import MARGIN, Batch, CropSampler
from progressive_upsampling.core.train.data_config import DataConfig
from progressive_upsampling.core.train.degradation import RealisticConfig
from progressive_upsampling.core.train.degrade import matlab_imresize
from progressive_upsampling.core.train.pictures import PictureBatch, PictureFolder

from .conftest import noise_picture, save

SHAPE = {"factors": (2, 4), "crop": 5, "batch": 3}
SIDE = (5 + 2 * MARGIN) * 4
EVERYTHING = DataConfig(degradation="realistic", jitter=0.7, mixup=0.5, cutblur=0.5)


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


@pytest.mark.parametrize("config", [DataConfig(), EVERYTHING], ids=["plain", "everything"])
def test_crops_are_a_function_of_seed_and_step_alone(photos, config):
    one, other = CropSampler(folder(photos), 3, config), CropSampler(folder(photos, memory=0), 3, config)
    forward = [one.batch(step, **SHAPE) for step in (0, 1, 7)]
    backward = [other.batch(step, **SHAPE) for step in (7, 1, 0)]
    assert all(equal(a, b) for a, b in zip(forward, reversed(backward), strict=True))


def test_crops_are_made_of_reduced_pictures(tmp_path):
    save(tmp_path / "a.png", noise_picture(120, 100))
    picture = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    shape = {"factors": (2,), "crop": 6, "batch": 12}  # 20 pixels a side with their margin
    config = DataConfig(reduce=(2,), flips=False, turns=False)
    crops = CropSampler(folder(tmp_path), 0, config).batch(0, **shape)
    whole = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None]
    places = {
        (top % 2, left % 2): matlab_imresize(whole[:, :, top % 2 :, left % 2 :][:, :, :118, :98], scale=0.5)[0]
        for top in range(2)
        for left in range(2)
    }
    for index in range(12):
        crop = torch.from_numpy(finest(crops, index)).permute(2, 0, 1)
        assert any(_within(crop, reduced) for reduced in places.values())


def test_a_reduction_is_drawn_for_each_crop_as_far_as_the_picture_allows(photos, tmp_path):
    sampler = CropSampler(folder(photos), 0, DataConfig(reduce=(1, 2, 5)))
    rng = np.random.default_rng(0)
    assert {sampler._reduction(9, rng) for _ in range(50)} == {1, 2, 5}
    assert {sampler._reduction(3, rng) for _ in range(50)} == {1, 2, 3}
    state = rng.bit_generator.state
    assert CropSampler(folder(photos), 0, DataConfig())._reduction(9, rng) == 1
    assert rng.bit_generator.state == state  # the crops of runs without it stay as they were


def _within(crop: torch.Tensor, picture: torch.Tensor) -> bool:
    """Whether a crop is a part of a picture, [3, H, W] uint8."""
    h, w = crop.shape[1:]
    windows = picture.unfold(1, h, 1).unfold(2, w, 1)  # [3, y, x, h, w]
    return bool((windows == crop[:, None, None]).all(dim=(0, 3, 4)).any())


def test_another_step_seed_or_number_gives_other_crops(photos):
    pictures = folder(photos)
    first = CropSampler(pictures, 0).batch(0, **SHAPE)
    assert not equal(first, CropSampler(pictures, 0).batch(1, **SHAPE))
    assert not equal(first, CropSampler(pictures, 1).batch(0, **SHAPE))
    assert len({crop.numpy().tobytes() for crop in first.scales[0]}) == 3


@pytest.mark.parametrize("config", [DataConfig(), EVERYTHING], ids=["plain", "everything"])
@pytest.mark.parametrize("shares", [[(0, 1, 2, 3), (4, 5, 6)], [(0, 2, 4, 6), (1, 3, 5)], [(6, 0), (3,), (1, 2, 4, 5)]])
def test_processes_that_share_a_batch_make_the_crops_of_one_that_makes_it_all(photos, config, shares):
    shape = SHAPE | {"batch": 7}
    whole = CropSampler(folder(photos), 1, config).batch(9, **shape)
    for items in shares:
        part = CropSampler(folder(photos), 1, config).batch(9, **shape, items=items)
        assert equal(part, Batch(tuple(scale[list(items)] for scale in whole.scales)))


def test_crops_do_not_depend_on_the_size_of_the_batch(photos):
    sampler = CropSampler(folder(photos), 1, EVERYTHING)
    small, large = (sampler.batch(2, **(SHAPE | {"batch": size})) for size in (2, 5))
    assert equal(small, Batch(tuple(scale[:2] for scale in large.scales)))


def test_crops_do_not_depend_on_the_number_of_threads(tmp_path):
    save(tmp_path / "a.png", noise_picture(300, 300))
    sampler, threads = CropSampler(folder(tmp_path), 0, EVERYTHING), torch.get_num_threads()
    batches = []
    try:
        for number in (1, 3):  # crops of more elements than torch sums in one thread
            torch.set_num_threads(number)
            batches.append(sampler.batch(0, factors=(4,), crop=60, batch=3))
    finally:
        torch.set_num_threads(threads)
    assert equal(*batches)


def test_images_give_the_crops_of_the_folder_of_the_same_pictures(photos):
    files = folder(photos)
    images = [torch.from_numpy(files[i].copy()).permute(2, 0, 1)[None].float() / 255 for i in range(len(files))]
    batches = [CropSampler(pictures, 4, EVERYTHING).batch(6, **SHAPE) for pictures in (files, PictureBatch(images))]
    assert equal(*batches)


@pytest.mark.parametrize("config", [DataConfig(), EVERYTHING], ids=["plain", "everything"])
@pytest.mark.parametrize("factors", [(1,), (2,), (3,), (2, 4, 8), (3, 6)])
def test_a_batch_has_every_scale_of_8_bits_in_0_to_1(tmp_path, factors, config):
    save(tmp_path / "a.png", noise_picture(80, 97))
    batch = CropSampler(folder(tmp_path), 0, config).batch(0, factors=factors, crop=5, batch=2)
    assert [tuple(scale.shape) for scale in batch.scales] == [(2, 3, 5 * f, 5 * f) for f in (1, *factors)]
    for scale in batch.scales:
        assert scale.dtype == torch.float32 and 0 <= scale.min() <= scale.max() <= 1
        assert torch.equal(scale, (scale * 255).round() / 255)


@pytest.mark.parametrize(
    ("flips", "turns", "expected"),
    [(True, True, set(range(8))), (False, True, {0, 1, 2, 3}), (True, False, {0, 4}), (False, False, {0})],
)
def test_crops_are_pieces_of_the_picture_in_the_positions_asked_for(tmp_path, flips, turns, expected):
    picture = noise_picture(61, 53)
    save(tmp_path / "a.png", picture)
    sampler, seen = CropSampler(folder(tmp_path), 0, DataConfig(flips=flips, turns=turns)), set()
    for step in range(60):
        crop = finest(sampler.batch(step, factors=(2,), crop=4, batch=1))
        places = [i for i, view in enumerate(turned(picture)) if place_of(crop, view) is not None]
        assert len(places) == 1
        seen.add(places[0])
    assert seen == expected


@pytest.mark.parametrize("factors", [(2,), (2, 4), (2, 4, 8), (3,), (2, 6)])
def test_a_crop_is_degraded_as_if_the_whole_picture_were(tmp_path, factors):
    factor = factors[-1]
    side = (3 + 2 * MARGIN) * factor
    # only positions on the grid of the reduction can be compared, and this leaves few others
    picture = noise_picture(side + factor, side + factor)
    save(tmp_path / "a.png", picture)
    sampler, compared = CropSampler(folder(tmp_path), 0), 0
    for step in range(50 * factor):
        batch = sampler.batch(step, factors=factors, crop=3, batch=1)
        for view in turned(picture):
            place = place_of(finest(batch), view)
            if place is None or place[0] % factor or place[1] % factor:
                continue
            whole = torch.from_numpy(view.copy()).permute(2, 0, 1)[None]
            for scale, size in zip(batch.scales, (1, *factors), strict=True):
                divisor = factor // size
                top, left = place[0] // divisor, place[1] // divisor
                reduced = matlab_imresize(whole, scale=1 / divisor) if divisor > 1 else whole
                expected = reduced[..., top : top + scale.shape[2], left : left + scale.shape[3]].float() / 255
                assert torch.equal(scale, expected)
            compared += 1
        if compared >= 4:
            return
    raise AssertionError(f"only {compared} crops lay on the grid")


def test_augmentations_leave_the_choice_of_crops_alone(photos):
    plain, cut = (CropSampler(folder(photos), 0, config) for config in (DataConfig(), DataConfig(cutblur=1)))
    for step in (0, 1):
        assert torch.equal(plain.batch(step, **SHAPE).scales[-1], cut.batch(step, **SHAPE).scales[-1])


@pytest.mark.parametrize("config", [DataConfig(cutblur=1), DataConfig(degradation="realistic")])
def test_degradations_of_the_input_leave_the_targets_alone(photos, config):
    plain = CropSampler(folder(photos), 0).batch(0, **SHAPE).scales
    other = CropSampler(folder(photos), 0, config).batch(0, **SHAPE).scales
    assert all(torch.equal(a, b) for a, b in zip(plain[1:], other[1:], strict=True))
    assert all(not torch.equal(a, b) for a, b in zip(plain[0], other[0], strict=True))


@pytest.mark.parametrize("config", [DataConfig(jitter=1), DataConfig(mixup=1)])
def test_changes_of_the_crop_reach_input_and_targets_alike(photos, config):
    plain = CropSampler(folder(photos), 0).batch(0, **SHAPE).scales
    batch = CropSampler(folder(photos), 0, config).batch(0, **SHAPE).scales
    # The crop's border is cut off after the reductions, so only the middle can be reduced anew.
    truth, inner = (batch[-1] * 255).round().to(torch.uint8), slice(2, -2)
    for scale, size in zip(batch[:-1], (1, 2), strict=True):
        expected = matlab_imresize(truth, scale=size / 4)[..., inner, inner].float() / 255
        assert torch.equal(scale[..., inner, inner], expected)
    assert all(not torch.equal(a, b) for a, b in zip(plain[-1], batch[-1], strict=True))


def test_mixup_takes_its_share_of_the_crops(tmp_path):
    save(tmp_path / "black.png", np.zeros((60, 60, 3), np.uint8))
    save(tmp_path / "white.png", np.full((60, 60, 3), 255, np.uint8))
    sampler = CropSampler(folder(tmp_path), 0, DataConfig(mixup=0.5))
    values = sampler.batch(0, factors=(2,), crop=3, batch=400).scales[0][:, 0, 0, 0]
    blends = ((values > 0) & (values < 1)).float().mean()
    assert blends == pytest.approx(0.5 * 0.5, abs=0.08)  # half of them with the other picture


def test_cutblur_takes_its_share_of_the_crops(photos):
    shape = {"factors": (2,), "crop": 8, "batch": 200}
    plain = CropSampler(folder(photos), 0).batch(0, **shape).scales[0]
    cut = CropSampler(folder(photos), 0, DataConfig(cutblur=0.3)).batch(0, **shape).scales[0]
    assert (plain != cut).flatten(1).any(1).float().mean() == pytest.approx(0.3, abs=0.1)


def test_a_realistic_degradation_has_the_settings_given(photos):
    switched_off = RealisticConfig(blur=0, noise=0, jpeg=0, resizing=("bicubic",))
    harsh = RealisticConfig(blur=0, noise=1, jpeg=0, sigma=(0.2, 0.2))
    clean, noisy = (
        CropSampler(folder(photos), 0, DataConfig("realistic", realistic=config)).batch(0, **SHAPE).scales[0]
        for config in (switched_off, harsh)
    )
    plain = CropSampler(folder(photos), 0).batch(0, **SHAPE).scales[0]
    assert (clean - plain).abs().max() < 2.5 / 255  # rounded once, where MATLAB rounds twice
    assert (noisy - plain).std() > 0.1


@pytest.mark.parametrize("name", ["0.png", "2.png"])
def test_a_truncated_picture_is_named_once_and_another_takes_its_place(photos, caplog, name):
    whole = (photos / name).read_bytes()
    (photos / name).write_bytes(whole[: len(whole) // 2])
    pictures = folder(photos)
    assert len(pictures) == 3
    with caplog.at_level(logging.WARNING):
        batches = [CropSampler(pictures, 0).batch(step, **SHAPE) for step in range(4)]
    assert len(pictures.skipped) == 1 and caplog.text.count(name) == 1
    again = CropSampler(folder(photos), 0)
    assert all(equal(again.batch(step, **SHAPE), batches[step]) for step in (3, 2, 1, 0))


def test_a_folder_of_damaged_pictures_is_an_error(tmp_path):
    path = save(tmp_path / "a.png", noise_picture(64, 64))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ValueError, match="can be decoded"):
        CropSampler(folder(tmp_path), 0).batch(0, **SHAPE)


def test_pictures_that_are_too_small_are_reported_once_and_not_used(photos, caplog):
    for number in range(7):
        save(photos / f"small{number}.png", np.full((SIDE - 1, 300, 3), 255, np.uint8))
    sampler = CropSampler(folder(photos), 0)
    with caplog.at_level(logging.WARNING):
        batches = [sampler.batch(step, **SHAPE) for step in range(5)]
    assert caplog.text.count("7 of 10 pictures") == 1 and "small0.png" in caplog.text
    assert sampler.fitting(4, 5) == [0, 1, 2]
    assert all((batch.scales[0].amin((1, 2, 3)) < 1).all() for batch in batches)


def test_a_picture_of_just_the_size_is_used(tmp_path):
    save(tmp_path / "a.png", noise_picture(SIDE, SIDE))
    assert CropSampler(folder(tmp_path), 0).batch(0, **SHAPE).scales[-1].shape == (3, 3, 20, 20)


def test_only_small_pictures_are_an_error_with_both_sizes(tmp_path):
    save(tmp_path / "a.png", noise_picture(SIDE - 1, 200))
    with pytest.raises(ValueError, match=rf"at least {SIDE}x{SIDE} px .*got at most {SIDE - 1} px"):
        CropSampler(folder(tmp_path), 0).batch(0, **SHAPE)


def test_larger_pictures_are_drawn_more_often_by_the_root_of_their_area(tmp_path):
    save(tmp_path / "a.png", np.zeros((20, 20, 3), np.uint8))
    save(tmp_path / "b.png", np.full((60, 60, 3), 255, np.uint8))
    values = CropSampler(folder(tmp_path), 0).batch(0, factors=(2,), crop=3, batch=600).scales[0][:, 0, 0, 0]
    assert values.mean() == pytest.approx(0.75, abs=0.06)


def test_textured_places_are_preferred(tmp_path):
    flat = np.full((64, 256, 3), 128, np.uint8)
    flat[:, 192:] = noise_picture(64, 64)
    save(tmp_path / "a.png", flat)
    batch = CropSampler(folder(tmp_path), 0).batch(0, factors=(2,), crop=8, batch=64)
    textured = (batch.scales[-1].flatten(1).std(1) > 0.01).float().mean()
    assert textured > 0.5  # a quarter of the picture, three tries: about 1 - 0.7³


@pytest.mark.parametrize("factors", [(), (4, 2), (2, 2), (2, 3), (0,)])
def test_factors_that_do_not_divide_the_last_or_do_not_grow_are_errors(photos, factors):
    with pytest.raises(ValueError, match="factors: expected"):
        CropSampler(folder(photos), 0).batch(0, factors=factors, crop=3, batch=1)


@pytest.mark.parametrize("items", [(), (3,), (-1, 0)])
def test_items_outside_the_batch_are_errors(photos, items):
    with pytest.raises(ValueError, match="items: expected"):
        CropSampler(folder(photos), 0).batch(0, **SHAPE, items=items)
