from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from ..core.tiny import picture, random_chain
from .slider import PLACES, main, variants


@torch.no_grad()
def test_every_place_of_the_slider_gives_another_picture() -> None:
    chain, image = random_chain(2), picture(13, 10)
    found = {name: method(image, 4) for name, method in variants(chain).items()}
    assert torch.equal(found["detail 0"], chain(image, scale=4, dtype="fp32"))
    assert torch.equal(found["detail 1"], chain(image, scale=4, detail=1.0, dtype="fp32"))
    for one, other in itertools.pairwise(found):
        assert not torch.equal(found[one], found[other]), f"{one}, {other}"


def test_the_tool_prints_a_table(weights: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(data / "Set5"), "--scale", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 1 + len(PLACES) and lines[-1].startswith("| detail 1 |")
