"""Loading and saving models: bundled names, files, what is refused, and that nothing is lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from progressive_upsampling.core.checkpoint import CheckpointError, read_checkpoint
from progressive_upsampling.core.upsamplers import registry
from progressive_upsampling.nodes import _runtime, load_model
from progressive_upsampling.nodes.load_model import LoadModel
from progressive_upsampling.nodes.progressive_upscale import ProgressiveUpscale
from progressive_upsampling.nodes.save_model import SaveModel
from progressive_upsampling.nodes.train import Train
from progressive_upsampling.nodes.upsample import Upsample

from .conftest import call

Picture = Callable[..., Tensor]


def names_offered() -> list[str]:
    (port,) = LoadModel.GET_SCHEMA().inputs
    return port.options


def test_a_saved_model_is_offered_and_gives_the_same_picture(picture: Picture, chain: Any, model_folder: Path) -> None:
    (path,) = call(SaveModel, model=chain, filename_prefix="mine/first")
    assert Path(path) == model_folder / "mine" / "first_00001.safetensors"
    name = os.path.join("mine", "first_00001.safetensors")
    assert name in names_offered()
    (loaded,) = call(LoadModel, model_name=name)
    assert loaded.provenance == chain.provenance
    ours, theirs = (call(ProgressiveUpscale, image=picture(), model=m, scale=2.0)[0] for m in (loaded, chain))
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_saving_again_counts_on_and_overwrites_nothing(chain: Any, model_folder: Path) -> None:
    first, second = (Path(call(SaveModel, model=chain, filename_prefix="again")[0]) for _ in range(2))
    assert (first.name, second.name) == ("again_00001.safetensors", "again_00002.safetensors")
    assert sorted(path.name for path in model_folder.iterdir()) == [first.name, second.name]


def test_fp16_halves_the_file(chain: Any, model_folder: Path) -> None:
    whole, half = (
        Path(call(SaveModel, model=chain, precision=precision)[0]).stat().st_size for precision in ("fp32", "fp16")
    )
    assert half < 0.75 * whole


@pytest.mark.parametrize("prefix", ["", "  ", "../up", "a/../../b", "/tmp/x", "..", "sub/", "what?"])
def test_prefixes_that_lead_astray_are_refused(chain: Any, model_folder: Path, prefix: str) -> None:
    with pytest.raises(ValueError, match="filename_prefix: expected"):
        call(SaveModel, model=chain, filename_prefix=prefix)
    assert list(model_folder.iterdir()) == []


def test_a_folder_that_cannot_be_written_leaves_nothing(
    chain: Any, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(CheckpointError, match="cannot be written: Permission denied"):
        call(SaveModel, model=chain)
    assert list(model_folder.iterdir()) == []


def test_loading_twice_gives_the_same_object_until_the_file_changes(chain: Any, model_folder: Path) -> None:
    (path,) = call(SaveModel, model=chain, filename_prefix="once")
    name = Path(path).name
    first = call(LoadModel, model_name=name)[0]
    mark = LoadModel.fingerprint_inputs(model_name=name)
    assert call(LoadModel, model_name=name)[0] is first
    assert LoadModel.fingerprint_inputs(model_name=name) == mark
    os.utime(path, ns=(1, 1))
    assert LoadModel.fingerprint_inputs(model_name=name) != mark
    assert call(LoadModel, model_name=name)[0] is not first


def test_weights_loaded_in_inference_mode_can_be_trained(chain: Any, model_folder: Path) -> None:
    (path,) = call(SaveModel, model=chain, filename_prefix="trainable")
    with torch.inference_mode():
        (loaded,) = call(LoadModel, model_name=Path(path).name)
    assert not any(parameter.is_inference() for parameter in loaded.parameters())


@pytest.mark.parametrize("name", ["nothing.safetensors", "../x.safetensors", "", "default2"])
def test_unknown_models_are_refused_with_those_there_are(name: str, model_folder: Path) -> None:
    (model_folder / "here.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"no such model; there are: default, here\.safetensors"):
        call(LoadModel, model_name=name)
    mark = LoadModel.fingerprint_inputs(model_name=name)
    assert mark != LoadModel.fingerprint_inputs(model_name=name)  # never taken as unchanged


def test_the_names_in_the_error_are_those_that_can_be_chosen(model_folder: Path) -> None:
    with pytest.raises(CheckpointError) as error:
        call(LoadModel, model_name="output/gone/last.safetensors")
    assert str(error.value) == f"'output/gone/last.safetensors': no such model; there are: {', '.join(names_offered())}"


def test_upsample_reads_a_changed_file_again(model_folder: Path) -> None:
    path = model_folder / "own.safetensors"
    path.write_bytes(b"one")

    def mark(method: str | None = "edsr", checkpoint: str | None = "own.safetensors") -> Any:
        return Upsample.fingerprint_inputs(method=method, checkpoint=checkpoint, scale=2.0)

    before = mark()
    assert before == mark() and mark(None) == before
    path.write_bytes(b"another")
    assert mark() != before and mark(None) != before
    assert mark("bicubic", "gone.safetensors") == mark("bicubic", "gone.safetensors")  # which reads no file
    assert mark(checkpoint="bundled") == mark(checkpoint="bundled")
    assert mark(checkpoint="gone.safetensors") != mark(checkpoint="gone.safetensors")  # never taken as unchanged


def test_train_measures_again_with_a_changed_file(model_folder: Path) -> None:
    path = model_folder / "squeezenet.safetensors"
    path.write_bytes(b"one")
    before = Train.fingerprint_inputs(squeezenet=path.name, steps=1)
    assert before == Train.fingerprint_inputs(squeezenet=path.name, steps=1)
    path.write_bytes(b"another")
    assert Train.fingerprint_inputs(squeezenet=path.name, steps=1) != before
    assert Train.fingerprint_inputs(squeezenet="none") == Train.fingerprint_inputs(squeezenet="none")


def test_a_name_that_comes_through_a_link_does_not_make_the_node_run_again() -> None:
    for node, name in ((LoadModel, "model_name"), (Upsample, "checkpoint"), (Train, "squeezenet")):
        assert node.fingerprint_inputs(**{name: None}) == node.fingerprint_inputs(**{name: None})  # what ComfyUI tells


def test_a_subfolder_of_the_models_may_be_a_link_to_another_disk(
    chain: Any, model_folder: Path, tmp_path: Path
) -> None:
    link = model_folder / "big"
    link.symlink_to(tmp_path, target_is_directory=True)
    try:
        (path,) = call(SaveModel, model=chain, filename_prefix="big/mine")
    finally:
        link.unlink()
    assert Path(path) == link / "mine_00001.safetensors"
    assert (tmp_path / "mine_00001.safetensors").is_file()


@pytest.mark.parametrize("content", [b"", b"hello", b"\x08\0\0\0\0\0\0\0{}"], ids=["empty", "text", "cut"])
def test_damaged_files_are_refused(content: bytes, model_folder: Path) -> None:
    (model_folder / "bad.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"bad\.safetensors"):
        call(LoadModel, model_name="bad.safetensors")


def test_pickles_are_not_offered_and_refused_by_any_name(model_folder: Path) -> None:
    pickled = b"PK\x03\x04 torch archive"
    (model_folder / "old.pth").write_bytes(pickled)
    (model_folder / "disguised.safetensors").write_bytes(pickled)
    assert "old.pth" not in names_offered()
    for name in ("old.pth", "disguised.safetensors"):
        with pytest.raises(CheckpointError, match="convert"):
            call(LoadModel, model_name=name)


def test_what_is_no_model_is_refused(picture: Picture) -> None:
    with pytest.raises(TypeError, match=r"model: expected a progressive model \(PU_MODEL\), got str"):
        call(ProgressiveUpscale, image=picture(), model="default")


@pytest.fixture
def espcn(model_folder: Path) -> Any:
    network = registry.build_upsampler({"kind": "espcn", "scale": 3}).eval()
    registry.save_upsampler(network, model_folder / "own.safetensors", provenance={})
    return network


def test_upsample_runs_a_network_of_a_file(picture: Picture, espcn: Any) -> None:
    image = picture()
    inputs = {"image": image, "method": "espcn", "checkpoint": "own.safetensors", "precision": "fp32"}
    (result,) = call(Upsample, scale=3.0, **inputs)
    with torch.no_grad():
        expected = espcn(image.movedim(-1, 1)).clamp(0, 1).movedim(1, -1)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)
    (further,) = call(Upsample, scale=3.5, **inputs)  # twice through the network, then reduced
    assert further.shape == (1, 74, 119, 3)


def test_upsample_refuses_a_file_of_another_network(picture: Picture, espcn: Any) -> None:
    with pytest.raises(CheckpointError, match=r"expected one of edsr, 'own\.safetensors' is of espcn"):
        call(Upsample, image=picture(), method="edsr", checkpoint="own.safetensors")


def test_a_chain_is_no_upsampler_and_the_other_way_round(
    picture: Picture, chain: Any, espcn: Any, model_folder: Path
) -> None:
    (path,) = call(SaveModel, model=chain)
    with pytest.raises(CheckpointError, match="expected a checkpoint of kind 'upsampler', got 'chain'"):
        call(Upsample, image=picture(), method="espcn", checkpoint=Path(path).name)
    with pytest.raises(CheckpointError, match="expected a checkpoint of kind 'chain', got 'upsampler'"):
        call(LoadModel, model_name="own.safetensors")


def test_bundled_networks_are_chosen_by_scale(
    picture: Picture, espcn: Any, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from progressive_upsampling.nodes import _upsamplers

    asked = []

    def path(name: str) -> str:
        asked.append(name)
        return str(model_folder / "own.safetensors")

    monkeypatch.setattr(_upsamplers, "bundled", lambda: ["default", "espcn_x2", "espcn_x4", "espcn_xl"])
    monkeypatch.setattr(_runtime, "model_path", path)
    for scale in (1.5, 2.0, 2.1, 7.0):
        call(Upsample, image=picture(), method="espcn", scale=scale)
    assert asked == ["espcn_x2", "espcn_x2", "espcn_x4", "espcn_x4"]
    for width, height in ((40, 10), (10, 40)):  # the side that grows most decides
        call(Upsample, image=picture(10, 10), method="espcn", width=width, height=height)
    assert asked[4:] == ["espcn_x4", "espcn_x4"]
    with pytest.raises(CheckpointError, match="no fsrcnn is bundled"):
        call(Upsample, image=picture(), method="fsrcnn")


def test_the_bundled_chains_are_offered_and_nothing_else_bundled() -> None:
    offered = load_model.bundled_chains()
    assert set(offered) <= set(names_offered())
    for name in offered:
        assert read_checkpoint(_runtime.model_path(name)).kind == "chain"


def test_a_models_folder_that_cannot_be_made_is_still_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "makedirs", refuse)
    assert _runtime.model_files() == []
