from __future__ import annotations

import pytest
import torch
from torch import Tensor

from progressive_upsampling.core.chain import Chain
from progressive_upsampling.core.resample import resample
from progressive_upsampling.core.train import glimpse as module
from progressive_upsampling.core.train.glimpse import Glimpse
from progressive_upsampling.core.train.pictures import PictureBatch, PictureFolder
from progressive_upsampling.core.train.samples import Sample, sample_sheet
from progressive_upsampling.core.train.task import ChainTask

from .conftest import noise_picture, save, soft_picture, tiny_chain


def picture(height: int, width: int) -> Tensor:
    return torch.from_numpy(noise_picture(height, width)).movedim(-1, 0)[None] / 255


def moved(chain: Chain) -> Chain:
    """Another model, whose results differ."""
    with torch.no_grad():
        for parameter in chain.parameters():
            parameter.add_(0.05)
    return chain


@pytest.mark.parametrize(("height", "width"), [(257, 129), (97, 301), (64, 64)])
@pytest.mark.parametrize("stages", [1, 3])
def test_it_shows_one_place_before_now_and_as_it_should_be(
    height: int, width: int, stages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Sample] = []
    monkeypatch.setattr(module, "sample_sheet", lambda rows, side: seen.extend(rows) or sample_sheet(rows, side=side))
    task, chain = ChainTask(tiny_chain()), Chain(tiny_chain()).eval()
    image, factor = picture(height, width), 2**stages
    glimpse = Glimpse(task, PictureBatch(image), chain, {1, stages}, "fp32")
    first = glimpse.sheet(chain, stages)
    now = glimpse.sheet(moved(chain), stages)
    assert first.shape == now.shape and first.shape[:2] == (1, 3)
    assert not torch.equal(first, now)
    (same, other) = seen
    side = min(128, height // factor * factor, width // factor * factor)
    for sample in seen:
        assert list(sample.versions) == ["before", "now", "truth"]
        assert all(tuple(version.shape) == (1, 3, side, side) for version in sample.versions.values())
    assert torch.equal(same.versions["before"], same.versions["now"])
    assert torch.equal(same.versions["before"], other.versions["before"])
    assert not torch.equal(other.versions["before"], other.versions["now"])
    # An untrained chain interpolates, so that another place of the input would show.
    small = resample(other.versions["truth"], (side // factor, side // factor))
    again = resample(small, (side, side))
    error = (other.versions["before"] - again).abs().mean()
    for axis in (2, 3):
        assert error < 0.3 * (other.versions["before"].roll(factor, axis) - again).abs().mean()
    windows = image.unfold(2, side, 1).unfold(3, side, 1).movedim(1, -3)  # [1, y, x, 3, side, side]
    assert (windows == other.versions["truth"][:, None, None]).flatten(3).all(-1).any()


def test_it_looks_for_detail(monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.full((1, 3, 384, 384), 0.5)
    image[..., 200:330, 40:170] = torch.rand(3, 130, 130, generator=torch.Generator().manual_seed(0))
    seen: list[Sample] = []
    monkeypatch.setattr(module, "sample_sheet", lambda rows, side: seen.extend(rows) or sample_sheet(rows, side=side))
    chain = Chain(tiny_chain()).eval()
    Glimpse(ChainTask(tiny_chain()), PictureBatch(image), chain, [1], "fp32").sheet(chain, 1)
    assert seen[0].versions["truth"].std() > 0.2


def test_pictures_that_will_not_do_are_passed_over(tmp_path) -> None:
    save(tmp_path / "a.png", soft_picture(9, 9))
    (tmp_path / "b.png").write_bytes(save(tmp_path / "whole.png", soft_picture(90, 90)).read_bytes()[:-500])
    (tmp_path / "whole.png").unlink()
    task, chain = ChainTask(tiny_chain()), Chain(tiny_chain()).eval()
    with pytest.raises(ValueError, match=r"data: none of the pictures of .* can be decoded"):
        Glimpse(task, PictureFolder(tmp_path, 0), chain, [1], "fp32")
    save(tmp_path / "c.png", soft_picture(40, 50))
    assert Glimpse(task, PictureFolder(tmp_path, 0), chain, [1], "fp32").sheet(chain, 1).shape[0] == 1
