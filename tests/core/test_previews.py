"""The small pictures that a chain shows on its way."""

from __future__ import annotations

import pytest
from torch import Tensor

from progressive_upsampling.core import chain as chain_module
from progressive_upsampling.core.chain import Chain
from progressive_upsampling.core.preview import preview_of

from .tiny import picture, random_chain

Call = tuple[float, float, "Tensor | None"]


@pytest.fixture(scope="module")
def chain() -> Chain:
    """A small chain of two stages of which every part does something."""
    return random_chain()


def test_later_stages_count_for_more(chain: Chain) -> None:
    calls: list[Call] = []
    chain(picture(16, 16), 4, on_step=lambda *call: calls.append(call))
    previews = [call[0] / call[1] for call in calls if call[2] is not None]
    assert previews[1] == pytest.approx(0.2)  # 32² of 32² + 64² pixels


@pytest.mark.parametrize(
    ("size", "expected"),
    [((33, 47), (33, 47)), ((2, 1024), (1, 512)), ((1, 3000), (1, 512)), ((600, 300), (512, 256)), ((1, 1), (1, 1))],
)
def test_a_preview_is_the_first_image_at_most_512_pixels_a_side(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    for channels in (1, 3, 4):
        preview = preview_of(picture(*size, batch=2, channels=channels))
        assert preview.shape == (1, min(channels, 3), *expected)
        assert preview.isfinite().all() and preview.min() >= 0 and preview.max() <= 1


def test_previews_that_nobody_sees_are_not_made(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    monkeypatch.setattr(chain_module, "preview_of", lambda image: shown.append(image.shape) or image[:1])
    chain(picture(8, 8), 4)
    assert not shown
    chain(picture(8, 8), 4, on_step=lambda *call: None)
    assert shown
