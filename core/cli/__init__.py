"""The command `progressive-upsampling`: its options, and how failures reach the user."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ..picture_format import PictureWarning
from .console import Console, out_of_memory, stderr_or_nothing
from .signals import ended_by_signals

PROGRAM = "progressive-upsampling"
INTERRUPTED = 130  # what shells give for a program ended by Ctrl-C
# Written out, because --help must not wait for torch; a test compares them with the library.
_DTYPES = ("auto", "fp32", "bf16", "fp16")
_STEPS = (1, 2, 4, 8)
_SUITES = ("inference", "tiling", "training", "memory")
_RECIPES = Path(__file__).parents[1] / "train" / "recipes"
_MODEL_HELP = (
    "a bundled name (see `info`), a .safetensors file of a chain or of one upsampler (ESPCN, FSRCNN, EDSR), "
    "or bicubic, bilinear, lanczos, nearest"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: the arguments, without the program's name; None takes those of the process.

    Returns:
        The exit status: 0; 1 where the work failed, or the value of an option, a file or a model is not what it
        should be; 2 for a command line that cannot be read; 130 after Ctrl-C; 128 + n after signal n.
    """
    with stderr_or_nothing():
        try:
            args = build_parser().parse_args(argv)
        except SystemExit as stop:  # argparse has said what there was to say
            return stop.code if isinstance(stop.code, int) else 2
        with contextlib.suppress(AttributeError, ValueError):  # a name the terminal cannot show must not end the work
            sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
        return _run(args, Console(PROGRAM, quiet=getattr(args, "quiet", False)))


def _run(args: argparse.Namespace, console: Console) -> int:
    with warnings.catch_warnings():
        warnings.showwarning = console.show_warning
        warnings.simplefilter("always", PictureWarning)  # one for each file, whatever was shown before
        own = args.module == "train"  # which saves the run first
        try:
            with contextlib.nullcontext() if own else ended_by_signals():
                return importlib.import_module(f".{args.module}", __package__).run(args, console)
        except KeyboardInterrupt:
            console.error("interrupted")
            return INTERRUPTED
        except SystemExit as stop:
            return stop.code if isinstance(stop.code, int) else 1
        except BrokenPipeError:  # the reader of our table (head, less) has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except (ValueError, TypeError, OSError, RuntimeError, MemoryError, ImportError) as error:
            if args.debug:
                traceback.print_exc()
            console.error(_one_line(error))
            return 1


def build_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands."""
    parser = _Parser(prog=PROGRAM, description="Progressive image upsampling in x2 stages.")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_upscale(commands)
    _add_evaluate(commands)
    _add_info(commands)
    _add_demo(commands)
    _add_train(commands)
    _add_vgg(commands)
    _add_squeezenet(commands)
    _add_bench(commands)
    for name, command in commands.choices.items():
        command.add_argument("--debug", action="store_true", help="show where an error comes from")
        command.register("type", None, _filled)  # of every option that has no other
        command.set_defaults(module=command.get_default("module") or name)
    return parser


def _add_upscale(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser(
        "upscale",
        help="enlarge a picture, or a folder of pictures",
        description="Enlarge a picture, or every picture of a folder. PNG, JPEG, WebP and TIFF are written; "
        "alpha, grey, 16 bits (PNG, TIFF), colour profile and EXIF are kept, the orientation is applied.",
    )
    parser.add_argument("input", metavar="INPUT", help="a picture, or a folder")
    parser.add_argument(
        "output",
        metavar="OUTPUT",
        help="the file to write (.png, .jpg, .webp, .tif); for a folder, the folder to write PNG files to",
    )
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--scale", type=float, help="factor, up to 64 (default: 8; a single network's own factor)")
    target.add_argument("--size", type=_size, metavar="WxH", help="exact size in pixels, as 1024x768")
    parser.add_argument("--model", default="default", metavar="NAME|FILE", help=_MODEL_HELP)
    parser.add_argument(
        "--detail",
        type=float,
        default=0.0,
        help="0 = closest to the truth (default), 1 = most texture; between, a blend",
    )
    parser.add_argument(
        "--detail-mask",
        metavar="FILE",
        help="a grey picture of any size that limits where detail is added: white = all of it, black = none",
    )
    parser.add_argument(
        "--strength",
        type=float,
        default=1.0,
        help="multiplier on the noise that detail grows from, 0 = off (default: 1)",
    )
    parser.add_argument(
        "--steps",
        type=int,
        choices=_STEPS,
        default=1,
        help="denoising steps a stage, where detail is above 0 (default: 1)",
    )
    parser.add_argument("--seed", type=int, default=0, help="same seed, same picture (default: 0)")
    parser.add_argument(
        "--skip",
        type=float,
        default=1.0,
        help="multiplier on the residual skips, from stage to stage and from INPUT, 0 = off (default: 1)",
    )
    _add_running(parser)
    parser.add_argument(
        "--save-stages", metavar="DIR", help="write the picture after every stage to this folder, as PNG"
    )
    parser.add_argument(
        "--compare",
        metavar="SHEET.png",
        help="write a sheet with input, bicubic and result side by side (one picture only)",
    )


def _add_evaluate(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="measure models on a folder of pictures",
        description="Reduce every picture of a folder as the published benchmarks do (MATLAB bicubic), "
        "enlarge it again with each model and with bicubic, and compare with the original. Or, with --denoise, add "
        "Gaussian noise to every picture, take it out again with each model's denoiser, and compare.",
    )
    parser.add_argument("--data", required=True, metavar="DIR", help="the folder of pictures")
    parser.add_argument("--list", metavar="FILE", help="names of the pictures to measure, one a line (default: all)")
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--scale", type=int, help="whole factor")
    task.add_argument(
        "--denoise", type=float, metavar="SIGMA", help="standard deviation of the noise, in levels of 0..255; RGB"
    )
    parser.add_argument(
        "--model",
        action="append",
        metavar="NAME|FILE",
        help=_MODEL_HELP + "; with --denoise, a chain or a denoiser; may be repeated "
        "(default: default; with --denoise, denoiser)",
    )
    parser.add_argument("--rgb", action="store_true", help="measure on RGB in place of Y")
    parser.add_argument(
        "--unrounded",
        action="store_true",
        help="enlarge reductions that are not rounded to 8 bits, as those that LapSRN was published by",
    )
    parser.add_argument(
        "--squeezenet",
        metavar="FILE",
        help="SqueezeNet's weights (see `squeezenet`), to measure PD-squeeze, a perceptual distance, too",
    )
    parser.add_argument("--per-picture", action="store_true", help="a line for every picture")
    parser.add_argument("--json", metavar="FILE", help="write all figures to this file")
    _add_running(parser)


def _add_info(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser(
        "info",
        help="what a checkpoint is, what it was trained on and what it costs",
        description="Show a checkpoint's config, provenance and cost: parameters, multiply-adds (MACs) per "
        "output pixel, halo. Without a name, list the bundled checkpoints.",
    )
    parser.add_argument("file", nargs="?", metavar="NAME|FILE", help="a bundled name, or a .safetensors file")


def _add_demo(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser(
        "demo",
        help="photographs from 128 to 1024, with comparison sheets",
        description="Enlarge public-domain photographs that come with scikit-image from 128 to 1024 pixels, "
        "and write input, bicubic, result and a comparison sheet of each.",
    )
    parser.add_argument("--output", default="demo", metavar="DIR", help="folder to write to (default: demo)")
    parser.add_argument("--model", default="default", metavar="NAME|FILE", help=_MODEL_HELP)
    _add_running(parser)


def _add_train(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser(
        "train",
        help="train a chain, or a single upsampler, on a folder of pictures",
        description="Train a model. Ctrl-C (or SIGTERM) saves and stops; --resume goes on exactly there. The run's "
        "folder holds last.safetensors and best.safetensors, curves.png, samples/, history.jsonl, config.json and the "
        "state. Several GPUs or machines: torchrun --nproc-per-node N -m progressive_upsampling train ...",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--config", metavar="FILE.json", help="a run as it is written to the run's folder")
    what.add_argument(
        "--recipe",
        metavar="NAME",
        help=f"a run that comes with the package: {_recipes()} (default: fidelity; with --resume, the run's)",
    )
    parser.add_argument(
        "--data",
        required=True,
        metavar="DIR",
        help="pictures to train on, searched at all levels and through links; curves and samples of runs are left out",
    )
    parser.add_argument(
        "--val",
        metavar="DIR",
        help="pictures to measure on, left out of --data (default: the part of --data that the config says)",
    )
    parser.add_argument("--out", default="run", metavar="RUN", help="folder of the run (default: run)")
    parser.add_argument(
        "--init",
        metavar="NAME|FILE",
        help="the model to start from, whose shape takes the place of the config's, or 'birth' (default: the "
        "config's); of no effect on a run that goes on",
    )
    parser.add_argument(
        "--vgg",
        metavar="FILE",
        help="VGG19's weights for the perceptual loss of a run that has one (see `vgg`; default: random, said so)",
    )
    parser.add_argument(
        "--squeezenet", metavar="FILE", help="SqueezeNet's weights (see `squeezenet`) to validate by PD-squeeze, too"
    )
    parser.add_argument("--steps", type=int, metavar="N", help="steps in all; every phase is scaled alike")
    parser.add_argument("--seed", type=int, metavar="N", help="same seed, same run (default: the config's)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in RUN, if there is one")
    parser.add_argument("--licence", metavar="TEXT", help="licence of the weights, for their provenance")
    parser.add_argument("--data-licence", metavar="TEXT", help="licence of the training pictures, likewise")
    parser.add_argument("--device", default="auto", help="auto (CUDA where there is one), cpu, cuda, cuda:1, …")
    parser.add_argument("--threads", type=int, metavar="N", help="processor threads (default: torch's choice)")
    parser.add_argument(
        "--dry-run", action="store_true", help="take one step of every phase; tell time, memory and size; write nothing"
    )
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")


def _add_vgg(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser(
        "vgg",
        help="make VGG19's weights for the perceptual loss from a .npz file",
        description="Turn the original VGG19 weights (arrays conv1_1.weight [64, 3, 3, 3], conv1_1.bias [64], …; input "
        "255 RGB - (123.68, 116.779, 103.939)) into a file in torchvision's layout, as `train --vgg` reads it.",
    )
    parser.add_argument("source", metavar="WEIGHTS.npz", help="the arrays; they may end with any convolution")
    parser.add_argument("target", metavar="VGG.safetensors", help="the file to write")
    parser.set_defaults(module="trunk")


def _add_squeezenet(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser(
        "squeezenet",
        help="make SqueezeNet's weights for PD-squeeze from a .npz file",
        description="Turn the original SqueezeNet 1.0 weights (arrays conv1.weight [96, 3, 7, 7], conv1.bias [96], "
        "fire2.conv1x1_1.weight, …; input 255 RGB - (123, 117, 104)) into a file in torchvision's layout, as `evaluate "
        "--squeezenet` reads it.",
    )
    parser.add_argument("source", metavar="WEIGHTS.npz", help="the arrays, to fire9; a classifier is left out")
    parser.add_argument("target", metavar="SQUEEZENET.safetensors", help="the file to write")
    parser.set_defaults(module="trunk")


def _add_bench(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser(
        "bench",
        help="how fast, beside its peers, in one run",
        description="Time this package beside its peers by turns, and tell medians and ratios. Suite inference: the "
        "chain from 128 to 1024 beside the same networks in plain float32 and beside what the machine can do; "
        "attention; 100 small pictures. Suite tiling: exact strips beside overlapping tiles that are blended. Suite "
        "training: a step of a recipe beside a plain loop over the same network. Suite memory: results of 1 to 64 "
        "megapixels.",
    )
    parser.add_argument("--suite", choices=_SUITES, action="append", help="may be repeated (default: all)")
    parser.add_argument("--model", default="default", metavar="NAME|FILE", help="a chain (default: default)")
    parser.add_argument("--peer", metavar="FILE.npz", help="inference: a network of x8, its graph (.json) beside it")
    parser.add_argument("--quality", metavar="DIR", help="inference: pictures to compare quality and formats on")
    parser.add_argument("--recipe", default="edsr_x2", metavar="NAME", help="training: whose step (default: edsr_x2)")
    parser.add_argument("--data", metavar="DIR", help="training: pictures (default: made up)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="paired repeats (default: 5)")
    parser.add_argument("--against", metavar="FILE", help="compare with the figures of an earlier run")
    parser.add_argument("--json", metavar="FILE", help="write all figures to this file, suite by suite")
    parser.add_argument("--device", default="auto", help="auto (CUDA where there is one), cpu, cuda, cuda:1, …")
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")


def _add_running(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto (CUDA where there is one), cpu, cuda, cuda:1, …")
    parser.add_argument("--dtype", choices=_DTYPES, default="auto", help="number format of the networks")
    parser.add_argument(
        "--tile", type=_tile, default=None, metavar="auto|N", help="side of a tile; less needs less memory"
    )
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")


class _Parser(argparse.ArgumentParser):
    """An argument parser whose failure is one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{PROGRAM}: error: {' '.join(message.split())} (see {self.prog} --help)\n")


def _size(text: str) -> tuple[int, int]:
    """`WxH` to (height, width)."""
    try:
        width, height = (int(part) for part in text.lower().replace("×", "x").split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected WxH, as 1024x768, got {text!r}") from None
    return height, width


def _filled(text: str) -> str:
    """Not an empty name, as of a shell's variable that is not set: as a path it would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("expected a name, got ''")
    return text


def _tile(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected auto or a whole number >= 1, got {text!r}")
    return int(text)


def _recipes() -> str:
    """The names of `recipe.recipe_names`, without waiting for torch."""
    return ", ".join(sorted(path.stem for path in _RECIPES.glob("*.json")))


def _version() -> str:
    return importlib.import_module("...", __package__).__version__


def _one_line(error: BaseException) -> str:
    if out_of_memory(error):
        return "out of memory"
    lines = str(error).strip().splitlines()
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror.lower()}"
    return lines[0] if lines else type(error).__name__
