from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor

from progressive_upsampling.core.denoise import denoise
from progressive_upsampling.core.evaluate_denoising import NOISY, blind, evaluate_denoising
from progressive_upsampling.core.perceptual_distance import PerceptualDistance
from progressive_upsampling.core.squeezenet import SqueezeNet

from .tiny import denoiser


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A colour and a grey picture of awkward sizes."""
    Image.fromarray(skimage.data.astronaut()[100:189, 150:251]).save(tmp_path / "a.png")
    Image.fromarray(skimage.data.camera()[200:267, 200:290]).save(tmp_path / "b.tif")
    return tmp_path


def pixels(path: Path) -> np.ndarray:
    return np.array(Image.open(path).convert("RGB"))


def test_noise_has_the_sigma_and_is_neither_clipped_nor_quantised(folder: Path) -> None:
    seen: list[Tensor] = []
    evaluate_denoising(folder, 50, {"seen": lambda noisy, sigma: seen.append(noisy) or noisy})
    truth = torch.from_numpy(pixels(folder / "a.png")).permute(2, 0, 1)[None] / 255.0
    noise = (seen[0] - truth) * 255.0
    assert float(noise.std()) == pytest.approx(50, rel=0.02) and abs(float(noise.mean())) < 1.0
    assert float(seen[0].min()) < -0.1 and float(seen[0].max()) > 1.1
    assert float(((seen[0] * 255).round() - seen[0] * 255).abs().mean()) > 0.2
    assert float(torch.corrcoef(noise[0].flatten(1)).fill_diagonal_(0).abs().max()) < 0.05


def test_figures_are_of_the_clipped_8_bit_rgb_result_over_the_whole_picture(folder: Path) -> None:
    results: dict[str, Tensor] = {}

    def half(noisy: Tensor, sigma: float) -> Tensor:
        assert sigma == pytest.approx(25 / 255)
        results[str(len(results))] = noisy
        return 0.5 * noisy + 0.3

    result = evaluate_denoising(folder, 25, {"half": half})
    assert [(row.picture, row.method) for row in result.rows] == [
        ("a.png", NOISY),
        ("a.png", "half"),
        ("b.tif", NOISY),
        ("b.tif", "half"),
    ]
    truth = pixels(folder / "a.png")
    for row, image in ((result.rows[0], results["0"]), (result.rows[1], 0.5 * results["0"] + 0.3)):
        levels = np.floor(image[0].permute(1, 2, 0).double().clamp(0, 1).numpy() * 255 + 0.5).astype(np.uint8)
        assert row.psnr == pytest.approx(peak_signal_noise_ratio(truth, levels), abs=1e-4)
    # of noise that is clipped, the published 20.17 dB of 25/255 become a little more
    assert 20.1 < result.mean(NOISY).psnr < 21.5


def test_a_picture_has_the_same_noise_whichever_others_are_measured(folder: Path) -> None:
    whole = evaluate_denoising(folder, 25, {})
    for names in (["b.tif"], ["b"]):
        part = evaluate_denoising(folder, 25, {}, names=names)
        assert [row.picture for row in part.rows] == ["b.tif"]
        assert part.rows[0].psnr == whole.rows[1].psnr
    assert evaluate_denoising(folder, 25, {}, seed=1).rows[0].psnr != whole.rows[0].psnr


def test_blind_is_the_denoiser_without_a_conditioning_image(folder: Path) -> None:
    model, seen = denoiser(), []
    clean = blind(model, dtype="fp32", tile=32)

    def watched(noisy: Tensor, sigma: float) -> Tensor:
        seen.append(noisy)
        return clean(noisy, sigma)

    result = evaluate_denoising(folder, 25, {"small": watched})
    level = torch.full((1, 1, 89, 101), 25 / 255)
    expected = denoise(model, seen[0], level, None, dtype="fp32")
    assert float((clean(seen[0], 25 / 255) - expected).abs().max()) < 1e-5
    assert result.rows[1].psnr != result.rows[0].psnr


def test_means_and_json_hold_what_the_rows_say(folder: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        judge = PerceptualDistance(SqueezeNet())
    result = evaluate_denoising(folder, 15, {"same": lambda noisy, sigma: noisy}, distance=judge)
    content = json.loads(result.to_json())
    assert (content["folder"], content["sigma"]) == (folder.name, 15)
    assert content["mean"]["same"]["psnr"] == pytest.approx(content["mean"][NOISY]["psnr"])
    rows = [row for row in result.rows if row.method == "same"]
    assert result.mean("same").distance == pytest.approx(math.fsum(row.distance for row in rows) / 2)
    with pytest.raises(ValueError, match="method: expected one of"):
        result.mean("other")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": 0}, "sigma"),
        ({"names": ["a", "c.png"]}, r"names: .*'c\.png' \(1 not there\)"),
        ({"methods": {NOISY: lambda noisy, sigma: noisy}}, "always computed"),
        ({"methods": {"small": lambda noisy, sigma: noisy[..., 1:]}}, r"small: expected a result \[1, 3, 89, 101\]"),
        ({"methods": {"nan": lambda noisy, sigma: noisy * math.nan}}, "nan: expected finite"),
    ],
)
def test_what_cannot_be_is_named(folder: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_denoising(folder, **({"sigma": 25, "methods": {}} | options))
