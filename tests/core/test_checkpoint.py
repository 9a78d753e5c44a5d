"""core.checkpoint: what is written is what is read, and every bad file is one clear error."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from progressive_upsampling.core import checkpoint as ck
from progressive_upsampling.core.checkpoint import CheckpointError

CONFIG = {"kind": "edsr", "widths": [1, 2], "nested": {"a": None, "b": 0.5}}
PROVENANCE = {"data": "T91", "licence": "MIT"}


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        "a.weight": torch.randn(4, 3, 3, 3, generator=generator),
        "a.bias": torch.randn(4, generator=generator),
        "steps": torch.tensor(7),
    }


def write(path: Path, **changes) -> Path:
    arguments = {"kind": "upsampler", "config": CONFIG, "provenance": PROVENANCE, **changes}
    return ck.write_checkpoint(path, arguments.pop("tensors", None) or tensors(), **arguments)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "model.safetensors")


def with_metadata(path: Path, **changes: str | None) -> Path:
    with safe_open(path, "pt") as opened:
        stored = {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118
        metadata = {**opened.metadata(), **changes}
    save_file(stored, path, {key: value for key, value in metadata.items() if value is not None})
    return path


def message_of(function, *arguments, **options) -> str:
    with pytest.raises(CheckpointError) as caught:
        function(*arguments, **options)
    assert caught.value.__cause__ is None or isinstance(caught.value.__cause__, OSError)
    text = str(caught.value)
    assert "\n" not in text
    return text


# what is written is what is read


def test_checkpoint_comes_back_as_written(file: Path) -> None:
    read = ck.read_checkpoint(file, kind="upsampler")
    assert (read.kind, read.config, read.provenance) == ("upsampler", CONFIG, PROVENANCE)
    assert (read.version, read.path) == (ck.FORMAT_VERSION, file)
    assert read.tensors.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert torch.equal(read.tensors[name], tensor)
        assert read.tensors[name].dtype == tensor.dtype


def test_metadata_is_what_the_format_says(file: Path) -> None:
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    assert metadata["format"] == "progressive_upsampling"
    assert metadata["format_version"] == "1"
    assert metadata["kind"] == "upsampler"
    assert json.loads(metadata["config"]) == CONFIG
    assert json.loads(metadata["provenance"]) == PROVENANCE
    assert ck.read_metadata(file) == metadata


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_storage_halves_the_file_and_reads_as_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    weights = {"w": torch.randn(100, 100), "n": torch.arange(3)}
    whole = write(tmp_path / "whole.safetensors", tensors=weights)
    half = write(tmp_path / "half.safetensors", tensors=weights, dtype=dtype)
    assert half.stat().st_size < 0.55 * whole.stat().st_size
    read = ck.read_checkpoint(half).tensors
    assert read["w"].dtype == torch.float32
    assert torch.equal(read["w"], weights["w"].to(dtype).float())
    assert read["n"].dtype == torch.int64


def test_views_shared_memory_and_gradients_are_written_and_left_alone(tmp_path: Path) -> None:
    base = torch.randn(4, 6, requires_grad=True)
    given = {"whole": base, "turned": base.t(), "part": base[1:, ::2]}
    before = base.detach().clone()
    read = ck.read_checkpoint(write(tmp_path / "m.safetensors", tensors=given)).tensors
    assert all(torch.equal(read[name], tensor) for name, tensor in given.items())
    assert torch.equal(base, before)


def test_writing_over_a_checkpoint_that_was_read_replaces_it(file: Path) -> None:
    old = ck.read_checkpoint(file).tensors
    write(file, tensors={"a.weight": torch.zeros(2)})
    assert torch.equal(ck.read_checkpoint(file).tensors["a.weight"], torch.zeros(2))
    assert torch.equal(old["a.weight"], tensors()["a.weight"])


def test_write_through_a_link_keeps_the_link(tmp_path: Path, file: Path) -> None:
    link = tmp_path / "link.safetensors"
    try:
        link.symlink_to(file)
    except OSError:
        pytest.skip("no links on this system")
    write(link, kind="chain")
    assert link.is_symlink()
    assert ck.read_checkpoint(file).kind == "chain"


# writing is all or nothing


def fails_with(code: int):
    def fail(*_arguments, **_options):
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_failed_write_keeps_the_old_file_and_leaves_nothing_else(
    file: Path, monkeypatch: pytest.MonkeyPatch, step: str, code: int
) -> None:
    before = file.read_bytes()
    monkeypatch.setattr(os, step, fails_with(code))
    text = message_of(write, file, kind="chain")
    assert str(file) in text
    assert os.strerror(code) in text
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == [file.name]


def test_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "m.safetensors")
    assert not os.listdir(tmp_path)


def test_full_disk_while_writing_leaves_nothing(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        text = message_of(write, tmp_path / "m.safetensors", tensors={"w": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old)
    assert "cannot be written" in text
    assert not os.listdir(tmp_path)


def test_read_only_folder_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the administrator may write anywhere, so the refusal itself is simulated as well
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o500)
    try:
        if os.access(folder, os.W_OK):
            monkeypatch.setattr(Path, "open", fails_with(errno.EACCES))
        text = message_of(write, folder / "m.safetensors")
    finally:
        folder.chmod(0o700)
    assert "cannot be written: Permission denied" in text
    assert not os.listdir(folder)


def test_write_refuses_another_suffix_and_a_missing_folder(tmp_path: Path) -> None:
    assert "ending in .safetensors" in message_of(write, tmp_path / "m.pth")
    assert "No such file or directory" in message_of(write, tmp_path / "no" / "m.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    assert "cannot be written" in message_of(write, tmp_path / "folder.safetensors")
    assert os.listdir(tmp_path) == ["folder.safetensors"]


def test_values_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    assert "w has values that are not finite" in message_of(
        write, path, tensors={"w": torch.tensor([1.0, float("nan")])}
    )
    # finite in float32, infinite in float16
    assert "float16" in message_of(write, path, tensors={"w": torch.tensor([1e6])}, dtype=torch.float16)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("part", ["config", "provenance"])
@pytest.mark.parametrize("bad", [{"a": object()}, {"a": float("nan")}, {"a": torch.zeros(1)}])
def test_config_that_is_no_json_is_not_written(tmp_path: Path, part: str, bad: dict) -> None:
    assert "must be JSON" in message_of(write, tmp_path / "m.safetensors", **{part: bad})
    assert not os.listdir(tmp_path)


# every bad file is one clear error


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 9, 100, -200, -1])
def test_truncated_file_is_one_clear_error(file: Path, keep: int) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[:keep])
    text = message_of(ck.read_checkpoint, file)
    assert str(file) in text
    assert ("empty" if keep == 0 else "truncated") in text


def test_any_changed_bit_of_the_tensors_is_noticed(file: Path) -> None:
    whole = file.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    for position in range(start, len(whole), 37):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert "checksum" in message_of(ck.read_checkpoint, file)


@pytest.mark.parametrize("name", ["model.safetensors", "picture.png", "notes"])
def test_text_is_one_clear_error(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("not a checkpoint at all, only some words\n" * 20)
    assert "no safetensors file" in message_of(ck.read_checkpoint, path)
    assert "no safetensors file" in message_of(ck.read_tensors, path)


def test_safetensors_of_something_else_is_refused_but_its_tensors_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"w": torch.ones(2, dtype=torch.float64)}, path, {"format": "pt"})
    assert "of something else" in message_of(ck.read_checkpoint, path)
    read, metadata = ck.read_tensors(path)
    assert (read["w"].dtype, metadata) == (torch.float32, {"format": "pt"})


def test_newer_format_says_update(file: Path) -> None:
    text = message_of(ck.read_checkpoint, with_metadata(file, format_version="2"))
    assert "format 2" in text
    assert "update" in text


@pytest.mark.parametrize("version", ["two", "", None])
def test_version_that_is_no_number_is_damage(file: Path, version: str | None) -> None:
    assert "format_version" in message_of(ck.read_checkpoint, with_metadata(file, format_version=version))


@pytest.mark.parametrize("key", ["config", "provenance"])
@pytest.mark.parametrize("value", ["{", "[1]", "3", None])
def test_metadata_that_is_no_object_is_damage(file: Path, key: str, value: str | None) -> None:
    text = message_of(ck.read_checkpoint, with_metadata(file, **{key: value}))
    assert f"{key} is no JSON object" in text


def test_wrong_kind_names_both(file: Path) -> None:
    text = message_of(ck.read_checkpoint, file, kind="chain")
    assert "expected a checkpoint of kind 'chain', got 'upsampler'" in text


def test_tensors_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"good": torch.zeros(2), "bad": torch.tensor([float("inf")])}, path)
    assert "infinite values in bad" in message_of(ck.read_tensors, path)


def test_file_whose_length_looks_like_a_pickle_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    for padding in range(700):
        save_file({"w": torch.ones(2)}, path, {"padding": "x" * padding})
        if path.read_bytes().startswith(b"\x80\x02"):
            break
    else:
        pytest.fail("no header of 640 bytes was made")
    assert torch.equal(ck.read_tensors(path)[0]["w"], torch.ones(2))


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".bin", ".pkl", ".PTH"])
def test_pickle_is_refused_with_the_way_to_convert_it(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"edsr{suffix}"
    path.write_bytes(b"anything")
    text = message_of(ck.read_tensors, path)
    assert "weights_only=True" in text
    assert "save_file" in text
    assert "edsr.safetensors" in text


@pytest.mark.parametrize("start", [b"PK\x03\x04", b"\x80\x02}q\x00.", b"\x80\x04\x95\x0b\x00\x00\x00"])
def test_pickle_named_safetensors_is_refused_with_the_way_to_convert_it(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(start + b"\x00" * 64)
    assert "weights_only=True" in message_of(ck.read_checkpoint, path)


@pytest.mark.slow
@pytest.mark.parametrize("wrapping", ["{}", "{{'params': {}, 'iter': 3}}", "{{'params_ema': {}}}"])
def test_the_way_to_convert_works_as_printed(tmp_path: Path, wrapping: str) -> None:
    path = tmp_path / "old model.pth"
    state = wrapping.format("{'w': torch.ones(3, 2).t(), 'v': torch.ones(6)[:2]}")
    subprocess.run([sys.executable, "-c", f"import torch; torch.save({state}, {str(path)!r})"], check=True)
    code = message_of(ck.read_tensors, path).partition('python -c "')[2].rstrip('"')
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    read, _ = ck.read_tensors(tmp_path / "old model.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in read.items()} == {"w": (2, 3), "v": (2,)}


# names


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir()
    for name in ("edsr_x2", "default"):
        write(folder / f"{name}.safetensors")
    (folder / "README.md").write_text("card")
    monkeypatch.setattr(ck, "_WEIGHTS", folder)
    return folder


def test_bundled_lists_the_stems_sorted(weights: Path) -> None:
    assert ck.bundled() == ["default", "edsr_x2"]


def test_bundled_without_a_folder_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ck, "_WEIGHTS", tmp_path / "nowhere")
    assert ck.bundled() == []


def test_resolve_finds_bundled_names_and_files(weights: Path, file: Path) -> None:
    assert ck.resolve("default") == weights / "default.safetensors"
    assert ck.resolve(str(file)) == file
    assert ck.resolve(file) == file


def test_a_bundled_name_wins_over_a_file(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "default").touch()
    monkeypatch.chdir(tmp_path)
    assert ck.resolve("default") == weights / "default.safetensors"


@pytest.mark.parametrize("name", ["defualt", ""])
def test_unknown_name_lists_the_bundled_ones(weights: Path, name: str) -> None:
    text = message_of(ck.resolve, name)
    assert repr(name) in text
    assert "default, edsr_x2" in text


def test_missing_file_and_folder_are_clear(weights: Path, tmp_path: Path) -> None:
    assert "no such file" in message_of(ck.resolve, tmp_path / "missing.safetensors")
    assert "no such file" in message_of(ck.resolve, "missing.safetensors")
    for function in (ck.resolve, ck.read_checkpoint, ck.read_tensors):
        assert "got a folder" in message_of(function, tmp_path)
    assert "no such file" in message_of(ck.read_checkpoint, tmp_path / "missing.safetensors")


# fitting tensors to a network


def test_load_into_fills_the_network() -> None:
    source, target = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
    ck.load_into(target, {f"net.{name}": value for name, value in source.state_dict().items()}, prefix="net.")
    assert torch.equal(target.weight, source.weight)
    assert torch.equal(target.bias, source.bias)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bias": None}, "1 missing: bias"),
        ({"gain": torch.zeros(1)}, "1 unexpected: gain"),
        ({"weight": torch.zeros(4, 3, 5, 5)}, r"weight (expected [4, 3, 3, 3], got [4, 3, 5, 5])"),
        ({"weight": torch.zeros(3, 4, 3, 3)}, "1 of another shape: weight (expected [4, 3, 3, 3], got [3, 4, 3, 3])"),
        ({f"k{i}": torch.zeros(1) for i in range(9)}, "9 unexpected: k0, k1, k2, k3 and 5 more"),
    ],
)
def test_load_into_names_what_does_not_fit_and_changes_nothing(change: dict, words: str) -> None:
    network = nn.Conv2d(3, 4, 3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    given = {name: torch.zeros_like(value) for name, value in before.items()} | change
    given = {name: value for name, value in given.items() if value is not None}
    wanted = ck.Checkpoint("upsampler", {}, given, {}, path=Path("some.safetensors"))
    text = message_of(ck.load_into, network, wanted)
    assert text.startswith("some.safetensors: tensors do not fit Conv2d")
    assert words in text
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
