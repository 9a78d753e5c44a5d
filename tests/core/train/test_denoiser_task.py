from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from progressive_upsampling.core.checkpoint import read_checkpoint
from progressive_upsampling.core.denoiser import Denoiser, DenoiserConfig
from progressive_upsampling.core.denoiser_file import load_denoiser
from progressive_upsampling.core.metrics import psnr
from progressive_upsampling.core.perceptual_distance import PerceptualDistance
from progressive_upsampling.core.squeezenet import SqueezeNet
from progressive_upsampling.core.train.config import LossConfig, PhaseConfig, TrainConfig
from progressive_upsampling.core.train.data import Batch
from progressive_upsampling.core.train.denoiser_task import SIGMA, DenoiserTask
from progressive_upsampling.core.train.history import read_history
from progressive_upsampling.core.train.loop import Trainer
from progressive_upsampling.core.train.pictures import PictureFolder
from progressive_upsampling.core.train.run_folder import BEST, HISTORY, LAST, STATE
from progressive_upsampling.core.train.share import Share, items_of
from progressive_upsampling.core.train.task import check_fits, config_of, task_of
from progressive_upsampling.core.train.validate import validate
from progressive_upsampling.core.unet import UNetConfig

from .conftest import noise_picture, save, tiny_chain, tiny_config

SMALL = DenoiserConfig(UNetConfig(widths=(4, 8), blocks=(1, 1), heads=2, window=4, channel_window=2))
BLIND = LossConfig(output=0, upsampler=0, refine=0, blind=1, controller=0)


def config(**changes: object) -> TrainConfig:
    phase = PhaseConfig(stages=1, steps=4, crop=16, batch=3, learning_rate=1e-3, warmup=0)
    settings = {"denoiser": SMALL, "phases": (phase,), "loss": BLIND, "dtype": "fp32", "validate_every": 2}
    return TrainConfig(**(settings | changes))


def crops(count: int = 4, side: int = 16) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def share(target: torch.Tensor, items: tuple[int, ...] | None = None, shares: int = 1, seed: int = 0) -> Share:
    chosen = tuple(range(len(target))) if items is None else items
    part = target[list(chosen)]
    return Share(Batch((part, part)), chosen, len(target), shares, 0, (1.0, 4.0), seed)


def none(*_: torch.Tensor) -> dict[str, torch.Tensor]:
    return {}


def test_a_denoiser_is_trained_stopped_and_loaded(photos, held, tmp_path):
    class Stop(Exception):
        pass

    def stop(done: int, total: int, values: dict[str, float]) -> None:
        if done == 2:
            raise Stop

    Trainer(config(), photos, tmp_path / "a", val=held).run()
    with pytest.raises(Stop):
        Trainer(config(), photos, tmp_path / "b", val=held, on_step=stop).run()
    Trainer(config(), photos, tmp_path / "b", val=held).run(resume=True)
    for name in (LAST, BEST, STATE):
        a, b = (read_checkpoint(tmp_path / run / name).tensors for run in "ab")
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a), name
    denoiser = load_denoiser(tmp_path / "a" / LAST)
    assert config_of(denoiser) == replace(SMALL, conditioned=False)
    assert {"x1", "x1_ssim", "blind"} <= read_history(tmp_path / "a" / HISTORY)[-1].keys()
    assert read_checkpoint(tmp_path / "a" / LAST).provenance["description"].startswith("denoiser trained for 4 steps")


@pytest.mark.parametrize(("side", "distance"), [(9, None), (22, PerceptualDistance(SqueezeNet()))])
def test_pictures_too_small_to_measure_are_found_out_at_the_start(photos, tmp_path, side, distance):
    save(tmp_path / "small" / "a.png", noise_picture(side, side))
    with pytest.raises(ValueError, match="val: expected pictures of at least"):
        Trainer(config(), photos, tmp_path / "run", val=tmp_path / "small", distance=distance)


def test_samples_are_made_of_the_smallest_pictures_that_can_be_trained_on(tmp_path):
    save(tmp_path / "data" / "a.png", noise_picture(5, 5))
    phase = PhaseConfig(stages=1, steps=1, crop=1, batch=1, warmup=0)
    trainer = Trainer(config(phases=(phase,)), tmp_path / "data", tmp_path / "run")
    trainer.run()
    assert trainer.samples().shape[:2] == (1, 3)


def test_it_learns_to_take_noise_out(photos, held, tmp_path):
    phase = PhaseConfig(stages=1, steps=80, crop=24, batch=4, learning_rate=0.1, warmup=0)
    run = config(phases=(phase,), optimizer="muon", validate_every=80, ema=0.9)
    Trainer(run, photos, tmp_path / "run", val=held).run()
    task, newborn = DenoiserTask(SMALL), DenoiserTask(SMALL).build()
    pictures = PictureFolder(photos, memory=2**20)
    before = validate(lambda image: task.outputs(newborn, image, 1, "fp32"), pictures, (1,))["x1"]
    assert read_history(tmp_path / "run" / HISTORY)[-1]["x1"] > before + 0.7


def test_the_noise_is_that_of_sigma_and_one_at_birth_leaves_it():
    task, image = task_of(config()), 0.4 + 0.2 * crops(1, 128)
    (result,) = task.outputs(task.build().eval(), image, 1, "fp32")
    assert (result - image).std().item() == pytest.approx(SIGMA, rel=0.02)
    again = task.outputs(task.build().eval(), image, 1, "fp32")[0]
    assert torch.equal(result, again)
    assert torch.allclose(task.shown(image, (128, 128))["noisy"], result, atol=1e-6)
    assert psnr(result, image).item() == pytest.approx(24.99, abs=0.3)  # of Y, whose noise is 0.574 of that of R, G, B


def test_shares_of_a_batch_have_the_loss_of_the_whole():
    task, target = DenoiserTask(SMALL), crops(5)  # in shares of three and two
    model = task.build()
    whole = task.losses(model, share(target), BLIND, none)["blind"]
    parts = [task.losses(model, share(target, items_of(part, 2, 5), 2), BLIND, none)["blind"] for part in (0, 1)]
    assert torch.allclose(torch.stack(parts).mean(), whole)


def test_each_step_has_noise_of_its_own_within_the_range():
    task, target = DenoiserTask(SMALL), 0 * crops(64)
    model = task.build()

    def noise(output: torch.Tensor, _: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"noise": output.std()}  # at birth the noise is left as it is

    found = [task.losses(model, share(target, seed=seed), BLIND, noise)["noise"] for seed in (0, 1, 1)]
    assert found[0] != found[1] and found[1] == found[2]
    low, high = (level * SMALL.sigma_r for level in (1.0, 4.0))
    assert low * 0.25 < found[0] < high


def test_the_loss_is_the_error_in_units_of_what_is_expected():
    task, target = DenoiserTask(SMALL), 0 * crops(64, 32)
    found = task.losses(task.build(), share(target), BLIND, none)["blind"]
    # noise of sigma >= 0.25 * 1.0 sigma_r over tau = sqrt(sigma_r² + sigma²), its mean absolute value being 0.8 sigma
    assert 0.8 * 0.24 * SMALL.sigma_r < found < 0.8 * SMALL.sigma_r


def test_it_goes_on_from_a_model_which_stays_as_it_is(photos, tmp_path):
    init = DenoiserTask(SMALL).build()
    before = [parameter.clone() for parameter in init.parameters()]
    other = DenoiserConfig(UNetConfig(widths=(4,), blocks=(1,), self_attention=(False,), channel_attention=(False,),
                                      spatial_attention=(False,)))  # fmt: skip
    run = config(denoiser=other).starting_from(config_of(init))
    check_fits(init, run)
    model = Trainer(run, photos, tmp_path / "run", init=init).run()
    assert all(map(torch.equal, before, init.parameters()))
    assert not all(map(torch.equal, before, model.parameters()))


def test_it_goes_on_from_one_that_was_trained_for_a_chain():
    assert SMALL.conditioned
    check_fits(Denoiser(SMALL), config())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"phases": (PhaseConfig(stages=2, steps=1),)}, "phases: expected stages 1"),
        ({"loss": LossConfig()}, "loss: expected no output, upsampler, refine, controller"),
        ({"loss": replace(BLIND, judge="refined")}, 'judge "refined"'),
        ({"upsampler": {"kind": "espcn", "scale": 2}}, "denoiser: expected none beside upsampler"),
    ],
)
def test_what_a_single_denoiser_cannot_do_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        config(**change)


def test_models_of_other_kinds_are_refused():
    denoiser = DenoiserTask(SMALL).build()
    with pytest.raises(ValueError, match=r"init: expected .* a chain, got Denoiser"):
        check_fits(denoiser, tiny_config())
    with pytest.raises(ValueError, match=r"init: expected .* a denoiser, got Chain"):
        check_fits(task_of(tiny_config(chain=tiny_chain(1))).build(), config())
    with pytest.raises(ValueError, match=r"init: expected .* a denoiser, got another shape"):
        check_fits(denoiser, config(denoiser=replace(SMALL, sigma_r=0.1)))
    with pytest.raises(TypeError, match="model: expected a Denoiser, got Linear"):
        DenoiserTask(SMALL).outputs(torch.nn.Linear(1, 1), crops(1), 1, "fp32")
