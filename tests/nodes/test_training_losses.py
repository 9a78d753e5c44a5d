"""Training Losses: every widget has its effect, and files are checked where they are chosen."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from progressive_upsampling.core.checkpoint import CheckpointError
from progressive_upsampling.core.train.vgg import LAYERS, random_vgg
from progressive_upsampling.nodes._training import LossTerms
from progressive_upsampling.nodes.training_losses import TrainingLosses

from .conftest import call

FIELDS = {
    "pixel": ("charbonnier", ("loss", "pixel")),
    "pixel_weight": (0.5, ("loss", "output")),
    "judge": ("refined", ("loss", "judge")),
    "ssim": (0.1, ("loss", "ssim")),
    "frequency": (0.1, ("loss", "frequency")),
    "perceptual": (0.1, ("loss", "perceptual")),
    "adversarial": (0.1, ("loss", "adversarial")),
    "feature_matching": (0.1, ("loss", "feature_matching")),
    "gan": ("hinge", ("adversarial", "kind")),
    "discriminator": ("unet", ("adversarial", "discriminator", "kind")),
    "r1": (10.0, ("adversarial", "r1")),
    "adversarial_start": (0.0, ("start",)),
    "upsampler": (0.0, ("loss", "upsampler")),
    "refine": (0.0, ("loss", "refine")),
    "blind": (0.0, ("loss", "blind")),
    "controller": (0.0, ("loss", "controller")),
    "spectrum": (0.1, ("loss", "spectrum")),
    "checkerboard": (0.1, ("loss", "checkerboard")),
}


@pytest.fixture
def trunk(model_folder: Path) -> Path:
    """A file of VGG19's first convolutions."""
    network, path = random_vgg(depth=3), model_folder / "vgg.safetensors"
    layers = zip(network.layers, network.convolutions, strict=True)
    weights = {f"features.{LAYERS[name]}.{part}": v for name, c in layers for part, v in c.named_parameters()}
    save_file({name: value.contiguous() for name, value in weights.items()}, path)
    return path


def flat(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    if not isinstance(value, dict):
        return {path: value}
    return {key: leaf for name, part in value.items() for key, leaf in flat(part, (*path, name)).items()}


def terms(**inputs: Any) -> dict[tuple[str, ...], Any]:
    return flat(asdict(call(TrainingLosses, **inputs)[0]))


def test_the_node_as_it_stands_is_no_node() -> None:
    assert call(TrainingLosses)[0] == LossTerms()


def test_every_widget_has_its_own_effect() -> None:
    ids = {port.id for port in TrainingLosses.GET_SCHEMA().inputs}
    assert ids == {*FIELDS, "vgg"}
    before = terms()
    for id_, (value, field) in FIELDS.items():
        after = terms(**{id_: value})
        assert {key for key in after if after[key] != before[key]} == {field}, id_
        assert after[field] == value


def test_a_trunk_is_taken_from_the_model_folder(trunk: Path) -> None:
    assert terms(vgg="vgg.safetensors", perceptual=0.1)["vgg",] == str(trunk)
    assert terms(vgg="vgg.safetensors")["vgg",] is None  # of no use without the term
    assert terms(perceptual=0.1)["vgg",] is None


def test_a_file_that_is_no_trunk_is_refused_by_the_name_of_its_input(chain: Any, model_folder: Path) -> None:
    chain.save(model_folder / "chain.safetensors")
    with pytest.raises(CheckpointError, match=r"^vgg: .*chain\.safetensors: expected VGG19"):
        call(TrainingLosses, vgg="chain.safetensors", perceptual=0.1)
    with pytest.raises(CheckpointError, match=r"vgg: .*no such model"):
        call(TrainingLosses, vgg="nothing.safetensors", perceptual=0.1)


@pytest.mark.parametrize("id_", ["pixel", "judge", "gan", "discriminator"])
def test_unknown_choices_are_refused_by_the_name_of_their_input(id_: str) -> None:
    with pytest.raises(ValueError, match=f"^{id_}: expected one of"):
        call(TrainingLosses, **{id_: "other"})


def test_at_least_one_term_is_asked_for() -> None:
    nothing = dict.fromkeys(("pixel_weight", "upsampler", "refine", "blind", "controller"), 0.0)
    with pytest.raises(ValueError, match="pixel_weight: expected a weight above 0"):
        call(TrainingLosses, **nothing)


def test_a_changed_file_is_read_again(trunk: Path) -> None:
    inputs = {"vgg": "vgg.safetensors"}
    mark = TrainingLosses.fingerprint_inputs(**inputs)
    assert mark == TrainingLosses.fingerprint_inputs(**inputs)
    trunk.write_bytes(trunk.read_bytes() + b" ")
    assert mark != TrainingLosses.fingerprint_inputs(**inputs)
    assert TrainingLosses.fingerprint_inputs(vgg="random") == TrainingLosses.fingerprint_inputs(vgg="random")
    assert TrainingLosses.fingerprint_inputs(vgg=None) == TrainingLosses.fingerprint_inputs(vgg=None)  # of a link
    gone = TrainingLosses.fingerprint_inputs(vgg="nothing.safetensors")
    assert gone != TrainingLosses.fingerprint_inputs(vgg="nothing.safetensors")
