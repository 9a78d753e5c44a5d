"""What a phase is said to cost before it is run."""

from __future__ import annotations

import pytest

from progressive_upsampling.core.train import trial as module
from progressive_upsampling.core.train.adversarial import AdversarialConfig
from progressive_upsampling.core.train.config import LossConfig, PhaseConfig
from progressive_upsampling.core.train.data_config import DataConfig
from progressive_upsampling.core.train.discriminators import DiscriminatorConfig
from progressive_upsampling.core.train.loop import Trainer
from progressive_upsampling.core.train.pictures import PictureFolder
from progressive_upsampling.core.train.step import Stepper
from progressive_upsampling.core.train.trial import not_kept, trial

from .conftest import tiny_config


@pytest.fixture
def steps(monkeypatch) -> list[tuple[int, bool]]:
    """The stages of each step that is taken, and whether it had R1."""
    taken, gradient = [], Stepper.gradient

    def noted(self, batches, *arguments):
        values = gradient(self, batches, *arguments)
        taken.append((len(batches[0].scales) - 1, "r1" in values))
        return values

    monkeypatch.setattr(Stepper, "gradient", noted)
    return taken


def test_a_trial_takes_time_and_writes_nothing(photos, tmp_path, steps):
    trainer = Trainer(tiny_config(), photos, tmp_path / "run")
    assert all(trial(trainer, phase) > 0 for phase in range(3)) and not (tmp_path / "run").exists()
    assert steps == [(stages, False) for stages in (1, 1, 2, 2, 3, 3)]  # the first of each is not counted


@pytest.mark.parametrize("seed", range(3))
def test_of_drawn_stages_each_number_counts_alike(photos, tmp_path, monkeypatch, steps, seed):
    phase = PhaseConfig(stages=3, steps=20, crop=4, batch=1, sampled=True)
    trainer = Trainer(tiny_config(phases=(phase,), seed=seed), photos, tmp_path / "run")
    assert trial(trainer, 0) > 0 and sorted(steps) == [(stages, False) for stages in (1, 1, 2, 2, 3, 3)]
    cost = {1: 1.0, 2: 5.0, 3: 21.0}
    monkeypatch.setattr(module, "seconds", lambda trainer, phase, batches, step: cost[len(batches[0].scales) - 1])
    assert trial(trainer, 0) == pytest.approx(9.0)


@pytest.mark.parametrize(("before", "every"), [(1, 16), (16, 16), (16, 1)])
def test_r1_counts_for_the_steps_that_it_is_due_at(photos, tmp_path, monkeypatch, steps, before, every):
    phase = PhaseConfig(stages=1, steps=before, crop=16, batch=1)
    judged = PhaseConfig(stages=1, steps=32, crop=16, batch=1, adversarial=True)
    adversarial = AdversarialConfig(discriminator=DiscriminatorConfig("unet", width=4), r1=5.0, r1_every=every)
    config = tiny_config(phases=(phase, judged), loss=LossConfig(adversarial=0.1), adversarial=adversarial)
    trainer = Trainer(config, photos, tmp_path / "run")
    trial(trainer, 0)
    trial(trainer, 1)
    assert sorted(steps) == [*[(1, False)] * (4 if every > 1 else 2), (1, True), (1, True)]
    monkeypatch.setattr(module, "seconds", lambda trainer, phase, batches, step: 1.0 if step % every else 17.0)
    assert trial(trainer, 1) == pytest.approx(2.0 if every > 1 else 17.0)


def test_crops_count_where_they_take_longer_than_the_step_at_every_use(photos, tmp_path, monkeypatch):
    memory, batches_of, clock = PictureFolder(photos, 0).bytes, Trainer.batches_of, [0.0]

    def slow(self, *arguments):
        clock[0] += 0.2
        return batches_of(self, *arguments)

    monkeypatch.setattr(module.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(Trainer, "batches_of", slow)
    monkeypatch.setattr(module, "seconds", lambda *arguments: 0.01)
    for part, expected in ((1.0, 0.01), (0.5, 0.1), (0.0, 0.2)):
        config = tiny_config(data=DataConfig(validation=0.0, memory=int(part * memory)))
        trainer = Trainer(config, photos, tmp_path / "run")
        assert not_kept(trainer) == pytest.approx(1 - part, abs=0.01)
        assert trial(trainer, 0) == pytest.approx(expected, rel=0.01)
