"""Runs whose inputs are degraded: without back-projection, measured and shown on what they learn from."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from progressive_upsampling.core.chain import Chain
from progressive_upsampling.core.config import from_dict, to_dict
from progressive_upsampling.core.denoiser import DenoiserConfig
from progressive_upsampling.core.train import loop
from progressive_upsampling.core.train.config import LossConfig, PhaseConfig, TrainConfig
from progressive_upsampling.core.train.data_config import DataConfig
from progressive_upsampling.core.train.degradation import RealisticConfig
from progressive_upsampling.core.train.glimpse import Glimpse
from progressive_upsampling.core.train.loop import Trainer
from progressive_upsampling.core.train.pictures import PictureFolder, Subset
from progressive_upsampling.core.train.recipe import read_config
from progressive_upsampling.core.train.run_folder import BEST, CONFIG, LAST
from progressive_upsampling.core.train.showcase import Showcase
from progressive_upsampling.core.train.task import ChainTask
from progressive_upsampling.core.train.validate import subject, validate

from .conftest import tiny_chain, tiny_config

PHASE = PhaseConfig(stages=1, steps=2, crop=4, batch=1, warmup=0)


def run_config(degradation: str = "realistic", **changes: object) -> TrainConfig:
    chain = replace(tiny_chain(1), back_projection=True)
    return tiny_config(**({"chain": chain, "phases": (PHASE,), "data": DataConfig(degradation)} | changes))


def test_a_chain_that_learns_from_them_is_not_brought_back_to_them(photos, held, tmp_path):
    init = Chain(run_config("bicubic").chain)
    assert init.config.back_projection and run_config("bicubic").starting_from(init.config).chain == init.config
    config = run_config().starting_from(init.config)
    model = Trainer(config, photos, tmp_path / "run", val=held, init=init).run()
    assert isinstance(model, Chain) and model.config == replace(init.config, back_projection=False)
    for name in (LAST, BEST):
        assert Chain.from_pretrained(tmp_path / "run" / name).config == model.config
    assert read_config(tmp_path / "run" / CONFIG).chain == model.config
    assert from_dict(TrainConfig, to_dict(config)) == config


@pytest.mark.parametrize("factors", [(2,), (2, 4), (3,)])
def test_an_input_is_degraded_alike_at_every_call_and_its_targets_are_clean(photos, factors):
    pictures = PictureFolder(photos, 0)
    clean = subject(pictures, 1, factors)
    found = [subject(some, i, factors, realistic=RealisticConfig()) for some, i in ((pictures, 1), (pictures, 1))]
    found.append(subject(Subset(pictures, [2, 1]), 1, factors, realistic=RealisticConfig()))
    for one in found:
        assert torch.equal(one.input, found[0].input) and one.input.shape == clean.input.shape
        assert all(map(torch.equal, one.targets, clean.targets))
    assert (found[0].input - clean.input).abs().mean() > 0.003
    harsh = subject(pictures, 1, factors, realistic=RealisticConfig(noise=1, sigma=(0.2, 0.2)))
    assert not torch.equal(found[0].input, harsh.input)


def test_a_run_is_measured_on_what_it_learns_from(photos, held, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(loop, "validate", lambda *_, **options: seen.append(options["realistic"]) or {"x2": 1.0})
    harsh = RealisticConfig(sigma=(0.2, 0.2))
    config = run_config(data=DataConfig("realistic", harsh))
    Trainer(config, photos, tmp_path / "run", val=held).run()
    Trainer(run_config("bicubic"), photos, tmp_path / "clean", val=held).run()
    assert seen == [harsh, None]


def test_degraded_inputs_give_other_figures(photos):
    pictures, chain = PictureFolder(photos, 0), Chain(tiny_chain(1)).eval()

    def enlarge(image: torch.Tensor) -> list[torch.Tensor]:
        return chain.stages_of(image, scale=2, dtype="fp32")

    clean, *degraded = (
        validate(enlarge, pictures, (2,), realistic=r) for r in (None, RealisticConfig(), RealisticConfig())
    )
    assert degraded[0] == degraded[1] and degraded[0]["x2"] < clean["x2"] - 1


def test_samples_and_glimpses_show_degraded_inputs(photos, tmp_path):
    pictures, chain, task = PictureFolder(photos, 0), Chain(tiny_chain(1)).eval(), ChainTask(tiny_chain(1))
    harsh = RealisticConfig(noise=1, sigma=(0.2, 0.2))
    for kind, arguments in (
        (Showcase, (task, pictures, chain, "fp32")),
        (Glimpse, (task, pictures, chain, [1], "fp32")),
    ):
        plain, *others = (kind(*arguments, realistic).sheet(chain, 1) for realistic in (None, harsh, harsh))
        assert torch.equal(*others) and not torch.equal(plain, others[0])
    shown = [Trainer(run_config(kind), photos, tmp_path / "run").samples(1) for kind in ("bicubic", "realistic")]
    assert not torch.equal(*shown)


def test_a_single_denoiser_is_measured_on_pictures_as_they_are():
    loss = LossConfig(output=0, upsampler=0, refine=0, blind=1, controller=0)
    assert run_config(denoiser=DenoiserConfig(conditioned=False), loss=loss).realistic is None
