"""Training on a GPU: what it must share with training on the CPU. Skipped where there is none."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from progressive_upsampling.core.train.config import AdversarialConfig, LossConfig, PhaseConfig, TrainConfig
from progressive_upsampling.core.train.data import CropSampler
from progressive_upsampling.core.train.data_config import DataConfig
from progressive_upsampling.core.train.discriminators import DiscriminatorConfig
from progressive_upsampling.core.train.loop import Trainer
from progressive_upsampling.core.train.picture_sets import open_pictures
from progressive_upsampling.core.train.run_folder import HISTORY, LAST, STATE

from .conftest import tiny_config
from .runs import Stop, steps_of, stop_at, weights

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

TERMS = {"ssim": 0.1, "frequency": 0.1, "spectrum": 0.1, "checkerboard": 0.1, "perceptual": 0.1}
JUDGED = {"adversarial": 0.1, "feature_matching": 0.1}


@pytest.mark.parametrize("degradation", ["bicubic", "realistic"])
def test_crops_are_those_of_the_cpu(photos, degradation):
    config = DataConfig(degradation=degradation, cutblur=0.5, mixup=0.5, jitter=0.1)
    pictures, _ = open_pictures(photos, None, share=0.0, memory=1 << 30, side=0)
    here, there = (CropSampler(pictures, 1, config, device) for device in ("cpu", "cuda"))
    for step in range(4):
        shape = {"factors": (2, 4), "crop": 4, "batch": 3}
        pairs = zip(here.batch(step, **shape).scales, there.batch(step, **shape).scales, strict=True)
        for one, other in pairs:  # the same levels; a GPU divides by 255 by multiplying
            assert other.is_cuda and torch.allclose(one, other.cpu(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_a_run_goes_through_all_its_phases(photos, tmp_path, dtype, optimizer):
    config = tiny_config(dtype=dtype, optimizer=optimizer)
    Trainer(config, photos, tmp_path / "run", device="cuda").run()
    losses = [entry["loss"] for entry in steps_of(tmp_path / "run")]
    assert len(losses) == config.steps and all(map(math.isfinite, losses))
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "run" / LAST).values())


def test_the_first_losses_are_those_of_the_cpu(photos, tmp_path):
    for device in ("cpu", "cuda"):
        Trainer(tiny_config(), photos, tmp_path / device, device=device).run()
    for one, other in zip(steps_of(tmp_path / "cpu"), steps_of(tmp_path / "cuda"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=0.02)


@pytest.mark.parametrize("discriminator", ["patch", "unet"])
def test_every_term_learns(photos, tmp_path, discriminator):
    phase = PhaseConfig(stages=1, steps=3, crop=24, batch=2, learning_rate=1e-3, warmup=1, adversarial=True)
    adversarial = AdversarialConfig(discriminator=DiscriminatorConfig(discriminator))
    base = tiny_config(phases=(phase,), loss=LossConfig(**TERMS, **JUDGED), adversarial=adversarial)
    for config in (base, replace(base, loss=replace(base.loss, judge="refined"))):
        run = tmp_path / config.loss.judge
        Trainer(config, photos, run, device="cuda").run()
        assert all(TERMS.keys() <= entry.keys() and math.isfinite(entry["loss"]) for entry in steps_of(run))


def test_a_resumed_run_goes_on_where_it_stopped(photos, tmp_path):
    config: TrainConfig = tiny_config()
    Trainer(config, photos, tmp_path / "straight", device="cuda").run()
    broken = Trainer(config, photos, tmp_path / "broken", device="cuda", on_step=stop_at(3))
    with pytest.raises(Stop):
        broken.run()
    Trainer(config, photos, tmp_path / "broken", device="cuda").run(resume=True)
    straight, resumed = (weights(tmp_path / name / LAST) for name in ("straight", "broken"))
    assert all(torch.allclose(straight[name], resumed[name], rtol=1e-3, atol=1e-5) for name in straight)
    assert (tmp_path / "broken" / STATE).exists() and (tmp_path / "broken" / HISTORY).exists()
