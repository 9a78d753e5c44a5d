"""The tool that measures what is bundled and renders the pages, on small stand-ins."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from progressive_upsampling.core.checkpoint import read_checkpoint, tensor_digest, write_checkpoint
from progressive_upsampling.core.denoiser_file import load_denoiser
from progressive_upsampling.core.evaluate import evaluate_folder
from progressive_upsampling.core.evaluate_denoising import blind, evaluate_denoising
from progressive_upsampling.core.squeezenet import SqueezeNet
from progressive_upsampling.core.tensor_file import read_stored

from .quality import __main__ as tool
from .quality import measure as measuring
from .quality import photographs
from .quality.blocks import replaced
from .quality.ledger import read_ledger
from .quality.models import Bundled, bundled_models
from .quality.tables import counted, quality_tables, score

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(
    tmp_path: Path, weights: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Runs the tool on the stand-ins: exit status, and what it said."""
    (tmp_path / "core" / "weights").mkdir(parents=True)
    for path, name in ((tmp_path / "README.md", "quality"), (tmp_path / "core" / "weights" / "README.md", "cards")):
        path.write_text(f"# Title\n\n<!-- {name}: begin -->\nold\n<!-- {name}: end -->\n\nThe rest.\n")
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    monkeypatch.setattr(tool, "PEERS", tmp_path / "peers.json")
    monkeypatch.setattr(photographs, "SIDE", 48)
    monkeypatch.setattr(photographs, "PLACES", {name: (60, 180) for name in photographs.PLACES})

    def call(*words: object) -> tuple[int, str]:
        where = ["--data", data] if words[0] == "measure" else []
        where += [] if words[0] == "bundle" else ["--json", tmp_path / "quality.json"]
        status = tool.main([str(word) for word in (*words, *where)])
        out, err = capsys.readouterr()
        return status, out + err

    return call


@pytest.fixture
def figures(tmp_path: Path) -> Callable[[], dict[str, Any]]:
    return lambda: json.loads((tmp_path / "quality.json").read_text())["models"]


def nudge(path: Path, name: str, by: float) -> None:
    """Change one tensor of a checkpoint."""
    checkpoint, (stored, _) = read_checkpoint(path), read_stored(path)
    stored[name] = stored[name] + by
    write_checkpoint(path, stored, kind=checkpoint.kind, config=checkpoint.config, provenance=checkpoint.provenance)


def test_every_kind_of_model_is_measured_at_what_it_is_for(run: Run, figures, data: Path) -> None:
    status, said = run("measure")
    assert status == 0 and "Set14: left out" in said
    found = figures()
    assert list(found) == ["bicubic", "noisy", "default", "denoiser", "edsr_x3"]
    scales = {name: sorted(record.get("results", {})) for name, record in found.items()}
    chain = [f"{folder} x{scale}" for folder in ("B100", "Set5") for scale in (2, 4, 8)]
    assert scales["default"] == chain and scales["edsr_x3"] == ["B100 x3", "Set5 x3"] and scales["denoiser"] == []
    assert scales["bicubic"] == sorted([*chain, *scales["edsr_x3"]])
    for name in ("noisy", "default", "denoiser"):
        assert sorted(found[name]["denoising"]) == ["CBSD68 15", "CBSD68 25", "CBSD68 50"]
    assert "denoising" not in found["edsr_x3"]


def test_the_figures_are_those_of_the_library(run: Run, figures, data: Path, weights: Path) -> None:
    assert run("measure")[0] == 0
    models = {model.name: model for model in bundled_models()}
    expected = evaluate_folder(data / "Set5", 4, {"default": models["default"].enlarge("fp32")}).mean("default")
    found = figures()["default"]["results"]["Set5 x4"]
    assert found["pictures"] == 2 and "distance" not in found and "float32" in found["by"]
    assert found["psnr"] == pytest.approx(expected.psnr, abs=1e-4)
    assert found["ssim"] == pytest.approx(expected.ssim, abs=1e-5)
    assert found["spectrum"] == pytest.approx(expected.spectrum, abs=1e-4)
    clean = {"denoiser": blind(load_denoiser("denoiser"), dtype="fp32")}
    denoised = evaluate_denoising(data / "B100", 25, clean, names=["0.png", "2.png"])
    found = figures()["denoiser"]["denoising"]["CBSD68 25"]
    assert found["pictures"] == 2 and found["psnr"] == pytest.approx(denoised.mean("denoiser").psnr, abs=1e-4)
    assert figures()["default"]["sha256"] == tensor_digest(weights / "default.safetensors")


def test_what_has_been_measured_is_not_measured_again(run: Run, figures, weights: Path, monkeypatch) -> None:
    assert run("measure")[0] == 0
    before = figures()
    status, said = run("measure")
    assert status == 0 and said == "Set14: left out, not in the folder\n" and figures() == before
    nudge(weights / "edsr_x3.safetensors", "head.weight", 0.01)
    status, said = run("measure")
    assert status == 0 and "default" not in said and "Set5 x3: bicubic, edsr_x3" in said
    after = figures()
    assert after["default"] == before["default"] and after["edsr_x3"]["sha256"] != before["edsr_x3"]["sha256"]
    assert after["edsr_x3"]["photographs"] != before["edsr_x3"]["photographs"]
    status, said = run("measure", "--again", "--only", "edsr_x3")
    assert status == 0 and "B100 x3: bicubic, edsr_x3" in said and "default" not in said
    assert figures()["edsr_x3"]["photographs"] == after["edsr_x3"]["photographs"]
    (weights / "edsr_x3.safetensors").unlink()
    assert run("measure")[0] == 0 and "edsr_x3" not in figures()


def test_one_model_can_be_measured_alone(run: Run, figures) -> None:
    status, said = run("measure", "--only", "edsr_x3")
    assert status == 0 and "denoiser" not in said
    assert "results" in figures()["edsr_x3"] and "results" not in figures()["default"]
    status, said = run("measure", "--only", "edsr_x5")
    assert status == 1 and "edsr_x5" in said


def test_what_is_done_is_kept_when_it_is_stopped(run: Run, figures, monkeypatch) -> None:
    calls = []

    def stop(folder: Path, scale: int, *args: object, **options: object) -> object:
        calls.append((folder.name, scale))
        if scale == 4:
            raise KeyboardInterrupt
        return evaluate_folder(folder, scale, *args, **options)

    monkeypatch.setattr(measuring, "evaluate_folder", stop)
    with pytest.raises(KeyboardInterrupt):
        run("measure")
    assert calls == [("Set5", 2), ("Set5", 3), ("Set5", 4)]
    assert sorted(figures()["bicubic"]["results"]) == ["Set5 x2", "Set5 x3"]
    monkeypatch.setattr(measuring, "evaluate_folder", lambda *a, **o: calls.append(1) or evaluate_folder(*a, **o))
    assert run("measure")[0] == 0 and len(calls) == 3 + 6


def test_pd_squeeze_is_added_where_its_weights_are_given_and_not_mixed(run: Run, figures, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name in ("a", "b"):
            save_file(dict(SqueezeNet().named_parameters()), tmp_path / f"{name}.safetensors")
    assert run("measure", "--only", "edsr_x3")[0] == 0
    before = figures()["edsr_x3"]["results"]["Set5 x3"]
    assert run("measure", "--only", "edsr_x3", "--squeezenet", tmp_path / "a.safetensors")[0] == 0
    after = figures()["edsr_x3"]["results"]["Set5 x3"]
    assert after["distance"] > 0 and after["psnr"] == before["psnr"]
    assert figures()["bicubic"]["results"]["Set5 x3"]["distance"] > 0
    status, said = run("measure", "--squeezenet", tmp_path / "b.safetensors")
    assert status == 1 and "cannot be compared" in said


def test_the_pages_are_rendered_and_checked(run: Run, tmp_path: Path, weights: Path) -> None:
    status, said = run("render", "--check")
    assert status == 1 and "default is not in it" in said
    assert run("measure")[0] == 0
    status, said = run("render", "--check")
    assert status == 1 and "-old" in said
    assert run("render") == (0, "") and run("render", "--check") == (0, "")
    readme, cards = (tmp_path / "README.md").read_text(), (tmp_path / "core" / "weights" / "README.md").read_text()
    assert readme.startswith("# Title\n\n<!-- quality: begin, ") and readme.endswith(
        "<!-- quality: end -->\n\nThe rest.\n"
    )
    for text in (
        "| ×8 |",
        "| **edsr_x3** |",
        "| FSRCNN, published | 12K | 37.00/.9558 |",
        "| **denoiser** |",
        "| CBM3D,",
    ):
        assert text in readme
    assert "old" not in readme
    for name, kind in (("default", "chain"), ("denoiser", "denoiser"), ("edsr_x3", "edsr")):
        assert f"## `{name}`\n\nA small {kind}.\n" in cards
    assert "| limits | small \\| odd |" in cards and "| seed | 3 |" in cards and "float16" in cards
    nudge(weights / "edsr_x3.safetensors", "head.weight", 0.01)
    status, said = run("render")
    assert status == 1 and "the weights of edsr_x3 have changed" in said


def test_peers_stand_beside_what_is_bundled(run: Run, tmp_path: Path) -> None:
    assert run("measure", "--only", "edsr_x3")[0] == 0
    ledger = read_ledger(tmp_path / "quality.json")
    told = {"parameters": 664704, "results": {"Set5 x3": {"psnr": 33.756, "ssim": 0.9229, "distance": 0.2}}}
    shown = quality_tables(ledger, {"peers": {"VDSR": told}})
    assert "| VDSR, run here | 0.66M | 33.76/.9229 | – | – |" in shown


def test_a_card_changes_what_is_told_and_no_tensor(run: Run, weights: Path) -> None:
    path = weights / "default.safetensors"
    before, digest = read_stored(path)[0], tensor_digest(path)
    assert run("measure", "--only", "default")[0] == 0
    words = ["--set", "limits=smooth = flat", "--set", "seed=null", "--set", 'data=["a", "b"]', "--metrics"]
    assert run("card", "default", *words)[0] == 0
    after = read_stored(path)[0]
    assert tensor_digest(path) == digest and {tensor.dtype for tensor in after.values()} == {torch.float16}
    assert all(torch.equal(before[name], after[name]) for name in before)
    provenance = read_checkpoint(path).provenance
    assert provenance["limits"] == "smooth = flat" and provenance["data"] == ["a", "b"] and "seed" not in provenance
    assert provenance["licence"] == "MIT" and "Set5 x8" in provenance["metrics"]["Y-PSNR/SSIM"]
    for wrong in (["--set", "limits"], ["--set", "=x"]):
        assert run("card", "default", *wrong)[0] == 1
    assert run("card", "edsr_x3", "--metrics")[0] == 1


def test_a_trained_model_is_bundled_in_half_precision(run: Run, weights: Path, tmp_path: Path) -> None:
    folder, source = tmp_path / "core" / "weights", weights / "edsr_x3.safetensors"
    assert run("bundle", source, "small_x3", "--set", "limits=none")[0] == 0
    stored = read_stored(folder / "small_x3.safetensors")[0]
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    assert all(torch.equal(stored[name], tensor.half()) for name, tensor in read_stored(source)[0].items())
    made = read_checkpoint(folder / "small_x3.safetensors")
    assert made.kind == "upsampler" and made.config == read_checkpoint(source).config
    assert (made.provenance["name"], made.provenance["limits"], made.provenance["seed"]) == ("small_x3", "none", 3)
    assert run("bundle", source, "whole", "--whole")[0] == 0
    assert tensor_digest(folder / "whole.safetensors") == tensor_digest(source)
    assert run("bundle", weights / "default.safetensors", "clean", "--denoiser")[0] == 0
    made = read_checkpoint(folder / "clean.safetensors")
    assert made.kind == "denoiser" and made.provenance["description"] == "A small chain"


def test_a_changed_weight_shows_in_the_stored_figures(run: Run, weights: Path) -> None:
    for model in bundled_models():
        before = photographs.figures(model)
        stored = read_stored(model.path)[0]
        nudge(model.path, max(stored, key=lambda name: stored[name].numel()), 0.05)
        after = photographs.figures(Bundled(model.name))
        assert before.keys() == after.keys() and max(abs(after[key] - before[key]) for key in before) > 0.02


def test_a_part_is_replaced_only_where_there_is_one() -> None:
    text = "a\n<!-- x: begin, whatever -->\nold\n<!-- x: end -->\nb\n"
    once = replaced(text, "x", "new\\1\n")
    assert "new\\1" in once and "old" not in once and replaced(once, "x", "new\\1") == once
    assert once.startswith("a\n<!-- x: begin, ") and once.endswith("\n\n<!-- x: end -->\nb\n")
    for wrong in ("nothing", text + text, text.replace("x: end", "y: end")):
        with pytest.raises(ValueError, match="expected one part"):
            replaced(wrong, "x", "new")


def test_figures_are_written_as_papers_do() -> None:
    assert score({"psnr": 37.2419, "ssim": 0.95721}) == "37.24/.9572" and score(None) == "–"
    assert [counted(count) for count in (3703798, 664704, 12464, None)] == ["3.70M", "0.66M", "12K", "–"]


def test_a_file_of_something_else_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "quality.json").write_text("[]")
    status, said = run("measure")
    assert status == 1 and "expected a file that `measure` has written" in said and said.count("\n") == 1
