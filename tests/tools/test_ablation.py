from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from progressive_upsampling.core.attention import WindowAttention
from progressive_upsampling.core.chain import Chain

from ..core.tiny import picture, random_chain
from .ablation import ATTENTIONS, changed, main, variants, without


@pytest.fixture(scope="module")
def chain() -> Chain:
    return random_chain(2)


@pytest.mark.parametrize(
    ("regression", "back_projection", "row"),
    [(True, True, "+ regression"), (False, True, "+ back-projection"), (False, False, "+ fusion")],
)
def test_every_part_changes_the_picture_and_one_row_is_the_chain(
    chain: Chain, regression: bool, back_projection: bool, row: str
) -> None:
    chain = changed(chain, regression, back_projection)
    image = picture(13, 10)
    with torch.no_grad():
        found = {name: method(image, 4) for name, method in variants(chain).items()}
    assert torch.equal(found[row], chain(image, scale=4, dtype="fp32"))
    assert all(result.shape == (1, 3, 52, 40) for result in found.values())
    for one, other in itertools.pairwise(found):
        assert not torch.equal(found[one], found[other]), f"{one}, {other}"
    assert all(not torch.equal(found[f"without {name}"], found["learned noise"]) for name in ATTENTIONS)


def test_switching_attention_off_leaves_the_chain_alone(chain: Chain) -> None:
    lame = without(chain, WindowAttention)
    assert not any(isinstance(module, WindowAttention) for module in lame.modules())
    assert any(isinstance(module, WindowAttention) for module in chain.modules())


def test_strips_and_whole_pictures_agree_without_attention(chain: Chain) -> None:
    lame, image = without(chain, WindowAttention).stage(1), picture(90, 40)
    whole, strips = (lame.regress(image, tile=tile, dtype="fp32") for tile in (512, 24))
    torch.testing.assert_close(whole, strips, atol=1e-5, rtol=0)


def test_the_tool_prints_a_table(weights: Path, data: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("1.png\n")
    assert main(["--data", str(data / "Set5"), "--scale", "2", "--list", str(tmp_path / "names.txt")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 1 + 8 + len(ATTENTIONS) and lines[2].startswith("| bicubic |")
