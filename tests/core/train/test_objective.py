from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from progressive_upsampling.core.checkpoint import CheckpointError, read_checkpoint
from progressive_upsampling.core.train import critic as critic_module
from progressive_upsampling.core.train import losses, texture
from progressive_upsampling.core.train.adversarial import (
    AdversarialConfig,
    discriminator_loss,
    feature_matching,
    generator_loss,
    r1_penalty,
)
from progressive_upsampling.core.train.config import LossConfig, PhaseConfig, TrainConfig
from progressive_upsampling.core.train.critic import Critic
from progressive_upsampling.core.train.discriminators import DiscriminatorConfig
from progressive_upsampling.core.train.history import read_history
from progressive_upsampling.core.train.loop import Trainer
from progressive_upsampling.core.train.objective import Objective
from progressive_upsampling.core.train.perceptual import PerceptualConfig, PerceptualLoss
from progressive_upsampling.core.train.run_folder import HISTORY, LAST, STATE
from progressive_upsampling.core.train.setup import loss_scaler
from progressive_upsampling.core.train.vgg import random_vgg

from .conftest import tiny_chain, tiny_config
from .runs import Stop, steps_of, stop_at, weights

CPU = torch.device("cpu")
UNSCALED = loss_scaler(CPU, torch.float32)
SMALL = DiscriminatorConfig("patch", width=2, layers=1, scales=1)
PERCEPTUAL = PerceptualConfig({"conv1_2": 1.0})
PHASE = PhaseConfig(stages=1, steps=2, crop=6, batch=1, learning_rate=1e-3, warmup=0, noisy=0.0)


def gan_config(**changes: object) -> TrainConfig:
    """A phase without and two with a discriminator; R1 at the odd steps and its own."""
    phases = (PHASE, replace(PHASE, adversarial=True), replace(PHASE, stages=2, adversarial=True))
    settings = {
        "chain": tiny_chain(1),
        "phases": phases,
        "loss": LossConfig(refine=0, blind=0, adversarial=0.1, feature_matching=0.1),
        "adversarial": AdversarialConfig(discriminator=SMALL, r1=10.0, r1_every=3, learning_rate=1e-2),
        "validate_every": 0,
        "save_every": 2,
    }
    return tiny_config(**(settings | changes))


def pair(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, 3, 16, 16, generator=generator), torch.rand(2, 3, 16, 16, generator=generator)


def test_terms_are_those_of_their_functions():
    loss = LossConfig(ssim=1, frequency=1, spectrum=1, checkerboard=1, perceptual=1)
    phase = replace(PHASE, crop=8)
    config = tiny_config(loss=loss, perceptual=PERCEPTUAL, phases=(phase,))
    objective = Objective(config, CPU, torch.float32, UNSCALED)
    objective.begin_step(phase)
    output, target = pair()
    found = objective(output, target)
    perceptual = PerceptualLoss(random_vgg(0, 2), PERCEPTUAL.layers, "")
    on_texture = {"spectrum": texture.spectrum, "checkerboard": texture.checkerboard}
    expected = {"ssim": losses.ssim, "frequency": losses.frequency, **on_texture, "perceptual": perceptual}
    assert found == {name: term(output, target) for name, term in expected.items()}
    assert objective.critic is None and objective.backward(0, 1.0) == {} and objective.learners() == []


def test_without_weights_there_are_no_terms_and_no_networks():
    objective = Objective(tiny_config(), CPU, torch.float32, UNSCALED)
    assert objective(*pair()) == {} and objective.critic is None and objective.trunk == ""


@pytest.mark.parametrize("name", ["ssim", "frequency", "spectrum", "checkerboard", "perceptual"])
def test_a_term_is_in_the_history_and_changes_the_weights(photos, tmp_path, name):
    phases = (replace(PHASE, steps=3, crop=8),)  # 8: the window of the spectrum after one stage
    plain = tiny_config(chain=tiny_chain(1), phases=phases, perceptual=PERCEPTUAL, validate_every=0)
    with_term = replace(plain, loss=LossConfig(**{name: 1.0}))
    Trainer(plain, photos, tmp_path / "plain").run()
    Trainer(with_term, photos, tmp_path / "with").run()
    entries, others = read_history(tmp_path / "with" / HISTORY), read_history(tmp_path / "plain" / HISTORY)
    assert all(entry[name] > 0 for entry in entries) and not any(name in entry for entry in others)
    assert entries[0]["loss"] == pytest.approx(others[0]["loss"] + entries[0][name], rel=1e-4)
    a, b = weights(tmp_path / "plain" / LAST), weights(tmp_path / "with" / LAST)
    assert any(not torch.equal(a[key], b[key]) for key in a)


def test_a_random_trunk_is_called_so_in_log_history_and_checkpoint(photos, tmp_path, caplog):
    config = tiny_config(loss=LossConfig(perceptual=0.1), perceptual=PERCEPTUAL)
    Trainer(config, photos, tmp_path / "run").run()
    label = "random VGG19, seed 0, not trained"
    assert label in caplog.text
    assert read_checkpoint(tmp_path / "run" / LAST).provenance["perceptual_trunk"] == label
    told = [entry.get("perceptual_trunk") for entry in read_history(tmp_path / "run" / HISTORY)]
    assert told == [label, None, label, None, label, None]  # with the first step of each phase


def test_a_run_does_not_go_on_with_another_trunk(photos, tmp_path):
    config = tiny_config(loss=LossConfig(perceptual=0.1), perceptual=PERCEPTUAL)
    with pytest.raises(Stop):
        Trainer(config, photos, tmp_path / "run", on_step=stop_at(1)).run()
    trunk = random_vgg(7, 2)
    tensors = {
        f"features.{2 * i}.{part}": getattr(conv, part).data
        for i, conv in enumerate(trunk.convolutions)
        for part in ("weight", "bias")
    }
    save_file(tensors, tmp_path / "vgg.safetensors")
    with pytest.raises(CheckpointError, match=r"random VGG19.*vgg\.safetensors"):
        Trainer(config, photos, tmp_path / "run", vgg=tmp_path / "vgg.safetensors").run(resume=True)


def test_a_run_goes_on_with_the_same_trunk_from_another_file(photos, tmp_path):
    config = tiny_config(loss=LossConfig(perceptual=0.1), perceptual=PERCEPTUAL)
    tensors = {
        f"features.{2 * i}.{part}": getattr(conv, part).data
        for i, conv in enumerate(random_vgg(7, 2).convolutions)
        for part in ("weight", "bias")
    }
    for name in ("one", "other"):
        save_file(tensors, tmp_path / f"{name}.safetensors")
    for step, name in ((1, "one"), (2, "other")):
        vgg = tmp_path / f"{name}.safetensors"
        with pytest.raises(Stop):
            Trainer(config, photos, tmp_path / "run", vgg=vgg, on_step=stop_at(step)).run(resume=True)
    assert read_checkpoint(tmp_path / "run" / STATE).config["step"] == 2


@pytest.mark.parametrize(
    ("crop", "changes"),
    [
        (5, {"loss": LossConfig(ssim=1)}),
        (2, {"loss": LossConfig(perceptual=1), "perceptual": PerceptualConfig({"conv4_1": 1.0})}),
        (2, {"loss": LossConfig(adversarial=1), "adversarial": AdversarialConfig(discriminator=SMALL)}),
    ],
)
def test_crops_too_small_for_a_term_are_found_out_before_the_first_step(photos, tmp_path, crop, changes):
    judged = "adversarial" in changes
    phases = (PHASE, replace(PHASE, crop=crop, adversarial=judged))
    with pytest.raises(ValueError, match=f"phase 2: crops of {crop} px are too small"):
        Trainer(tiny_config(phases=phases, **changes), photos, tmp_path / "run")


@pytest.mark.parametrize("kind", ["patch", "unet"])
def test_an_adversarial_run_stopped_after_every_step_is_the_run_never_stopped(photos, tmp_path, kind):
    discriminator = replace(SMALL, kind=kind)
    config = gan_config(adversarial=replace(gan_config().adversarial, discriminator=discriminator))
    Trainer(config, photos, tmp_path / "a").run()
    for step in range(1, 6):
        with pytest.raises(Stop):
            Trainer(config, photos, tmp_path / "b", on_step=stop_at(step)).run(resume=True)
    Trainer(config, photos, tmp_path / "b").run(resume=True)
    a, b = weights(tmp_path / "a" / STATE), weights(tmp_path / "b" / STATE)
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    assert any(name.startswith("discriminator_optimizer.exp_avg") for name in a)
    assert any(name.startswith("discriminator.") and name.endswith("weight.0.u") for name in a)
    assert steps_of(tmp_path / "a") == steps_of(tmp_path / "b")


def test_the_discriminator_takes_part_in_its_phases_alone(photos, tmp_path):
    seen = []

    def on_step(done: int, total: int, values: dict[str, float]) -> None:
        seen.append([value.clone() for value in trainer.objective.critic.network.state_dict().values()])

    trainer = Trainer(gan_config(), photos, tmp_path / "run", on_step=on_step)
    at_birth = [value.clone() for value in trainer.objective.critic.network.state_dict().values()]
    trainer.run()
    moved = [not all(map(torch.equal, a, b)) for a, b in zip([at_birth, *seen[:-1]], seen, strict=True)]
    assert moved == [False, False, True, True, True, True]
    entries = read_history(tmp_path / "run" / HISTORY)
    names = {"adversarial", "feature_matching", "discriminator", "discriminator_gradient", "discriminator_right"}
    assert [names <= entry.keys() for entry in entries] == [False] * 2 + [True] * 4
    assert not any(names & entry.keys() for entry in entries[:2])
    assert ["r1" in entry for entry in entries] == [False, False, False, True, False, False]


def test_every_phase_gives_the_discriminator_a_new_optimiser(photos, tmp_path):
    ages = []

    def on_step(done: int, total: int, values: dict[str, float]) -> None:
        state = trainer.objective.critic.learner.optimizer.state.values()
        ages.append(max((int(moments["step"]) for moments in state), default=0))

    trainer = Trainer(gan_config(), photos, tmp_path / "run", on_step=on_step)
    trainer.run()
    assert ages == [0, 0, 1, 2, 1, 2]


def test_the_inference_checkpoint_holds_no_discriminator(photos, tmp_path):
    Trainer(gan_config(), photos, tmp_path / "run").run()
    assert not any("discriminator" in name for name in weights(tmp_path / "run" / LAST))


def test_the_seed_decides_the_discriminator(photos, tmp_path):
    networks = [Trainer(gan_config(seed=seed), photos, tmp_path / "run").objective.critic.network for seed in (0, 0, 1)]
    first, again, other = (torch.cat([p.flatten() for p in network.parameters()]) for network in networks)
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.fixture
def critic() -> Critic:
    config = AdversarialConfig("hinge", SMALL, learning_rate=1e-2)
    return Critic(config, LossConfig(adversarial=1, feature_matching=1), 0, CPU, torch.float32, UNSCALED)


def test_the_generators_terms_are_those_of_their_functions_and_spare_the_discriminator(critic):
    output, target = pair()
    before = [value.clone() for value in critic.network.state_dict().values()]
    terms = critic.terms(output.requires_grad_(), target.requires_grad_())
    real, fake = critic.network(target), critic.network(output)
    assert torch.equal(terms["adversarial"], generator_loss(real.logits, fake.logits, "hinge"))
    assert torch.equal(terms["feature_matching"], feature_matching(real.features, fake.features))
    sum(terms.values()).backward()
    assert output.grad.any() and target.grad is None
    assert all(parameter.grad is None for parameter in critic.network.parameters())
    assert all(map(torch.equal, before, critic.network.state_dict().values()))


def test_only_the_terms_with_a_weight_are_computed():
    for loss in (LossConfig(adversarial=1), LossConfig(feature_matching=1)):
        terms = Critic(AdversarialConfig(discriminator=SMALL), loss, 0, CPU, torch.float32, UNSCALED).terms(*pair())
        assert [getattr(loss, name) for name in terms] == [1]


def test_the_discriminators_gradient_is_that_of_its_loss():
    for r1, step in ((0.0, 0), (10.0, 4), (10.0, 5)):
        config = AdversarialConfig("vanilla", replace(SMALL, spectral=False), r1=r1, r1_every=4, clip=1e9)
        critic = Critic(config, LossConfig(adversarial=1), 0, CPU, torch.float32, UNSCALED)
        pairs = [pair(0), pair(1)]
        values = critic.backward(pairs, step, 1.0)
        found = [parameter.grad.clone() for parameter in critic.network.parameters()]

        critic.network.requires_grad_(True).zero_grad()
        network = critic.network
        terms = [discriminator_loss(network(t).logits, network(o).logits, "vanilla") for o, t in pairs]
        total = torch.stack(terms).mean()
        assert values["discriminator"] == pytest.approx(total.item(), rel=1e-5)
        due = r1 > 0 and step == 4
        assert ("r1" in values) == due
        if due:
            penalty = torch.stack([r1_penalty(network, target, r1) for _, target in pairs]).mean()
            assert values["r1"] == pytest.approx(penalty.item(), rel=1e-5)
            total = total + 4 * penalty
        total.backward()
        for mine, parameter in zip(found, network.parameters(), strict=True):
            assert torch.allclose(mine, parameter.grad, rtol=1e-4, atol=1e-6)


def test_the_discriminator_learns_to_tell_results_from_pictures():
    config = AdversarialConfig("vanilla", replace(SMALL, width=8), learning_rate=1e-2)
    critic = Critic(config, LossConfig(adversarial=1), 0, CPU, torch.float32, UNSCALED)
    generator, values = torch.Generator().manual_seed(0), {}
    for step in range(40):
        target = torch.rand(4, 3, 16, 16, generator=generator)
        critic.begin_step(1.0)
        values = critic.backward([(torch.nn.functional.avg_pool2d(target, 3, 1, 1), target)], step, 1.0)
        critic.clipped()
        critic.update()
    assert values["discriminator_right"] == 1.0 and values["discriminator"] < 1.0  # 2 ln 2 where it knows nothing


def test_only_its_step_changes_the_discriminator(critic):
    before = {name: value.clone() for name, value in critic.network.state_dict().items()}
    critic.begin_step(1.0)
    critic.backward([pair(0), pair(1)], 0, 1.0)
    critic.clipped()
    # a run that is broken off here goes on as if the step had not begun
    assert all(torch.equal(before[name], value) for name, value in critic.network.state_dict().items())
    critic.update()
    changed = {name for name, value in critic.network.state_dict().items() if not torch.equal(before[name], value)}
    assert {name for name in before if name.endswith((".original", ".v"))} <= changed


@pytest.mark.parametrize("kind", ["vanilla", "hinge"])
@pytest.mark.parametrize("parts", [4, 3])
def test_the_parts_of_a_batch_change_nothing_with_a_discriminator(photos, tmp_path, kind, parts):
    norms = []
    for accumulate in (1, parts):
        phase = replace(PHASE, stages=2, steps=5, batch=4, accumulate=accumulate, adversarial=True)
        judge = replace(gan_config().adversarial, kind=kind, clip=1e9, r1_every=2)
        # hardly a step of the model, so that Adam cannot turn rounding into one; large ones of the discriminator
        config = gan_config(phases=(replace(phase, learning_rate=1e-9),), adversarial=judge, clip=1e9)
        Trainer(config, photos, tmp_path / str(accumulate)).run()
        entries = read_history(tmp_path / str(accumulate) / HISTORY)
        norms.append([entry[name] for entry in entries for name in ("gradient", "discriminator_gradient")])
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)


def test_the_discriminators_rate_follows_the_share_and_its_gradient_the_limit(critic):
    critic.learner.clip = 1e-3
    critic.begin_step(0.25)
    critic.backward([pair()], 0, 1.0)
    norm_before = critic.clipped()
    assert critic.learner.optimizer.param_groups[0]["lr"] == pytest.approx(0.25e-2)
    norm = torch.stack([p.grad.norm() for p in critic.network.parameters()]).norm()
    assert norm_before > 1e-3 and norm.item() == pytest.approx(1e-3, rel=1e-2)


def test_a_discriminator_that_is_not_finite_spoils_no_step(photos, tmp_path, monkeypatch):
    original, calls = critic_module.discriminator_loss, iter(range(99))
    monkeypatch.setattr(
        critic_module, "discriminator_loss", lambda *a: original(*a) * (math.nan if next(calls) == 1 else 1.0)
    )
    seen = []

    def on_step(done: int, total: int, values: dict[str, float]) -> None:
        networks = (trainer.model, trainer.objective.critic.network)
        seen.append((trainer.counters.bad_steps, [p.detach().clone() for n in networks for p in n.parameters()]))

    phases = (PHASE, replace(PHASE, steps=3, adversarial=True))
    trainer = Trainer(gan_config(phases=phases), photos, tmp_path / "run", on_step=on_step)
    trainer.run()
    assert [count for count, _ in seen] == [0, 0, 0, 1, 0]
    unchanged = [all(map(torch.equal, seen[k][1], seen[k + 1][1])) for k in (2, 3)]
    assert unchanged == [True, False]
