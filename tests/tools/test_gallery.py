from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from .gallery import SUBJECTS, main, truth_of


@pytest.mark.parametrize("name", SUBJECTS)
def test_every_subject_is_a_square_of_colour(name: str) -> None:
    side = SUBJECTS[name][1][2]
    assert truth_of(name).shape == (1, 3, side, side) and truth_of(name).float().std() > 10


@pytest.mark.slow
def test_a_sheet_has_four_columns(weights: Path, tmp_path: Path) -> None:
    assert main(["--only", "chelsea", "--output", str(tmp_path / "gallery")]) == 0
    with Image.open(tmp_path / "gallery" / "chelsea.jpg") as sheet:
        assert sheet.width > 4 * 400 and sheet.height > 3 * 400
    assert [path.name for path in (tmp_path / "gallery").iterdir()] == ["chelsea.jpg"]
