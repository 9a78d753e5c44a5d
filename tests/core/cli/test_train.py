from __future__ import annotations

import io
import json
import logging
import signal

import pytest
import torch

from progressive_upsampling.core.chain import Chain, ChainConfig
from progressive_upsampling.core.checkpoint import read_checkpoint
from progressive_upsampling.core.cli import train
from progressive_upsampling.core.cli.console import Console
from progressive_upsampling.core.cli.train_plan import duration
from progressive_upsampling.core.cli.train_report import Report
from progressive_upsampling.core.pictures import write_picture
from progressive_upsampling.core.squeezenet import SqueezeNet
from progressive_upsampling.core.train import task
from progressive_upsampling.core.train.config import PhaseConfig, TrainConfig
from progressive_upsampling.core.train.history import read_history
from progressive_upsampling.core.train.recipe import read_config, recipe_names

from .conftest import same, weights


def test_denormal_numbers_are_zero_before_anything_is_computed(run, photos, tmp_path, monkeypatch):
    """Later, torch's threads would have been started, and they go on as they were."""
    if not torch.set_flush_denormal(False):
        pytest.skip("this processor does not flush denormal numbers")
    smallest, halves = torch.finfo(torch.float32).smallest_normal, []

    def begin(args, console):
        halves.append((torch.tensor(smallest) / 2).item())
        return 0

    monkeypatch.setattr(train, "_run", begin)
    assert run("train", "--data", photos, "--out", tmp_path / "run")[0] == 0
    assert halves == [0.0] and (torch.tensor(smallest) / 2).item() > 0


def test_a_run_is_trained_and_said_so(run, config, photos, held, tmp_path):
    out = tmp_path / "run"
    status, text, _ = run("train", "--config", config, "--data", photos, "--val", held, "--out", out)
    assert status == 0 and "5 steps" in text and str(out / "last.safetensors") in text and "best" in text
    assert read_config(out / "config.json") == read_config(config)
    provenance = Chain.from_pretrained(out / "last.safetensors").provenance
    assert provenance["recipe"] == "short" and provenance["data"] == ["my photos"] and provenance["steps"] == 5
    status, text, _ = run("info", out / "last.safetensors")
    assert status == 0 and "my photos" in text and str(tmp_path) not in text.split("\n", 1)[1]


def test_options_change_the_run(run, config, photos, tmp_path, chain_file):
    out = tmp_path / "run"
    options = ["--steps", "2", "--seed", "9", "--init", chain_file, "--licence", "CC0-1.0", "--quiet"]
    options += ["--data-licence", "public domain"]
    status, text, err = run("train", "--config", config, "--data", photos, "--out", out, *options)
    assert (status, text, err) == (0, "", "")
    made = read_config(out / "config.json")
    assert [phase.steps for phase in made.phases] == [1, 1] and made.seed == 9
    assert all(phase.start_from == 0 for phase in made.phases)
    provenance = read_checkpoint(out / "last.safetensors").provenance
    assert provenance["init"] == "small" and provenance["licence"] == "CC0-1.0"
    assert provenance["data_licence"] == "public domain" and str(tmp_path) not in json.dumps(provenance)
    before, after = weights(chain_file), weights(out / "last.safetensors")
    moved = max((before[name] - after[name]).abs().max().item() for name in before)
    assert 0 < moved < 0.01


def test_a_config_of_a_windows_editor_is_read(run, config, photos, tmp_path):
    config.write_bytes(b"\xef\xbb\xbf" + config.read_bytes().replace(b"\n", b"\r\n"))
    status, _, err = run("train", "--config", config, "--data", photos, "--out", tmp_path / "run", "--dry-run")
    assert (status, err) == (0, "")


def test_the_models_shape_takes_the_place_of_the_recipes(run, photos, tmp_path, chain_file):
    options = ["--init", chain_file, "--out", tmp_path / "run", "--dry-run"]
    status, text, err = run("train", "--data", photos, *options)
    assert status == 1 and "at least" in err  # the recipe's crops are larger than these pictures
    for path in photos.iterdir():
        write_picture(path, torch.rand(1, 3, 230, 230))
    status, text, err = run("train", "--data", photos, *options)
    count = sum(parameter.numel() for parameter in Chain.from_pretrained(chain_file).parameters())
    assert status == 0 and f"model        {count:,} parameters" in text


def test_a_chain_that_is_not_used_is_told_and_only_such_a_one(run, config, photos, tmp_path, chain_file):
    options = ["--config", config, "--data", photos, "--init", chain_file, "--out", tmp_path / "run", "--dry-run"]
    own = json.loads(config.read_text())
    realistic = {"data": {"degradation": "realistic"}}
    for untold in ({"kappa": 0.3}, realistic, {"kappa": 0.3, "chain": own["chain"]}):
        config.write_text(json.dumps({k: v for k, v in own.items() if k != "chain"} | untold))
        assert run("train", *options)[::2] == (0, ""), untold
    own["chain"]["stages"] *= 2
    config.write_text(json.dumps(own))
    assert "its chain is not used" in run("train", *options)[2]


def test_a_dry_run_plans_and_writes_nothing(run, config, photos, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    status, text, _ = run("train", "--config", config, "--data", photos, "--out", tmp_path / "run", "--dry-run")
    assert status == 0 and sorted(tmp_path.rglob("*")) == before
    count = sum(p.numel() for p in Chain(read_config(config).chain).parameters())
    for part in (f"{count:,} parameters", "2 pictures", "4 to 8", "4 to 16", "for 5 steps", "memory", "GB", "time"):
        assert part in text
    head = next(i for i, line in enumerate(text.splitlines()) if line.split()[:2] == ["phase", "stages"])
    rows = [line.split() for line in text.splitlines()[head + 1 : head + 3]]
    assert [(row[0], row[1], row[7]) for row in rows] == [("1", "1", "2"), ("2", "2", "3")]


def test_a_run_is_not_written_over_and_can_be_gone_on_with(run, config, photos, tmp_path):
    options = ["--data", photos, "--out", tmp_path / "run"]
    assert run("train", "--config", config, *options)[0] == 0
    status, _, err = run("train", "--config", config, *options)
    assert status == 1 and "--resume" in err and err.count("\n") == 1
    before = (tmp_path / "run" / "state.safetensors").read_bytes()
    assert run("train", "--resume", *options)[0] == 0  # from the run's own config, and it has ended
    assert (tmp_path / "run" / "state.safetensors").read_bytes() == before
    status, _, err = run("train", "--resume", "--steps", "9", *options)
    assert status == 1 and "another config" in err and err.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_ends_with_130_and_the_run_goes_on_exactly(
    run, config, photos, tmp_path, monkeypatch, number
):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    assert run("train", "--config", config, "--data", photos, "--out", straight)[0] == 0
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        calls, original = [], task.unrolled_losses

        def losses(*args):
            calls.append(1)
            if len(calls) == 3:
                signal.raise_signal(number)
            return original(*args)

        patch.setattr(task, "unrolled_losses", losses)
        status, out, err = run("train", "--config", config, "--data", photos, "--out", stopped)
    assert status == 130 and out == "" and "saved at step 3 of 5" in err and "--resume" in err
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert len(read_history(stopped / "history.jsonl")) == 3
    assert run("train", "--resume", "--data", photos, "--out", stopped)[0] == 0
    for name in ("state.safetensors", "last.safetensors"):
        assert same(straight / name, stopped / name)
    assert read_checkpoint(stopped / "last.safetensors").provenance["recipe"] == "short"


def test_a_second_signal_does_not_wait_for_the_step(run, config, photos, tmp_path, monkeypatch):
    calls, original = [], task.unrolled_losses

    def losses(*args):
        calls.append(1)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("went on")
        return original(*args)

    monkeypatch.setattr(task, "unrolled_losses", losses)
    status, _, err = run("train", "--config", config, "--data", photos, "--out", tmp_path / "run")
    assert status == 130 and "saved at step 1 of 5" in err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--recipe", "nothing"], "recipe: expected one of"),
        (["--config", "missing.json"], "missing.json: no such file"),
        (["--config", "BAD"], "bad.json: "),
        (["--init", "missing.safetensors"], "missing.safetensors: no such file"),
        (["--steps", "1"], "steps: expected an integer >= 2"),
        (["--seed", "-1"], "seed: expected"),
        (["--threads", "0"], "--threads: expected"),
        (["--device", "abacus"], "--device: "),
        (["--val", "missing"], "val: expected a folder"),
        (["--vgg", "missing.safetensors"], "--vgg: expected a run with loss.perceptual above 0"),
        (["--squeezenet", "missing.safetensors"], "missing.safetensors: no such file"),
    ],
)
def test_a_bad_option_is_one_line_and_leaves_nothing(run, config, photos, tmp_path, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.json").write_text('{"chains": 3}')
    options = ["bad.json" if word == "BAD" else word for word in options]
    chosen = [] if options[0] in ("--recipe", "--config") else ["--config", config]
    status, out, err = run("train", *chosen, "--data", photos, *options)
    assert status == 1 and out == "" and err.count("\n") == 1 and said in err
    assert not (tmp_path / "run").exists()


def test_weights_to_validate_by_are_refused_where_there_is_nothing_to_validate_with(
    run, config, photos, tmp_path, monkeypatch
):
    monkeypatch.setattr(train, "load_squeezenet", lambda path: SqueezeNet())
    options = ["--data", photos, "--squeezenet", "some.safetensors", "--out", tmp_path / "run"]
    status, _, err = run("train", "--config", config, *options)
    assert status == 1 and "--squeezenet: expected pictures to validate with" in err
    assert not (tmp_path / "run").exists()


def test_a_single_picture_is_trained_on_with_a_word_about_it(run, config, photos, tmp_path):
    (photos / "1.png").unlink()
    settings = json.loads(config.read_text())
    settings["data"]["validation"] = 0.5
    config.write_text(json.dumps(settings))
    status, _, err = run("train", "--config", config, "--data", photos, "--steps", "2", "--out", tmp_path / "run")
    assert status == 0 and "there is no validation" in err and "got 1" in err


@pytest.mark.parametrize("options", [[], ["--config", "a.json", "--recipe", "chain", "--data", "x"], ["--data"]])
def test_options_that_cannot_be_are_refused(run, options):
    status, _, err = run("train", *options)
    assert status == 2 and err.count("\n") == 1


def test_files_that_cannot_be_read_are_named_while_it_trains(run, config, photos, tmp_path):
    (photos / "broken.png").write_text("no picture")
    status, _, err = run("train", "--config", config, "--data", photos, "--out", tmp_path / "run", "--steps", "2")
    assert status == 0 and "warning: data: skipping" in err and "broken.png" in err
    assert logging.getLogger(task.__name__.rpartition(".")[0]).handlers == []


def test_threads_are_set(run, config, photos, tmp_path):
    before = torch.get_num_threads()
    try:
        options = ["--threads", "1", "--steps", "2", "--out", tmp_path / "run"]
        assert run("train", "--config", config, "--data", photos, *options)[0] == 0
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_shows_loss_step_time_and_time_left(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setenv("COLUMNS", "120")
    phases = (PhaseConfig(stages=1, steps=10, crop=4, batch=1), PhaseConfig(stages=1, steps=10, crop=4, batch=3))
    stream = Terminal()
    console = Console("test", stream=stream)
    with Report(TrainConfig(chain=ChainConfig(), phases=phases), console).shown() as report:
        for done in range(1, 11):
            clock[0] += 30.0
            report(done, 20, {"loss": 0.0271, "seconds": 30.0})
    last = stream.getvalue().split("\r")[-3]
    # a step of the second phase has three times the crops: a quarter is done in 300 s, 900 s are left
    assert "10/20" in last and "loss 0.0271" in last and "30.00s" in last and "25%" in last and "15:00 left" in last


def test_a_resumed_run_counts_its_time_from_where_it_began(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    config = TrainConfig(phases=(PhaseConfig(stages=1, steps=100),))
    with Report(config, Console("test", stream=stream)).shown() as report:
        for done in range(91, 96):
            clock[0] += 10.0
            report(done, 100, {"loss": 0.1, "seconds": 10.0})
    assert "0:50 left" in stream.getvalue().split("\r")[-3]


def test_without_a_terminal_there_is_a_line_a_minute_and_one_for_each_validation(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    stream = io.StringIO()
    config = TrainConfig(phases=(PhaseConfig(stages=2, steps=100),))
    with Report(config, Console("test", stream=stream)).shown() as report:
        for done in range(1, 14):
            clock[0] += 10.0
            scores = {"x2": 31.234, "x4": 27.0} if done == 3 else {}
            report(done, 100, {"loss": 0.1, "seconds": 10.0, "lr": 1e-3} | scores)
    lines = stream.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == ["3/100", "9/100"]
    assert "loss 0.1000" in lines[0] and "x2 31.23 dB" in lines[0] and "x4 27.00 dB" in lines[0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_step_without_a_finite_loss_does_not_spoil_the_bar(bad):
    report = Report(TrainConfig(), Console("test", stream=io.StringIO()))
    for loss in (bad, 2.0, bad, 2.0):
        report._take(1, {"loss": loss, "seconds": 1.0})
    assert "loss 2.0000" in report._label()


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (150, "2 min"), (11_100, "3 h 05 min")])
def test_durations_are_told_in_the_unit_that_suits_them(seconds, text):
    assert duration(seconds) == text


def test_the_help_names_every_recipe(run):
    assert all(name in run("train", "--help")[1] for name in recipe_names())
