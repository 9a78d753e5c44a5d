"""What nodes say of inputs that cannot be, by the names that their users know; and where they can be stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.model_management as management
import folder_paths
import pytest
import torch
from torch import Tensor

from progressive_upsampling.nodes import _runtime
from progressive_upsampling.nodes.adaptive_noise import AdaptiveNoise
from progressive_upsampling.nodes.compare import Compare
from progressive_upsampling.nodes.denoise import AttnUNetDenoise
from progressive_upsampling.nodes.inject_noise import InjectNoise
from progressive_upsampling.nodes.multi_scale_fuse import MultiScaleFuse
from progressive_upsampling.nodes.progressive_upscale import ProgressiveUpscale
from progressive_upsampling.nodes.residual_skip import ResidualSkip
from progressive_upsampling.nodes.save_model import SaveModel
from progressive_upsampling.nodes.training_losses import TrainingLosses

from .conftest import call

Picture = Callable[..., Tensor]
NO_LOSS = dict.fromkeys(("pixel_weight", "upsampler", "refine", "blind", "controller"), 0.0)


@pytest.mark.parametrize(
    ("node", "inputs", "words"),
    [
        (ProgressiveUpscale, {"steps": "3"}, "steps: expected one of '1', '2', '4', '8', got str '3'"),
        (AttnUNetDenoise, {"steps": "many"}, "steps: expected one of '1', '2', '4', '8', got str 'many'"),
        (InjectNoise, {"distribution": "pink"}, "distribution: expected one of .*'correlated', got str 'pink'"),
        (ResidualSkip, {"mode": "all"}, "mode: expected one of .*'back_projection', got str 'all'"),
        (
            MultiScaleFuse,
            {"mode": "weighted", "weights": "-1, 2"},
            "weights, number 1: expected a number >= 0, got -1.0",
        ),
        (TrainingLosses, NO_LOSS, "pixel_weight: expected a weight above 0, here or for another term, got none"),
    ],
)
def test_an_error_names_the_input(picture: Picture, node: type[Any], inputs: dict[str, Any], words: str) -> None:
    ports = {port.id for port in node.GET_SCHEMA().inputs}
    images = {name: picture() for name in ("image", "noisy_image", "current", "previous", "image_1", "image_2")}
    given = {name: value for name, value in images.items() if name in ports}
    with pytest.raises(ValueError, match=words):
        call(node, **given, **inputs)


def test_a_term_alone_is_enough_of_a_loss() -> None:
    (terms,) = call(TrainingLosses, **NO_LOSS, ssim=0.5)
    assert terms.loss.weights == {"ssim": 0.5}


@pytest.mark.parametrize(("length", "fits"), [(200, True), (201, False), (67, False)])
def test_a_name_too_long_for_a_file_is_refused(chain: Any, model_folder: Path, length: int, fits: bool) -> None:
    prefix = "字" * 67 if length == 67 else "a" * length  # 201 bytes
    if fits:
        assert Path(call(SaveModel, model=chain, filename_prefix=prefix)[0]).exists()
        return
    with pytest.raises(ValueError, match="filename_prefix: expected names of at most 200 bytes, got one of 201"):
        call(SaveModel, model=chain, filename_prefix=prefix)


def test_models_are_saved_in_comfyuis_own_folder_whatever_other_comes_first(
    chain: Any, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = str(tmp_path / "other")
    monkeypatch.setattr(folder_paths, "get_folder_paths", lambda name: [other, str(model_folder)])
    assert Path(call(SaveModel, model=chain, filename_prefix="mine")[0]).parent == model_folder


def test_a_file_of_vgg19_that_is_not_read_does_not_make_losses_new() -> None:
    gone = {"vgg": "gone.safetensors"}
    mark = TrainingLosses.fingerprint_inputs(**gone, perceptual=0.0)
    assert mark == TrainingLosses.fingerprint_inputs(**gone, perceptual=0.0)
    for perceptual in (0.1, None):  # None is linked
        mark = TrainingLosses.fingerprint_inputs(**gone, perceptual=perceptual)
        assert mark != TrainingLosses.fingerprint_inputs(**gone, perceptual=perceptual)


def test_the_colour_difference_is_of_what_the_other_numbers_are_of(picture: Picture) -> None:
    image = torch.full((1, 40, 40, 3), 0.5)
    reference = torch.ones(1, 40, 40, 3)
    reference[:, 8:-8, 8:-8] = 0.5
    text, _, _ = call(Compare, image=image, reference=reference, crop=8)
    assert text.endswith("+0.00 +0.00 +0.00")
    text, _, _ = call(Compare, image=image * 4, reference=torch.ones_like(image))
    assert "PSNR inf" in text and text.endswith("+0.00 +0.00 +0.00")


STOPPED: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "gradient map": (AdaptiveNoise, {"mode": "gradient"}),
    "noise": (InjectNoise, {}),
    "correlated noise": (InjectNoise, {"distribution": "correlated"}),
    **{
        f"{mode} fusion, {structure}": (MultiScaleFuse, {"mode": mode, "structure": structure})
        for mode in ("weighted", "attention")
        for structure in ("flat", "hierarchical", "laplacian")
    },
    **{f"{mode} skip": (ResidualSkip, {"mode": mode, "levels": 3}) for mode in ("constant", "cosine", "attention")},
}


@pytest.mark.parametrize("case", STOPPED)
def test_work_without_networks_stops_in_its_middle_too(
    picture: Picture, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    node, inputs = STOPPED[case]
    images = {"image": picture(90, 90), "current": picture(90, 90), "previous": picture(45, 45)}
    images |= {"image_1": picture(90, 90), "image_2": picture(45, 45)}
    given = {port.id: images[port.id] for port in node.GET_SCHEMA().inputs if port.id in images}
    polls: list[int] = []

    def poll(at: int) -> None:
        polls.append(at)
        if len(polls) == at:
            raise management.InterruptProcessingException

    monkeypatch.setattr(_runtime, "check_cancelled", lambda: poll(0))
    call(node, **given, **inputs)
    assert len(polls) >= {InjectNoise: 2, AdaptiveNoise: 3}.get(node, 5)
    last = len(polls) - 1
    polls.clear()
    monkeypatch.setattr(_runtime, "check_cancelled", lambda: poll(last))
    with pytest.raises(management.InterruptProcessingException):
        call(node, **given, **inputs)
