from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch

from progressive_upsampling.core import cli
from progressive_upsampling.core.cli.console import Console, columns
from progressive_upsampling.core.cli.signals import ENDING
from progressive_upsampling.core.denoise import STEPS
from progressive_upsampling.core.pictures import write_picture
from progressive_upsampling.core.precision import DTYPES

from .conftest import files


def test_choices_are_those_of_the_library():
    assert cli._DTYPES == DTYPES and cli._STEPS == STEPS


@pytest.mark.parametrize("command", ["upscale", "evaluate", "info", "demo"])
def test_every_command_explains_itself(run, command):
    status, out, _ = run(command, "--help")
    assert status == 0 and command in out


def test_version_is_the_packages(run):
    import progressive_upsampling

    assert run("--version")[1].split()[-1] == progressive_upsampling.__version__


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["nothing"],
        ["upscale"],
        ["upscale", "a.png"],
        ["upscale", "a.png", "b.png", "--scale", "two"],
        ["upscale", "a.png", "b.png", "--scale", "2", "--size", "8x8"],
        ["upscale", "a.png", "b.png", "--size", "8"],
        ["upscale", "a.png", "b.png", "--size", "8xx8"],
        ["upscale", "a.png", "b.png", "--steps", "3"],
        ["upscale", "a.png", "b.png", "--tile", "0"],
        ["upscale", "a.png", "b.png", "--tile", "-5"],
        ["upscale", "a.png", "b.png", "--dtype", "int8"],
        ["evaluate", "--data", "."],
    ],
)
def test_options_that_cannot_be_are_one_line_and_status_2(run, argv):
    status, out, err = run(*argv)
    assert status == 2 and out == ""
    assert err.startswith("progressive-upsampling: error: ") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["upscale", "", "out"], "INPUT"),
        (["upscale", "in", ""], "OUTPUT"),
        *((["upscale", "in", "out", f"--{name}="], f"--{name}") for name in ("save-stages", "compare", "detail-mask")),
        (["evaluate", "--scale", "2", "--data", ""], "--data"),
        *((["evaluate", "--scale=2", "--data=in", f"--{name}="], f"--{name}") for name in ("list", "json", "model")),
        (["info", ""], "NAME|FILE"),
        (["demo", "--output", ""], "--output"),
        (["train", "--data", ""], "--data"),
        *((["train", "--data=in", f"--{name}="], f"--{name}") for name in ("val", "out", "init", "config", "recipe")),
        (["vgg", "a.npz", ""], "VGG.safetensors"),
        *((["bench", f"--{name}="], f"--{name}") for name in ("peer", "quality", "data", "against", "json")),
    ],
)
def test_an_empty_name_is_refused_and_nothing_is_done(run, tmp_path, monkeypatch, argv, named):
    write_picture(tmp_path / "photo.png", torch.rand(1, 3, 5, 6))  # what Path("") would take
    monkeypatch.chdir(tmp_path)
    status, out, err = run(*argv)
    assert status == 2 and out == "" and err.count("\n") == 1
    assert f"argument {named}: expected a name, got ''" in err and files(tmp_path) == ["photo.png"]


def test_an_error_shows_its_traceback_on_demand_only(run, tmp_path):
    argv = ["upscale", tmp_path / "no.png", tmp_path / "out.png", "--model", "bicubic"]
    assert "Traceback" not in run(*argv)[2]
    assert "Traceback" in run(*argv, "--debug")[2]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("image: bad\nmore\nlines"), "image: bad"),
        (MemoryError(), "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory\nException raised from …"), "out of memory"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"), "out of memory"),
        (OSError(13, "Permission denied", "/x/y"), "/x/y: permission denied"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_any_failure_is_one_line(run, monkeypatch, error, line):
    from progressive_upsampling.core.cli import info

    def fail(*_: object) -> int:
        raise error

    monkeypatch.setattr(info, "run", fail)
    status, _, err = run("info")
    assert status == 1 and err.count("\n") == 1 and line in err


def test_ctrl_c_is_status_130(run, monkeypatch):
    from progressive_upsampling.core.cli import info

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(info, "run", interrupted)
    status, _, err = run("info")
    assert status == 130 and err.count("\n") == 1


def python(root: Path, code: str, *argv: object) -> subprocess.CompletedProcess[str]:
    """A process of its own, in which the package can be imported."""
    words = [sys.executable, "-c", f"import sys; sys.path.insert(0, 'tests'); import conftest\n{code}", *argv]
    return subprocess.run([str(word) for word in words], cwd=root, capture_output=True, text=True, check=False)


ENDED = """
import os, signal
from progressive_upsampling.core.cli import main, upscale
number, ignored, *argv = sys.argv[1:]
model = upscale._model
def signalled(*args):
    os.kill(os.getpid(), int(number))
    return model(*args)
upscale._model = signalled
# whatever the tests themselves were started under
signal.signal(int(number), signal.SIG_IGN if ignored == "ignored" else signal.SIG_DFL)
sys.exit(main(argv))
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_command_that_is_ended_leaves_no_folder(root, picture, tmp_path, name):
    number, before = getattr(signal, name), files(tmp_path)
    words = ("upscale", picture.parent, tmp_path / "a" / "out", "--model", "bicubic", "--save-stages", tmp_path / "b")
    done = python(root, ENDED, int(number), "", *words)
    assert files(tmp_path) == before
    assert done.returncode == 128 + number and "Traceback" not in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_signal_that_is_ignored_as_under_nohup_stays_so(root, picture, tmp_path):
    words = ("upscale", picture, tmp_path / "out.png", "--model", "bicubic")
    assert python(root, ENDED, int(signal.SIGHUP), "ignored", *words).returncode == 0
    assert (tmp_path / "out.png").exists()


def test_signal_handlers_are_given_back_and_those_of_train_are_its_own(run, monkeypatch):
    from progressive_upsampling.core.cli import info, train

    def handler(*_: object) -> int:
        return signal.getsignal(signal.SIGTERM) == signal.SIG_DFL

    before = {number: signal.getsignal(number) for number in ENDING}
    for module in (info, train):
        monkeypatch.setattr(module, "run", handler)
    assert run("info")[0] == 0 and run("train", "--data", "x")[0] == 1
    assert {number: signal.getsignal(number) for number in ENDING} == before


def test_the_command_runs_in_another_thread(run):
    found = []
    thread = threading.Thread(target=lambda: found.append(run("info")[0]))
    thread.start()
    thread.join()
    assert found == [0]


def test_without_stderr_the_work_is_done_in_silence(picture, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", None)
    words = ["upscale", str(picture), str(tmp_path / "out.png")]
    assert cli.main([*words, "--model", "bicubic"]) == 0 and (tmp_path / "out.png").exists()
    assert cli.main([*words, "--model", "nothing", "--debug"]) == 1 and cli.main(["upscale"]) == 2
    assert sys.stderr is None and capsys.readouterr().out == ""


@pytest.mark.skipif(os.name == "nt", reason="a shell")
def test_no_file_takes_the_place_of_a_closed_stderr(root):
    code = """
from progressive_upsampling.core.cli import main, info
def opened(*_):
    with open(__import__("os").devnull) as file:
        return file.fileno()
info.run = opened
sys.exit(main(["info"]))
"""
    closed = f"import os; os.close(2); sys.stderr = None{code}"
    assert python(root, closed).returncode > 2


def test_the_process_ends_with_the_status(root: Path):
    code = (
        "import runpy; sys.argv = ['progressive_upsampling', 'info', 'no-such-model']; "
        "runpy.run_module('progressive_upsampling', run_name='__main__')"
    )
    done = python(root, code)
    assert done.returncode == 1
    assert done.stderr.startswith("progressive-upsampling: error:") and "no-such-model" in done.stderr


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_is_drawn_on_a_terminal_and_gone_afterwards(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    console = Console("p", stream=stream)
    with console.progress("a picture") as on_step:
        assert on_step is not None
        on_step(1.0, 2.0, None)
        assert "50%" in stream.getvalue() and "a picture" in stream.getvalue()
    last = stream.getvalue().split("\r")
    assert last[-1] == "" and last[-2].strip() == ""
    assert all(len(part) < 80 for part in last)


@pytest.mark.parametrize(("stream", "quiet"), [(io.StringIO(), False), (Terminal(), True)])
def test_no_bar_where_nobody_would_see_it(stream, quiet):
    with Console("p", quiet=quiet, stream=stream).progress("x") as on_step:
        assert on_step is None
    assert stream.getvalue() == ""


def test_a_message_does_not_collide_with_the_bar(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    stream = Terminal()
    console = Console("p", stream=stream)
    with console.progress("x"):
        console.error("broken")
    assert stream.getvalue().endswith("\rp: error: broken\n")


def test_a_long_label_does_not_break_the_bar(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    stream = Terminal()
    with Console("p", stream=stream).progress("x" * 200):
        pass
    assert max(len(part) for part in stream.getvalue().split("\r")) < 40


def test_quiet_leaves_out_notes_and_warnings_but_not_errors():
    stream = io.StringIO()
    console = Console("p", quiet=True, stream=stream)
    console.note("note")
    console.show_warning(UserWarning("careful"), UserWarning, "file.py", 1)
    console.error("broken")
    assert stream.getvalue() == "p: error: broken\n"


def test_warning_hooks_are_given_back(run):
    before = warnings.showwarning
    run("info")
    assert warnings.showwarning is before


def test_columns_line_up():
    lines = columns([("name", "n"), ("x", "1,000")])
    assert lines == ["name      n", "x     1,000"]
