"""The bicubic rows that every super-resolution paper begins its tables with.

PU_BENCHMARK_DATA names a folder that holds the folders Set5, Set14 and B100.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from torch import Tensor

from progressive_upsampling.core.evaluate import evaluate_folder
from progressive_upsampling.core.resample import resample

DATA = os.environ.get("PU_BENCHMARK_DATA")
PUBLISHED = {  # PSNR on Y for ×2, ×3, ×4
    "Set5": (33.66, 30.39, 28.42),
    "Set14": (30.24, 27.55, 26.00),
    "B100": (29.56, 27.21, 25.96),
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA, reason="PU_BENCHMARK_DATA is not set to a folder with Set5, Set14 and B100"),
]


def resampled(lr: Tensor, scale: int) -> Tensor:
    return resample(lr, (lr.shape[2] * scale, lr.shape[3] * scale), "bicubic")


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", PUBLISHED)
def test_bicubic_row_is_the_published_one(name: str, scale: int) -> None:
    result = evaluate_folder(Path(DATA or ".") / name, scale, {"resample": resampled})
    published = PUBLISHED[name][scale - 2]
    for method in ("bicubic", "resample"):
        assert result.mean(method).psnr == pytest.approx(published, abs=0.03)
