from __future__ import annotations

import logging
import os
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from progressive_upsampling.core.pictures import PictureError, read_picture
from progressive_upsampling.core.train.pictures import PictureBatch, PictureFolder, Pictures, Subset, split

from .conftest import noise_picture, save


def folder(path: Path, memory: int = 1 << 30) -> PictureFolder:
    return PictureFolder(path, memory)


def many(path: Path, count: int) -> PictureFolder:
    for number in range(count):
        save(path / f"{number}.png", np.full((8, 9, 3), number, np.uint8))
    return folder(path)


def tensor_of(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255


def test_folders_are_searched_at_all_levels_and_other_files_left_alone(photos):
    save(photos / "deep" / "er" / "b.JPG", noise_picture(64, 64))
    (photos / "notes.txt").write_text("no picture")
    pictures = folder(photos)
    assert pictures.names == ["0.png", "1.png", "2.png", "deep/er/b.JPG"]
    assert pictures.name == "photos" and len(pictures) == 4


def test_a_folder_is_named_by_itself_and_not_by_its_path(photos, monkeypatch):
    monkeypatch.chdir(photos)
    assert folder(Path(".")).name == "photos"


def test_a_name_that_is_no_text_is_a_name_like_others(tmp_path, caplog):
    """As archives of other systems leave them: Latin-1 where UTF-8 is expected."""
    place = tmp_path / os.fsdecode(b"\xe9t\xe9")
    try:
        save(place / os.fsdecode(b"caf\xe9.png"), noise_picture(9, 8))
        (place / os.fsdecode(b"bad\xe9.png")).write_text("no picture")
    except OSError:
        pytest.skip("this file system has no such names")
    save(place / os.fsdecode(b"\xe9") / "a.png", noise_picture(9, 9))
    pictures = folder(place)
    assert [pictures[i].shape for i in range(2)] == [(9, 8, 3), (9, 9, 3)]
    assert len(pictures.fingerprint) == 16 and len(split(pictures, 0.5, 0)[1]) == 1
    told = [*pictures.names, pictures.name, *pictures.skipped, *caplog.messages]
    assert len(told) == 5 and all(text.encode() and "\\udce9" in text for text in told)


def test_a_file_that_is_no_picture_is_named_and_skipped(photos, caplog):
    (photos / "bad.png").write_text("no picture")
    with caplog.at_level(logging.WARNING):
        pictures = folder(photos)
    assert len(pictures) == 3 and len(pictures.skipped) == 1
    assert "bad.png" in pictures.skipped[0] and "bad.png" in caplog.text


def test_a_damaged_picture_is_an_error_each_time_and_named_once(tmp_path, caplog):
    path = save(tmp_path / "a.png", noise_picture(64, 64))
    path.write_bytes(path.read_bytes()[:3000])
    pictures = folder(tmp_path)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            with pytest.raises(PictureError, match=r"a\.png"):
                pictures[0]
    assert len(pictures.skipped) == 1 and caplog.text.count("a.png") == 1


@pytest.mark.parametrize("name", ["missing", "file.png", "empty"])
def test_no_folder_and_no_pictures_are_errors(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.png").write_text("x")
    with pytest.raises(ValueError, match="data: expected"):
        folder(tmp_path / name)


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


def test_subsets_keep_what_they_decode_within_the_budget_of_the_whole(photos):
    pictures = folder(photos, memory=3 * 70 * 66 + 100)
    one, other = Subset(pictures, [0, 1]), Subset(pictures, [2])
    assert one[1] is one[1] is pictures[1]
    assert other[0] is not other[0]
    assert one.bytes == 3 * (67 * 83 + 70 * 66) and one.bytes + other.bytes == pictures.bytes


def test_threads_that_decode_at_once_leave_the_filters_of_warnings_and_the_budget_alone(tmp_path):
    for number in range(12):  # of several frames: reading them warns
        frames = [Image.fromarray(noise_picture(40, 40, number + k)) for k in range(2)]
        frames[0].save(tmp_path / f"{number:02}.tif", save_all=True, append_images=frames[1:])
    before = list(warnings.filters)
    pictures = folder(tmp_path, memory=5 * 3 * 40 * 40)
    threads = [threading.Thread(target=lambda: [pictures[i] for i in range(12)]) for _ in range(4)]
    save(elsewhere := tmp_path.with_suffix(".png"), noise_picture(40, 40))
    threads += [threading.Thread(target=lambda: [read_picture(elsewhere) for _ in range(30)]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before
    assert sum(pictures[i] is pictures[i] for i in range(12)) == 5


def test_the_fingerprint_tells_folders_apart(photos):
    before = folder(photos).fingerprint
    assert folder(photos).fingerprint == before
    (photos / "0.png").rename(photos / "z.png")
    renamed = folder(photos).fingerprint
    save(photos / "z.png", noise_picture(67, 84))
    assert len({before, renamed, folder(photos).fingerprint}) == 3


def test_a_batch_of_images_equals_the_folder_of_the_same_pictures(photos):
    files = folder(photos)
    images = PictureBatch([tensor_of(files[i]) for i in range(3)])
    assert len(images) == 3 and images.sizes == files.sizes and images.bytes == files.bytes
    assert all(np.array_equal(images[i], files[i]) for i in range(3))


def test_images_of_a_batch_are_separate_pictures_named_by_their_number():
    batch, single = torch.rand(2, 3, 8, 9), torch.rand(1, 3, 5, 4)
    images = PictureBatch([batch, single])
    assert images.name == "images" and images.names == ["image 1", "image 2", "image 3"]
    assert images.sizes == [(8, 9), (8, 9), (5, 4)]
    assert all(np.array_equal(images[i], PictureBatch(batch)[i]) for i in range(2))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_grey_images_become_rgb_and_alpha_is_left_out(channels):
    image = torch.rand(1, channels, 6, 7)
    colour = image[:, :1].expand(-1, 3, -1, -1) if channels < 3 else image[:, :3]
    expected = (colour[0] * 255).round().permute(1, 2, 0).numpy()
    assert np.array_equal(PictureBatch(image)[0], expected)


def test_values_outside_0_to_1_are_clamped():
    image = torch.tensor([-3.0, 0.2, 7.0]).reshape(1, 1, 1, 3)
    assert PictureBatch(image)[0][0, :, 0].tolist() == [0, 51, 255]


def test_images_are_not_changed_and_not_shared():
    image = torch.rand(1, 3, 6, 7)
    before, pictures = image.clone(), PictureBatch(image)
    first = pictures[0].copy()
    assert torch.equal(image, before)
    image.zero_()
    assert np.array_equal(pictures[0], first)


def test_the_fingerprint_of_images_is_that_of_their_pixels():
    image = torch.rand(2, 3, 6, 7)
    before = PictureBatch(image).fingerprint
    assert PictureBatch(image.clone()).fingerprint == before
    grey = torch.rand(1, 1, 6, 7)
    assert PictureBatch(grey.reshape(1, 1, 7, 6)).fingerprint != PictureBatch(grey).fingerprint
    image[1, 2, 5, 6] = 1 - image[1, 2, 5, 6].round()
    assert PictureBatch(image).fingerprint != before


@pytest.mark.parametrize("images", [[], torch.rand(3, 4, 4), [torch.rand(1, 3, 4, 4), torch.rand(1, 5, 4, 4)]])
def test_what_is_no_batch_of_images_is_an_error(images):
    with pytest.raises(ValueError, match=r"images(\[1\])?: expected"):
        PictureBatch(images)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.6])
def test_a_split_gives_every_picture_to_one_side_and_meets_its_share(tmp_path, share):
    pictures = many(tmp_path, 200)
    training, validation = split(pictures, share, 5)
    assert sorted([*training.names, *validation.names]) == sorted(pictures.names)
    assert len(validation) == pytest.approx(200 * share, abs=3 * (200 * share * (1 - share)) ** 0.5)


def test_the_parts_of_a_split_are_the_pictures_they_name(tmp_path):
    pictures: Pictures = many(tmp_path, 9)
    parts: tuple[Pictures, Pictures] = split(pictures, 0.4, 1)
    for part in parts:
        assert [f"{part[i][0, 0, 0]}.png" for i in range(len(part))] == list(part.names)
        assert part.name == pictures.name and part.sizes == [(8, 9)] * len(part)
        assert part.fingerprint not in (pictures.fingerprint, parts[part is parts[0]].fingerprint)


def test_a_split_depends_on_the_seed_and_nothing_else(tmp_path):
    pictures = many(tmp_path, 30)
    first = split(pictures, 0.5, 0)[1]
    assert split(folder(tmp_path, memory=0), 0.5, 0)[1].names == first.names
    assert split(pictures, 0.5, 0)[1].fingerprint == first.fingerprint
    assert split(pictures, 0.5, 1)[1].names != first.names


def test_pictures_stay_on_their_side_when_others_are_added(tmp_path):
    before = split(many(tmp_path, 40), 0.3, 2)
    after = split(many(tmp_path, 60), 0.3, 2)
    for old, new in zip(before, after, strict=True):
        assert set(old.names) < set(new.names)


def test_the_fingerprint_of_a_part_is_that_of_its_own_pictures(tmp_path):
    names = ["3.png", "7.png"]

    def part() -> Subset:
        pictures = folder(tmp_path)
        return Subset(pictures, [pictures.names.index(name) for name in names])

    many(tmp_path, 9)
    before = part().fingerprint
    save(tmp_path / "1b.png", noise_picture(30, 30))  # moves the others on
    assert part().fingerprint == before
    (tmp_path / "8.png").unlink()
    assert part().fingerprint == before and part().fingerprint != folder(tmp_path).fingerprint
    save(tmp_path / "7.png", noise_picture(8, 10))
    assert part().fingerprint != before


def test_the_fingerprint_of_a_part_of_images_is_that_of_their_pixels():
    image = torch.rand(3, 3, 6, 7)
    before = Subset(PictureBatch(image), [0, 2]).fingerprint
    assert Subset(PictureBatch(torch.cat([image[:1], image[2:]])), [0, 1]).fingerprint == before
    image[2, 0, 0, 0] = 1 - image[2, 0, 0, 0].round()
    assert Subset(PictureBatch(image), [0, 2]).fingerprint != before


def test_small_pictures_are_all_trained_on_and_change_nothing_for_the_others(tmp_path):
    before = split(many(tmp_path, 9), 0.4, 1)[1].names
    for number in range(20):
        save(tmp_path / f"small{number}.png", noise_picture(7, 90))
    training, validation = split(folder(tmp_path), 0.4, 1, side=8)
    assert validation.names == before and len(training) == 29 - len(before)
    with pytest.raises(ValueError, match=r"pictures: expected at least 2 of 9x9 px or more, .*got 0"):
        split(folder(tmp_path), 0.4, 1, side=9)


@pytest.mark.parametrize("share", [1e-6, 1 - 1e-6])
def test_both_sides_of_a_split_have_a_picture(tmp_path, share):
    pictures = many(tmp_path, 2)
    assert [len(part) for part in split(pictures, share, 0)] == [1, 1]


def test_images_are_split_as_files_are():
    training, validation = split(PictureBatch(torch.rand(7, 3, 4, 4)), 0.4, 0)
    assert {*training.names, *validation.names} == {f"image {k}" for k in range(1, 8)}


def test_one_picture_cannot_be_split_and_a_share_is_a_part():
    one, two = (PictureBatch(torch.rand(count, 3, 4, 4)) for count in (1, 2))
    with pytest.raises(ValueError, match=r"pictures: expected at least 2, .*got 1"):
        split(one, 0.5, 0)
    for share in (0, 1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="share: expected"):
            split(two, share, 0)


@pytest.mark.parametrize(("size", "fits"), [((40, 64), True), ((64, 40), True), ((40, 60), False), ((20, 32), False)])
def test_a_picture_that_has_changed_its_size_is_an_error(tmp_path, size, fits):
    path = save(tmp_path / "a.png", noise_picture(64, 40))
    pictures = folder(tmp_path, memory=0)
    save(path, noise_picture(*size))
    if fits:
        assert pictures[0].shape[:2] == size
        return
    with pytest.raises(PictureError, match=rf"a\.png: has {min(size)}x{max(size)} px, and had 40x64 px"):
        pictures[0]
