from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from progressive_upsampling.core.chain import Chain
from progressive_upsampling.core.checkpoint import read_checkpoint
from progressive_upsampling.core.layout import rgb_to_y
from progressive_upsampling.core.train.config import LossConfig, PhaseConfig, TrainConfig
from progressive_upsampling.core.train.data import Batch
from progressive_upsampling.core.train.history import read_history
from progressive_upsampling.core.train.loop import Trainer
from progressive_upsampling.core.train.run_folder import BEST, HISTORY, LAST, STATE
from progressive_upsampling.core.train.share import Share
from progressive_upsampling.core.train.task import UpsamplerTask, check_fits, config_of, task_of
from progressive_upsampling.core.upsamplers import build_upsampler, load_upsampler

from .conftest import tiny_chain, tiny_config

KINDS = [
    {"kind": "edsr", "scale": 2, "width": 4, "blocks": 1, "tail": "direct"},
    {"kind": "edsr", "scale": 3, "width": 4, "blocks": 1, "tail": "classic"},
    {"kind": "espcn", "scale": 4},
    {"kind": "fsrcnn", "scale": 3, "d": 4, "s": 2, "m": 1},
]
ONLY_OUTPUT = LossConfig(upsampler=0, refine=0, blind=0, controller=0)


def config(upsampler: dict, **changes: object) -> TrainConfig:
    phase = PhaseConfig(stages=1, steps=4, crop=8, batch=3, learning_rate=1e-3, warmup=0)
    settings = {"upsampler": upsampler, "phases": (phase,), "loss": ONLY_OUTPUT, "dtype": "fp32", "validate_every": 2}
    return TrainConfig(**(settings | changes))


@pytest.mark.parametrize("upsampler", KINDS, ids=lambda kind: f"{kind['kind']}_x{kind['scale']}")
def test_a_single_upsampler_is_trained_stopped_and_loaded(photos, held, tmp_path, upsampler):
    class Stop(Exception):
        pass

    def stop(done: int, total: int, values: dict[str, float]) -> None:
        if done == 2:
            raise Stop

    Trainer(config(upsampler), photos, tmp_path / "a", val=held).run()
    with pytest.raises(Stop):
        Trainer(config(upsampler), photos, tmp_path / "b", val=held, on_step=stop).run()
    Trainer(config(upsampler), photos, tmp_path / "b", val=held).run(resume=True)
    for name in (LAST, BEST, STATE):
        a, b = (read_checkpoint(tmp_path / run / name).tensors for run in "ab")
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a), name
    network = load_upsampler(tmp_path / "a" / LAST)
    assert network.scale == upsampler["scale"]
    assert upsampler.items() <= config_of(network).items()
    entries = read_history(tmp_path / "a" / HISTORY)
    assert f"x{upsampler['scale']}" in entries[-1]
    assert read_checkpoint(tmp_path / "a" / LAST).provenance["description"].startswith(upsampler["kind"])


def test_a_single_upsampler_learns(photos, tmp_path):
    phase = PhaseConfig(stages=1, steps=60, crop=12, batch=4, learning_rate=5e-3, warmup=0)
    Trainer(config(KINDS[0], phases=(phase,), validate_every=0), photos, tmp_path / "run").run()
    output = [entry["output"] for entry in read_history(tmp_path / "run" / HISTORY)]
    assert sum(output[-15:]) < 0.95 * sum(output[:15])


def test_it_goes_on_from_a_model_which_stays_as_it_is(photos, tmp_path):
    init = build_upsampler(KINDS[3])
    before = [parameter.clone() for parameter in init.parameters()]
    run = config({"kind": "espcn", "scale": 2}).starting_from(config_of(init))
    check_fits(init, run)
    model = Trainer(run, photos, tmp_path / "run", init=init).run()
    assert all(map(torch.equal, before, init.parameters()))
    assert not all(map(torch.equal, before, model.parameters()))


@pytest.mark.parametrize("upsampler", KINDS, ids=lambda kind: f"{kind['kind']}_x{kind['scale']}")
def test_a_network_of_another_scale_gives_the_weights_that_fit(photos, tmp_path, upsampler):
    scale = 2 if upsampler["scale"] == 4 else 4
    init = build_upsampler({**upsampler, "scale": scale})
    run = config(upsampler).starting_from(config_of(init))
    assert run.factor == upsampler["scale"]
    start = Trainer(run, photos, tmp_path / "run", init=init).model.state_dict()
    birth = Trainer(run, photos, tmp_path / "run").model.state_dict()
    theirs = init.state_dict()
    fitting = {name for name, weight in start.items() if theirs[name].shape == weight.shape}
    assert {name for name in start if not name.startswith(("tail.", "last."))} <= fitting
    assert all(torch.equal(weight, (theirs if name in fitting else birth)[name]) for name, weight in start.items())


def test_a_run_may_change_how_much_noise_a_chain_takes(photos, tmp_path):
    init = Chain(tiny_chain(2))
    run = replace(tiny_config(), kappa=0.3).starting_from(init.config)
    assert [stage.kappa for stage in run.chain.stages] == [0.3, 0.3] and init.config == tiny_chain(2)
    model = Trainer(run, photos, tmp_path / "run", init=init).model
    assert model.config == run.chain and all(map(torch.equal, model.parameters(), init.parameters()))
    with pytest.raises(ValueError, match="got another shape"):
        check_fits(init, replace(tiny_config(), chain=tiny_chain(1), kappa=0.3))


def test_parts_may_begin_afresh(photos, tmp_path):
    init = Chain(tiny_chain(1))
    with torch.no_grad():
        for parameter in init.parameters():
            parameter.fill_(0.5)
    tail = "stages.0.denoiser.unet.tail.weight"
    run = replace(tiny_config(), phases=tiny_config().phases[:1], afresh=("*.tail.weight",)).starting_from(init.config)
    model = Trainer(run, photos, tmp_path / "run", init=init).model
    for name, parameter in model.named_parameters():
        assert (parameter == (0.0 if name == tail else 0.5)).all(), name
    with pytest.raises(ValueError, match=r"afresh: expected patterns of parameters such as 'stages\.0.*, got 'tail'"):
        Trainer(replace(run, afresh=("tail",)), photos, tmp_path / "other", init=init)


def test_a_model_of_another_kind_or_shape_is_refused():
    with pytest.raises(ValueError, match=r"init: expected .* a chain, got FSRCNN"):
        check_fits(build_upsampler(KINDS[3]), tiny_config())
    with pytest.raises(ValueError, match=r"init: expected .* a espcn, got Chain"):
        check_fits(Chain(tiny_chain()), config(KINDS[2]))
    with pytest.raises(ValueError, match="got another shape"):
        check_fits(build_upsampler(KINDS[0]), config(KINDS[1]))


def test_the_luma_loss_sees_luma_alone():
    task = UpsamplerTask(KINDS[2])
    network = task.build()
    generator = torch.Generator().manual_seed(0)
    image, target = torch.rand(2, 3, 6, 6, generator=generator), torch.rand(2, 3, 24, 24, generator=generator)
    share = Share(Batch((image, target)), (0, 1), 2, 1, 0, (1.0, 1.0), 0)
    loss = replace(ONLY_OUTPUT, pixel="l2", channel="y")
    found = task.losses(network, share, loss, lambda *_: {})["output"]
    expected = (rgb_to_y(network(image)) - rgb_to_y(target)).square().mean()
    assert (
        torch.allclose(found, expected)
        and found < 0.9 * task.losses(network, share, replace(loss, channel="rgb"), lambda *_: {})["output"]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"upsampler": {"kind": "srcnn"}}, "upsampler: kind"),
        ({"phases": (PhaseConfig(stages=2, steps=1),)}, "phases: expected stages 1"),
        ({"loss": LossConfig()}, "loss: expected no upsampler, refine, blind, controller"),
    ],
)
def test_what_a_single_upsampler_cannot_do_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        config(**({"upsampler": KINDS[0]} | change))


def test_the_task_follows_the_config():
    assert task_of(tiny_config()).factors(3) == (2, 4, 8)
    assert task_of(config(KINDS[1])).factors(1) == (3,)
