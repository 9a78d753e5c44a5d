"""Steps in which a network's numbers overflow: left out and counted, wherever in the forward pass it happens."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch

from progressive_upsampling.core.train.config import LossConfig, PhaseConfig
from progressive_upsampling.core.train.loop import MAX_BAD_STEPS, Trainer

from .conftest import tiny_chain, tiny_config

RUNS = {
    "chain": {"chain": tiny_chain(1)},
    "refined": {"chain": tiny_chain(1), "loss": LossConfig(judge="refined", ssim=0.1, spectrum=0.1)},
    "upsampler": {
        "upsampler": tiny_chain(1).stages[0].upsampler,
        "loss": LossConfig(upsampler=0, refine=0, blind=0, controller=0, ssim=0.1),
    },
    "denoiser": {
        "denoiser": tiny_chain(1).stages[0].denoiser,
        "loss": LossConfig(output=0, upsampler=0, refine=0, blind=1, controller=0, ssim=0.1),
    },
}


def overflowing(photos: Path, out: Path, kind: str, layer: str, value: float, bad: range, steps: int) -> Trainer:
    """A run in some steps of which one layer, of the first stage or of all there is, gives values not finite."""
    stages = 1 if kind in ("upsampler", "denoiser") else 2
    phase = PhaseConfig(stages=stages, steps=steps, crop=12, batch=2, warmup=0, noisy=0.5, accumulate=2)
    trainer = Trainer(tiny_config(**RUNS[kind], phases=(phase,), validate_every=0, save_every=0), photos, out)

    def spoilt(_: torch.nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        return output * value if trainer.step in bad else output

    trainer.model.get_submodule(layer).register_forward_hook(spoilt)
    return trainer


LAYERS = [
    ("chain", "stages.0.upsampler"),
    ("chain", "stages.0.denoiser.unet"),
    ("chain", "stages.0.weights"),
    ("chain", "stages.0.controller"),
    ("refined", "stages.0.denoiser.unet"),
    ("upsampler", ""),
    ("denoiser", "unet"),
]


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(("kind", "layer"), LAYERS)
def test_a_step_in_which_a_layer_overflows_is_skipped_and_counted(photos, tmp_path, kind, layer, value):
    trainer, seen = overflowing(photos, tmp_path / "run", kind, layer, value, range(1, 3), 4), []
    trainer.on_step = lambda *_: seen.append(
        (trainer.counters.bad_steps, [p.detach().clone() for p in trainer.model.parameters()])
    )
    trainer.run()
    assert [count for count, _ in seen] == [0, 1, 2, 0] and trainer.ema.updates == 2
    unchanged = [all(map(torch.equal, before, after)) for (_, before), (_, after) in itertools.pairwise(seen)]
    assert unchanged == [True, True, False]
    assert all(p.isfinite().all() for p in trainer.ema.model.parameters())


@pytest.mark.parametrize(("kind", "layer"), [LAYERS[0], *LAYERS[-2:]])
def test_ten_overflows_in_a_row_stop_the_run_with_the_reason(photos, tmp_path, kind, layer):
    trainer = overflowing(photos, tmp_path / "run", kind, layer, math.inf, range(2, 40), 40)
    with pytest.raises(RuntimeError, match=f"{MAX_BAD_STEPS} steps in a row were not finite"):
        trainer.run()
    assert trainer.step == 2 + MAX_BAD_STEPS - 1
