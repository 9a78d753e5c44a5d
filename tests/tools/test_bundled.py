"""What is bundled is what was measured, and the written pages say so."""

from __future__ import annotations

import pytest
import skimage.data
import torch

from progressive_upsampling import core
from progressive_upsampling.core.checkpoint import bundled

from .quality.blocks import differences
from .quality.ledger import PHOTOGRAPHS, read_ledger, stale
from .quality.models import Bundled, bundled_models
from .quality.pages import JSON, PEERS, ROOT, pages
from .quality.photographs import figures

LARGEST = 30e6  # bytes of all bundled weights together
ALLOWED = 0.02  # dB between machines and versions of torch


def test_every_bundled_model_has_been_measured_with_the_weights_that_it_has() -> None:
    """If not: `python -m tests.tools.quality measure --data FOLDER`."""
    assert stale(read_ledger(JSON), bundled_models()) == []


def test_the_written_pages_say_what_was_measured() -> None:
    """If not: `python -m tests.tools.quality render`."""
    models, ledger = bundled_models(), read_ledger(JSON)
    assert stale(ledger, models) == []
    for path, text in pages(ROOT, models, ledger, PEERS).items():
        assert differences(path, text) == []


@pytest.mark.parametrize("name", bundled())
def test_a_bundled_model_does_to_photographs_what_it_did(name: str) -> None:
    """A changed weight or code path shows here. If it is meant: `measure --again --only NAME`."""
    stored = read_ledger(JSON)["models"].get(name, {}).get(PHOTOGRAPHS, {})
    found = figures(Bundled(name))
    assert found.keys() == stored.keys()
    assert found == pytest.approx(stored, abs=ALLOWED)


@pytest.mark.parametrize("noise", ["learned", "uniform"])
@pytest.mark.parametrize("name", ["chelsea", "coffee"])
def test_texture_grows_with_the_strength_of_the_noise(name: str, noise: str) -> None:
    photo = torch.from_numpy(getattr(skimage.data, name)()[100:356, 100:356]).movedim(-1, 0)[None] / 255
    small, chain = core.resample(photo, (64, 64)).clamp(0, 1), core.Chain.from_pretrained()
    without = chain(small, 4, dtype="fp32")
    effects = [
        float((chain(small, 4, detail=1.0, strength=s, noise=noise, seed=3, dtype="fp32") - without).square().mean())
        for s in (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0)
    ]
    assert effects[0] == 0 and effects == sorted(effects)


def test_the_bundled_weights_are_small_together() -> None:
    assert sum(model.path.stat().st_size for model in bundled_models()) <= LARGEST
