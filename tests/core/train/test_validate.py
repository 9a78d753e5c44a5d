from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from progressive_upsampling.core.chain import Chain
from progressive_upsampling.core.metrics import psnr, ssim
from progressive_upsampling.core.perceptual_distance import PerceptualDistance
from progressive_upsampling.core.resample import resample
from progressive_upsampling.core.squeezenet import SqueezeNet
from progressive_upsampling.core.train.degrade import matlab_imresize
from progressive_upsampling.core.train.pictures import PictureFolder
from progressive_upsampling.core.train.validate import BEST_PSNR, fewest_pixels, score, subject, validate

from .conftest import noise_picture, save, soft_picture, tiny_chain


def enlarge(stages: int) -> Callable[[torch.Tensor], list[torch.Tensor]]:
    """A chain at birth, which is bicubic."""
    chain = Chain(tiny_chain(1)).eval()
    return lambda image: chain.stages_of(image, scale=2**stages, dtype="fp32")


def test_validation_measures_every_stage_by_the_protocol(photos):
    found = validate(enlarge(2), PictureFolder(photos, 1 << 20), (2, 4))
    sums = dict.fromkeys(found, 0.0)
    for path in sorted(photos.iterdir()):
        picture = torch.from_numpy(PictureFolder(path.parent, 0)[sorted(photos.iterdir()).index(path)].copy())
        H, W = picture.shape[0] // 4 * 4, picture.shape[1] // 4 * 4
        top, left = (picture.shape[0] - H) // 2, (picture.shape[1] - W) // 2
        truth = picture[top : top + H, left : left + W].permute(2, 0, 1)[None]
        middle = matlab_imresize(truth, scale=0.5)
        image = matlab_imresize(truth, scale=0.25).float() / 255
        for k, target in enumerate((middle, truth)):  # at birth the chain is bicubic
            image = resample(image, tuple(target.shape[-2:])).clamp(0, 1)
            factor = 2 ** (k + 1)
            sums[f"x{factor}"] += float(psnr(image, target.float() / 255, crop=factor)) / 3
            sums[f"x{factor}_ssim"] += float(ssim(image, target.float() / 255, crop=factor)) / 3
    assert found == pytest.approx(sums, abs=1e-3) and list(found) == ["x2", "x2_ssim", "x4", "x4_ssim"]


def test_validation_leaves_out_what_it_cannot_use(photos, tmp_path):
    before = validate(enlarge(1), PictureFolder(photos, 0), (2,))
    save(photos / "small.png", noise_picture(7, 90))
    (photos / "broken.png").write_bytes((photos / "0.png").read_bytes()[:3000])
    assert validate(enlarge(1), PictureFolder(photos, 0), (2,)) == before


def test_a_picture_met_exactly_does_not_make_the_mean_infinite(tmp_path):
    save(tmp_path / "v" / "flat.png", noise_picture(1, 1).repeat(40, 0).repeat(40, 1))
    found = validate(enlarge(1), PictureFolder(tmp_path / "v", 0), (2,))
    assert found == {"x2": BEST_PSNR, "x2_ssim": pytest.approx(1.0)}


@pytest.mark.parametrize("factors", [(2, 4, 8), (3,), (4,)])
def test_every_scale_of_a_picture_is_a_reduction_of_its_middle(tmp_path, factors):
    save(tmp_path / "v" / "a.png", soft_picture(101, 67))
    measured = subject(PictureFolder(tmp_path / "v", 0), 0, factors, side=64)
    side = 64 // factors[-1] * factors[-1]
    assert [tuple(x.shape[2:]) for x in (measured.input, *measured.targets)] == [
        (side * factor // factors[-1],) * 2 for factor in (1, *factors)
    ]
    truth = (measured.targets[-1] * 255).round().to(torch.uint8)
    assert torch.equal(measured.input, matlab_imresize(truth, scale=1 / factors[-1]).float() / 255)


def test_pd_squeeze_is_measured_where_there_is_something_to_measure_it_by(photos):
    torch.manual_seed(0)
    distance = PerceptualDistance(SqueezeNet())
    plain = validate(enlarge(1), PictureFolder(photos, 0), (2,))
    found = validate(enlarge(1), PictureFolder(photos, 0), (2,), distance=distance)
    expected = []
    for index in range(3):
        measured = subject(PictureFolder(photos, 0), index, (2,))
        output = enlarge(1)(measured.input)[0]
        expected.append(float(distance.measure(output, measured.targets[0], crop=2)))
    assert found == plain | {"x2_pd": pytest.approx(sum(expected) / 3)} and min(expected) > 0


def test_a_score_is_higher_for_the_better_model():
    values = {"x2": 30.0, "x2_ssim": 0.9, "x2_pd": 0.2, "x4": 20.0, "x4_ssim": 0.7, "x4_pd": 0.4}
    assert [score(values, select) for select in ("psnr", "ssim", "pd")] == [25.0, 0.8, -0.3]


@pytest.mark.parametrize("pd", [False, True])
@pytest.mark.parametrize("factors", [(1,), (2,), (3,), (4,), (2, 4, 8)])
def test_the_smallest_picture_that_is_let_in_can_be_measured_and_a_smaller_one_is_refused(tmp_path, factors, pd):
    distance = PerceptualDistance(SqueezeNet()) if pd else None
    side = fewest_pixels(factors, pd) * factors[-1]

    def nothing(image: torch.Tensor) -> list[torch.Tensor]:
        return [torch.zeros(1, 3, *(image.shape[k] * factor for k in (2, 3))) for factor in factors]

    save(tmp_path / "v" / "a.png", noise_picture(side, side))
    assert f"x{factors[0]}_ssim" in validate(nothing, PictureFolder(tmp_path / "v", 0), factors, distance=distance)
    save(tmp_path / "v" / "a.png", noise_picture(side, side - 1))
    with pytest.raises(ValueError, match=f"val: expected pictures of at least {side}x{side} px"):
        validate(nothing, PictureFolder(tmp_path / "v", 0), factors, distance=distance)
