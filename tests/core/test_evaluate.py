from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from torch import Tensor

from progressive_upsampling.core.evaluate import Evaluation, evaluate_folder, read_8bit
from progressive_upsampling.core.metrics import psnr, radial_spectrum_error, ssim
from progressive_upsampling.core.perceptual_distance import PerceptualDistance
from progressive_upsampling.core.pictures import write_picture
from progressive_upsampling.core.resample import resample
from progressive_upsampling.core.squeezenet import SqueezeNet
from progressive_upsampling.core.train.degrade import matlab_imresize


def bilinear(lr: Tensor, scale: int) -> Tensor:
    return resample(lr, (lr.shape[2] * scale, lr.shape[3] * scale), "bilinear")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A colour PNG and a grey TIFF of awkward sizes, and files that are no pictures."""
    Image.fromarray(skimage.data.astronaut()[100:189, 150:251]).save(tmp_path / "a.PNG")
    Image.fromarray(skimage.data.camera()[200:267, 200:290]).save(tmp_path / "b.tif")
    (tmp_path / "licences.csv").write_text("picture,licence\n")
    (tmp_path / "more.png").mkdir()
    return tmp_path


def tensor(path: Path) -> Tensor:
    pixels = np.atleast_3d(np.array(Image.open(path)))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


@pytest.fixture
def judge() -> PerceptualDistance:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return PerceptualDistance(SqueezeNet())


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("channel", ["y", "rgb"])
def test_rows_follow_the_protocol(folder: Path, scale: int, channel: str) -> None:
    result = evaluate_folder(folder, scale, {"bilinear": bilinear}, channel=channel)
    assert [(row.picture, row.method) for row in result.rows] == [
        ("a.PNG", "bicubic"),
        ("a.PNG", "bilinear"),
        ("b.tif", "bicubic"),
        ("b.tif", "bilinear"),
    ]
    truth = tensor(folder / "a.PNG")[..., : 89 - 89 % scale, : 101 - 101 % scale]
    lr = matlab_imresize(truth, scale=1 / scale)
    for row, sr in (
        (result.rows[0], matlab_imresize(lr, scale=scale) / 255.0),
        (result.rows[1], bilinear(lr / 255.0, scale)),
    ):
        options = {"channel": channel, "crop": scale}
        assert row.psnr == pytest.approx(float(psnr(sr, truth / 255.0, **options)), abs=1e-9)
        assert row.ssim == pytest.approx(float(ssim(sr, truth / 255.0, **options)), abs=1e-9)
        spectrum = float(radial_spectrum_error(sr, truth / 255.0, **options))
        assert row.spectrum == pytest.approx(spectrum, abs=1e-9)


def test_a_reduction_that_is_not_rounded_is_enlarged_as_it_is(folder: Path) -> None:
    seen: list[Tensor] = []

    def remember(lr: Tensor, scale: int) -> Tensor:
        seen.append(lr)
        return bilinear(lr, scale)

    result = evaluate_folder(folder, 3, {"bilinear": remember}, rounded=False)
    assert not result.rounded and evaluate_folder(folder, 3, {}).rounded
    truth = tensor(folder / "a.PNG")[..., :87, :99]
    lr = matlab_imresize(truth.double(), scale=1 / 3)
    torch.testing.assert_close(seen[0], (lr / 255.0).float())
    assert float((seen[0] * 255.0 - (seen[0] * 255.0).round()).abs().max()) > 0.4
    sr = matlab_imresize(lr, scale=3).float() / 255.0
    assert result.rows[0].psnr == pytest.approx(float(psnr(sr, truth / 255.0, crop=3)), abs=1e-9)


def test_grey_is_seen_as_rgb_and_compared_as_grey(folder: Path) -> None:
    seen: list[Tensor] = []

    def tinted(lr: Tensor, scale: int) -> Tensor:
        seen.append(lr)
        return bilinear(lr, scale) + torch.tensor([-0.1, 0.0, 0.1]).view(1, 3, 1, 1)

    result = evaluate_folder(folder, 2, {"tinted": tinted, "bilinear": bilinear})
    grey = {row.method: row for row in result.rows if row.picture == "b.tif"}
    assert torch.equal(seen[1][:, 0], seen[1][:, 1])
    assert torch.equal(seen[1][:, 0], seen[1][:, 2])
    assert grey["tinted"].psnr == pytest.approx(grey["bilinear"].psnr, abs=0.01)
    truth = tensor(folder / "b.tif")[:, :1, :66, :90]
    expected = psnr(bilinear(matlab_imresize(truth, scale=0.5) / 255.0, 2), truth / 255.0, crop=2)
    assert grey["bilinear"].psnr == pytest.approx(float(expected), abs=0.01)


@pytest.mark.parametrize("channel", ["y", "rgb"])
def test_distance_is_that_of_the_8_bit_rgb_result_without_its_border(
    folder: Path, judge: PerceptualDistance, channel: str
) -> None:
    result = evaluate_folder(folder, 3, {"bilinear": bilinear}, channel=channel, distance=judge)
    for row in result.rows:
        truth = tensor(folder / row.picture)
        truth = truth[..., : truth.shape[2] // 3 * 3, : truth.shape[3] // 3 * 3]
        lr = matlab_imresize(truth, scale=1 / 3)
        sr = matlab_imresize(lr, scale=3.0) / 255.0 if row.method == "bicubic" else bilinear(lr / 255.0, 3)
        levels = (sr.clamp(0, 1) * 255).round() / 255
        a, b = (x[..., 3:-3, 3:-3].expand(-1, 3, -1, -1) for x in (levels, truth / 255.0))
        assert row.distance == pytest.approx(float(judge(a, b)), rel=1e-4)
    distances = [row.distance for row in result.rows]
    assert len(set(distances)) == 4 and min(distances) > 0
    assert result.mean("bilinear").distance == pytest.approx((distances[1] + distances[3]) / 2)
    content = json.loads(result.to_json())
    assert content["rows"][1]["distance"] == distances[1]
    assert content["mean"]["bicubic"]["distance"] == result.mean("bicubic").distance


def test_without_a_judge_there_is_no_distance(folder: Path) -> None:
    result = evaluate_folder(folder, 2, {})
    assert [row.distance for row in result.rows] == [None, None] and result.mean("bicubic").distance is None
    content = json.loads(result.to_json())
    assert content["rows"][0]["distance"] is None and content["mean"]["bicubic"]["distance"] is None


def test_picture_too_small_for_the_judge_is_named(folder: Path, judge: PerceptualDistance) -> None:
    Image.fromarray(skimage.data.astronaut()[100:124, 150:197]).save(folder / "small.png")
    assert len(evaluate_folder(folder, 2, {}).rows) == 3
    with pytest.raises(ValueError, match=r"small\.png: expected at least 25 pixels a side, got 24 x 47"):
        evaluate_folder(folder, 2, {}, distance=judge)


def test_mean_is_that_of_the_rows(folder: Path) -> None:
    result = evaluate_folder(folder, 2, {"bilinear": bilinear})
    rows = [row for row in result.rows if row.method == "bilinear"]
    mean = result.mean("bilinear")
    assert mean.picture == "mean"
    assert mean.psnr == pytest.approx((rows[0].psnr + rows[1].psnr) / 2)
    assert mean.ssim == pytest.approx((rows[0].ssim + rows[1].ssim) / 2)
    with pytest.raises(ValueError, match="method: expected one of 'bicubic', 'bilinear', got str 'edsr'"):
        result.mean("edsr")


def test_bicubic_is_computed_alone(folder: Path) -> None:
    assert evaluate_folder(folder, 2, {}).methods == ("bicubic",)


def test_json_holds_rows_and_means(folder: Path) -> None:
    result = evaluate_folder(folder, 2, {"bilinear": bilinear})
    content = json.loads(result.to_json())
    assert content["scale"] == 2
    assert content["channel"] == "y"
    assert content["rounded"] is True
    assert content["folder"] == folder.name
    assert content["methods"] == ["bicubic", "bilinear"]
    assert content["rows"][1]["psnr"] == result.rows[1].psnr
    assert content["mean"]["bilinear"]["ssim"] == result.mean("bilinear").ssim


def test_infinite_psnr_is_null_in_json(tmp_path: Path) -> None:
    Image.new("RGB", (33, 47), (10, 20, 30)).save(tmp_path / "flat.png")
    result = evaluate_folder(tmp_path, 2, {})
    assert result.rows[0].psnr == math.inf
    assert json.loads(result.to_json())["rows"][0]["psnr"] is None


def test_progress_counts_every_picture_and_method_and_can_cancel(folder: Path) -> None:
    steps: list[tuple[float, float]] = []

    def on_step(done: float, total: float, preview: Tensor | None) -> None:
        assert preview is not None
        assert preview.min() >= 0
        assert preview.max() <= 1
        steps.append((done, total))
        if len(steps) == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        evaluate_folder(folder, 2, {"bilinear": bilinear}, on_step=on_step)
    assert steps == [(1, 4), (2, 4), (3, 4)]


def bicubic_of(path: Path) -> Evaluation:
    return evaluate_folder(path.parent, 2, {})


@pytest.mark.parametrize("mode", ["RGBA", "P", "LA", "I;16"])
def test_other_modes_are_read_as_8bit_colour_or_grey(mode: str, tmp_path: Path) -> None:
    colour = Image.fromarray(skimage.data.astronaut()[100:133, 150:197])
    (tmp_path / "plain").mkdir()
    (tmp_path / "other").mkdir()
    if mode == "I;16":
        levels = np.array(colour.convert("L"))
        Image.fromarray(levels.astype(np.uint16) * 257).save(tmp_path / "other" / "p.png")
        Image.fromarray(levels).save(tmp_path / "plain" / "p.png")
    elif mode == "P":
        palette = colour.quantize(64)
        palette.save(tmp_path / "other" / "p.png")
        palette.convert("RGB").save(tmp_path / "plain" / "p.png")
    else:
        colour.convert(mode[:-1]).save(tmp_path / "plain" / "p.png")
        with_alpha = colour.convert(mode)
        with_alpha.putalpha(7)
        with_alpha.save(tmp_path / "other" / "p.png")
    plain, other = (bicubic_of(tmp_path / name / "p.png") for name in ("plain", "other"))
    assert other.rows[0].psnr == plain.rows[0].psnr


@pytest.mark.parametrize("content", [b"no picture", b"", "cut"])
def test_file_that_cannot_be_read_is_named(folder: Path, content: bytes | str) -> None:
    bad = folder / "zz.png"
    bad.write_bytes((folder / "a.PNG").read_bytes()[:5000] if isinstance(content, str) else content)
    with pytest.raises(ValueError, match=re.escape(f"{bad}: ")):
        evaluate_folder(folder, 2, {})


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_are_rounded_to_8(tmp_path: Path, suffix: str) -> None:
    levels = torch.tensor([0, 128, 129, 200, 40_000, 65_535]).reshape(1, 1, 2, 3).expand(1, 3, 2, 3)
    write_picture(tmp_path / f"p.{suffix}", levels / 65_535, bits=16)
    expected = (levels.double() / 257).round().byte()
    assert torch.equal(read_8bit(tmp_path / f"p.{suffix}"), expected)


def test_pictures_of_floating_point_are_refused(folder: Path) -> None:
    Image.fromarray(np.full((40, 40), 0.5, np.float32)).save(folder / "float.tif")
    with pytest.raises(ValueError, match=r"float\.tif: .*floating-point"):
        evaluate_folder(folder, 2, {})


def test_hidden_files_are_no_pictures(folder: Path) -> None:
    before = evaluate_folder(folder, 2, {})
    (folder / "._a.PNG").write_bytes(b"what macOS leaves on other file systems")
    assert [row.picture for row in evaluate_folder(folder, 2, {}).rows] == [row.picture for row in before.rows]


def test_too_small_picture_is_named(folder: Path) -> None:
    Image.new("RGB", (14, 47)).save(folder / "tiny.png")
    with pytest.raises(ValueError, match=r"tiny\.png: expected at least 15 pixels a side, got 47 x 14"):
        evaluate_folder(folder, 2, {})


def test_folder_without_pictures_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="folder: expected pictures"):
        evaluate_folder(tmp_path, 2, {})
    with pytest.raises(ValueError, match="folder: expected a folder of pictures"):
        evaluate_folder(tmp_path / "missing", 2, {})


@pytest.mark.parametrize("scale", [0, 1, -1])
def test_impossible_scale_is_named(folder: Path, scale: int) -> None:
    with pytest.raises(ValueError, match=f"scale: expected an integer >= 2, got {scale}"):
        evaluate_folder(folder, scale, {})


def test_fractional_scale_is_a_type_error(folder: Path) -> None:
    with pytest.raises(TypeError, match="scale: expected an integer"):
        evaluate_folder(folder, 2.5, {})


def test_bicubic_cannot_be_replaced(folder: Path) -> None:
    with pytest.raises(ValueError, match="methods: expected names other than 'bicubic'"):
        evaluate_folder(folder, 2, {"bicubic": bilinear})


def test_method_that_returns_another_shape_or_nan_is_named(folder: Path) -> None:
    with pytest.raises(ValueError, match=re.escape("mine: expected a result [1, 3, 88, 100], got (1, 3, 44, 50)")):
        evaluate_folder(folder, 2, {"mine": lambda lr, scale: lr})
    with pytest.raises(ValueError, match="mine: expected finite values, got NaN"):
        evaluate_folder(folder, 2, {"mine": lambda lr, scale: bilinear(lr, scale) * math.nan})


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "TIFF", "webp", "jpg", "jpeg"])
def test_every_format_is_read(suffix: str, tmp_path: Path) -> None:
    picture = Image.fromarray(skimage.data.astronaut()[100:133, 150:197])
    picture.save(tmp_path / f"p.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    Image.open(tmp_path / f"p.{suffix}").save(tmp_path / "same.png")
    rows = evaluate_folder(tmp_path, 2, {}).rows
    assert [row.picture for row in rows] == [f"p.{suffix}", "same.png"]
    assert rows[0].psnr == rows[1].psnr
