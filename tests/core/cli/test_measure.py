from __future__ import annotations

import io
import json
import sys
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import save_file

from progressive_upsampling.core.chain import Chain
from progressive_upsampling.core.checkpoint import tensor_digest
from progressive_upsampling.core.cli import demo, main
from progressive_upsampling.core.cost import chain_cost, upsampler_cost
from progressive_upsampling.core.denoiser_file import load_denoiser, save_denoiser
from progressive_upsampling.core.evaluate import evaluate_folder
from progressive_upsampling.core.evaluate_denoising import blind, evaluate_denoising
from progressive_upsampling.core.perceptual_distance import PerceptualDistance
from progressive_upsampling.core.pictures import read_picture, write_picture
from progressive_upsampling.core.squeezenet import SqueezeNet, load_squeezenet
from progressive_upsampling.core.upsamplers import (
    EDSR,
    FSRCNN,
    EDSRConfig,
    FSRCNNConfig,
    load_upsampler,
    save_upsampler,
)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "set"
    path.mkdir()
    for name, size in (("a", (48, 60)), ("b", (51, 47))):
        write_picture(path / f"{name}.png", torch.rand(1, 3, *size))
    return path


def test_bicubic_comes_first_and_beside_every_model(run, folder, chain_file, network_file):
    models = ["--model", chain_file, "--model", network_file, "--model", "bicubic", "--model", "lanczos"]
    status, out, _ = run("evaluate", "--data", folder, "--scale", "2", *models)
    lines = out.splitlines()
    assert status == 0 and "2 pictures" in lines[0] and "Y-PSNR" in lines[1] and "Y-SSIM" in lines[1]
    assert [line.split()[0] for line in lines[2:]] == ["bicubic", "small", "edsr_x3", "lanczos"]


def test_the_figures_are_those_of_the_library(run, folder, chain_file, tmp_path):
    file = tmp_path / "out.json"
    assert run("evaluate", "--data", folder, "--scale", "3", "--model", chain_file, "--json", file)[0] == 0
    found = json.loads(file.read_text())
    chain = Chain.from_pretrained(chain_file)

    def enlarge(image: torch.Tensor, scale: int) -> torch.Tensor:
        return chain(image, scale)

    expected = evaluate_folder(folder, 3, {"small": enlarge})
    for name in ("bicubic", "small"):
        assert found["mean"][name]["psnr"] == pytest.approx(expected.mean(name).psnr, abs=0.01)
        assert found["mean"][name]["ssim"] == pytest.approx(expected.mean(name).ssim, abs=1e-3)


@pytest.fixture
def squeezenet_file(tmp_path):
    path = tmp_path / "squeezenet.safetensors"
    save_file(dict(SqueezeNet().named_parameters()), path)
    return path


def test_pd_squeeze_is_a_column_where_its_weights_are_given(run, folder, squeezenet_file, tmp_path):
    file, words = tmp_path / "out.json", ("evaluate", "--data", folder, "--scale", "2", "--model", "nearest")
    status, out, _ = run(*words, "--per-picture", "--squeezenet", squeezenet_file, "--json", file)
    lines = [line.split() for line in out.splitlines()]
    assert status == 0 and "PD-squeeze: distance of SqueezeNet 1.0 features" in out.splitlines()[0]
    assert lines[1][-2:] == ["PD-squeeze", "seconds"]
    judge = PerceptualDistance(load_squeezenet(squeezenet_file))
    expected = evaluate_folder(folder, 2, {}, distance=judge)
    assert [row[-2] for row in lines[2:] if "bicubic" in row] == [
        f"{row.distance:.4f}" for row in (*expected.rows, expected.mean("bicubic"))
    ]
    found = json.loads(file.read_text())
    assert found["mean"]["bicubic"]["distance"] == pytest.approx(expected.mean("bicubic").distance, rel=1e-4)
    assert found["mean"]["nearest"]["distance"] != found["mean"]["bicubic"]["distance"]


def test_without_weights_there_is_no_column_of_pd_squeeze(run, folder, tmp_path):
    file = tmp_path / "out.json"
    status, out, _ = run("evaluate", "--data", folder, "--scale", "2", "--model", "nearest", "--json", file)
    assert status == 0 and "PD-squeeze" not in out
    assert json.loads(file.read_text())["mean"]["nearest"]["distance"] is None


def test_weights_of_something_else_are_one_line(run, folder, network_file):
    words = ("evaluate", "--data", folder, "--scale", "2", "--squeezenet")
    for file in (network_file, folder / "a.png", folder / "missing.safetensors"):
        status, out, err = run(*words, file)
        assert status == 1 and out == "" and err.count("\n") == 1 and file.name in err


def test_each_picture_can_be_shown_and_rgb_measured(run, folder):
    status, out, _ = run("evaluate", "--data", folder, "--scale", "2", "--model", "nearest", "--per-picture", "--rgb")
    assert status == 0 and "RGB-PSNR" in out
    assert [line.split()[0] for line in out.splitlines()[2:]] == ["a.png"] * 2 + ["b.png"] * 2 + ["mean"] * 2


def test_reductions_may_be_left_unrounded(run, folder):
    words = ("evaluate", "--data", folder, "--scale", "2", "--model", "nearest")
    rounded, unrounded = run(*words), run(*words, "--unrounded")
    assert rounded[0] == unrounded[0] == 0
    assert "reduced without rounding" in unrounded[1] and "rounding" not in rounded[1]
    status, out, err = run("evaluate", "--data", folder, "--denoise", "25", "--unrounded")
    assert status == 1 and out == "" and "--unrounded: expected with --scale, got --denoise" in err


def test_a_list_of_names_restricts_the_pictures(run, folder, tmp_path):
    words = ("evaluate", "--data", folder, "--scale", "2", "--model", "nearest", "--per-picture")
    file = tmp_path / "list.txt"
    for line in ("b.png", "b"):
        file.write_text(f"\n {line} \n")
        status, out, _ = run(*words, "--list", file)
        assert status == 0 and "1 pictures" in out and "a.png" not in out and "b.png" in out
    file.write_bytes(b"\xef\xbb\xbfb.png\r\n")  # as Windows' editors write UTF-8
    status, out, _ = run(*words, "--list", file)
    assert status == 0 and "1 pictures" in out and "b.png" in out
    for content in (b"c.png\n", b"\n", b"\xff\xfe"):
        file.write_bytes(content)
        status, out, err = run(*words, "--list", file)
        assert status == 1 and out == "" and err.count("\n") == 1
    assert run(*words, "--list", tmp_path / "missing")[0] == 1


def test_denoising_is_measured_beside_the_noisy_pictures(run, folder, chain_file, tmp_path):
    denoiser, file = tmp_path / "clean.safetensors", tmp_path / "out.json"
    save_denoiser(load_denoiser(chain_file), denoiser, provenance={})
    words = ("evaluate", "--data", folder, "--denoise", "25", "--dtype", "fp32", "--per-picture", "--json", file)
    status, out, _ = run(*words, "--model", chain_file, "--model", denoiser)
    lines = out.splitlines()
    assert status == 0 and "noise of 25/255: 2 pictures" in lines[0] and "RGB-PSNR" in lines[1]
    assert [line.split()[1] for line in lines[2:-3]] == ["noisy", "small", "clean"] * 2
    expected = evaluate_denoising(folder, 25, {"small": blind(load_denoiser(chain_file), dtype="fp32")})
    found = json.loads(file.read_text())["mean"]
    assert found["noisy"]["psnr"] == expected.mean("noisy").psnr
    for name in ("small", "clean"):
        assert found[name]["psnr"] == pytest.approx(expected.mean("small").psnr, abs=1e-6)


def test_denoising_is_done_by_the_bundled_denoiser_where_none_is_named(run, folder):
    status, out, _ = run("evaluate", "--data", folder, "--denoise", "25")
    assert status == 0 and [line.split()[0] for line in out.splitlines()[2:]] == ["noisy", "denoiser"]


def test_denoising_takes_no_single_upsampler_and_no_scale(run, folder, network_file):
    status, _, err = run("evaluate", "--data", folder, "--denoise", "25", "--model", network_file)
    assert status == 1 and "expected a denoiser or a chain" in err and err.count("\n") == 1
    assert run("evaluate", "--data", folder, "--denoise", "25", "--scale", "2")[0] == 2
    assert run("evaluate", "--data", folder)[0] == 2


def test_models_of_one_name_are_told_apart(run, folder, chain_file):
    status, out, _ = run("evaluate", "--data", folder, "--scale", "2", "--model", chain_file, "--model", chain_file)
    assert status == 0 and "small (2)" in out


@pytest.mark.parametrize(
    "options", [["--scale", "1"], ["--scale", "2", "--json", "/nowhere/at/all.json"], ["--scale", "40"]]
)
def test_a_bad_evaluation_is_one_line(run, folder, options):
    status, out, err = run("evaluate", "--data", folder, "--model", "nearest", *options)
    assert status == 1 and out == "" and err.count("\n") == 1


def test_a_folder_without_pictures_is_one_line(run, tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        status, _, err = run("evaluate", "--data", path, "--scale", "2", "--model", "nearest")
        assert status == 1 and err.count("\n") == 1


def test_info_shows_config_provenance_and_cost_of_a_chain(run, chain_file):
    status, out, _ = run("info", chain_file)
    chain = Chain.from_pretrained(chain_file)
    assert status == 0 and "a small chain for tests" in out and "window: 4" in out
    assert f"parameters   {sum(p.numel() for p in chain.parameters()):,}" in out
    assert "stage 1 denoiser" in out and f"{chain.stage(1).denoiser.halo} px" in out
    assert "whole x8 chain, detail 0" in out


def test_info_shows_the_whole_card_on_lines_that_can_be_read(run, network_file, tmp_path):
    path = tmp_path / "told.safetensors"
    told = {"data": ["photos"], "pictures": 3, "data_licence": "none stated", "recipe": "edsr_x2", "seed": 7}
    told |= {"steps": 300, "hours": 1.5, "hardware": "a machine", "limits": "smooth " * 40, "licence": "MIT", "more": 1}
    save_upsampler(load_upsampler(network_file), path, provenance=told)
    status, out, _ = run("info", path)
    assert status == 0 and f"SHA-256 {tensor_digest(path)}" in out
    for line in ("data: photos (3 pictures)", "licence of the data: none stated", "time: 1 h 30 min", "licence: MIT"):
        assert f"\n  {line}\n" in out
    assert "\nprovenance\n  more: 1\n" in out and " ".join(out.split()).count("smooth") == 40
    assert max(len(line) for line in out.splitlines()[1:]) <= 110


def test_info_shows_a_network(run, network_file):
    status, out, _ = run("info", network_file)
    assert status == 0 and "kind: edsr" in out and "a small EDSR" in out and "output pixel (x3)" in out


def test_info_recognises_a_foreign_network(run, tmp_path):
    state = {
        "feature_maps.0.weight": torch.rand(64, 1, 5, 5),
        "feature_maps.0.bias": torch.rand(64),
        "feature_maps.2.weight": torch.rand(32, 64, 3, 3),
        "feature_maps.2.bias": torch.rand(32),
        "sub_pixel.0.weight": torch.rand(4, 32, 3, 3),
        "sub_pixel.0.bias": torch.rand(4),
    }
    save_file(state, tmp_path / "foreign.safetensors")
    status, out, _ = run("info", tmp_path / "foreign.safetensors")
    assert status == 0 and "foreign layout" in out and "kind: espcn" in out and "21,284" in out


def test_info_without_a_name_lists_what_is_bundled(run):
    from progressive_upsampling.core.checkpoint import bundled

    status, out, _ = run("info")
    assert status == 0 and all(name in out for name in bundled())


def test_info_of_a_broken_file_is_one_line(run, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"\0" * 100)
    status, out, err = run("info", tmp_path / "x.safetensors")
    assert status == 1 and out == "" and err.count("\n") == 1 and "x.safetensors" in err


def test_counted_multiply_adds_are_those_of_the_papers():
    # FSRCNN(56, 12, 4) has 12464 weights outside biases and PReLU, each used once for every input pixel;
    # what is counted beyond them is the bicubic enlargement of the colour.
    cost = upsampler_cost(FSRCNN(FSRCNNConfig(2)))
    assert cost.macs * 4 == pytest.approx(12464, rel=0.04)
    edsr = upsampler_cost(EDSR(EDSRConfig(2)))
    assert edsr.macs == pytest.approx(343152, rel=0.01)


def test_the_cost_of_a_chain_is_the_sum_of_its_parts_and_of_its_stages(chain_file):
    chain = Chain.from_pretrained(chain_file)
    cost = chain_cost(chain, 8)
    # What is beyond the parts are the bicubic resamplings: 3 channels, 2 axes, some 20 taps each, a few times.
    assert 0 <= cost.macs - sum(part.macs for part in cost.parts) < 1000
    assert sum(part.parameters for part in cost.parts) == cost.parameters
    assert sum(macs / 4 ** (3 - k) for k, macs in enumerate(cost.stages, 1)) == pytest.approx(cost.macs)
    with pytest.raises(ValueError, match="scale"):
        chain_cost(chain, 3)


def test_the_demo_writes_its_pictures_and_measures_them(run, chain_file, tmp_path, monkeypatch):
    pytest.importorskip("skimage")
    monkeypatch.setattr(demo, "_LARGE", 256)
    monkeypatch.setattr(demo, "PHOTOGRAPHS", (demo.PHOTOGRAPHS[0],))
    status, out, _ = run("demo", "--output", tmp_path / "demo", "--model", chain_file)
    assert status == 0 and "bicubic" in out and "Y-PSNR" in out and "mean colour" in out
    names = ["astronaut_bicubic.png", "astronaut_input.png", "astronaut_result.png", "astronaut_sheet.png"]
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == names
    assert read_picture(tmp_path / "demo" / "astronaut_input.png").image.shape[-2:] == (128, 128)
    assert read_picture(tmp_path / "demo" / "astronaut_result.png").image.shape[-2:] == (256, 256)


def test_the_photographs_of_the_demo_are_there_and_large_enough():
    data = pytest.importorskip("skimage.data")
    for photograph in demo.PHOTOGRAPHS:
        truth = demo._truth(getattr(data, photograph.name), photograph.side)
        assert truth.shape == (1, 3, photograph.side, photograph.side) and truth.dtype == torch.uint8


def test_a_demo_that_fails_leaves_no_folder(run, tmp_path):
    pytest.importorskip("skimage")
    status, _, err = run("demo", "--output", tmp_path / "demo", "--model", "nothing")
    assert status == 1 and err.count("\n") == 1 and not (tmp_path / "demo").exists()


def test_a_file_in_the_demo_s_place_is_no_folder(run, picture):
    pytest.importorskip("skimage")
    status, _, err = run("demo", "--output", picture)
    assert status == 1 and f"{picture}: expected a folder as --output, got a file\n" in err


def test_figures_are_on_the_disk_before_the_table_is_shown(folder, tmp_path, monkeypatch):
    file, full = tmp_path / "out.json", io.StringIO()
    monkeypatch.setattr(full, "write", Mock(side_effect=OSError(28, "No space left on device")))
    monkeypatch.setattr(sys, "stdout", full)
    words = ["evaluate", "--data", str(folder), "--scale", "2", "--model", "bicubic", "--json", str(file)]
    assert main(words) == 1 and "bicubic" in json.loads(file.read_text())["mean"]


@pytest.mark.parametrize("folder", ["empty", "none"])
def test_a_bad_folder_is_said_before_the_benchmark_begins(run, tmp_path, monkeypatch, folder):
    from progressive_upsampling.core.cli import bench

    monkeypatch.setattr(bench, "bench_inference", lambda *_, **__: pytest.fail("the suite ran"))
    (tmp_path / "empty").mkdir()
    status, _, err = run("bench", "--suite", "inference", "--quality", tmp_path / folder)
    assert status == 1 and "expected" in err and folder in err
