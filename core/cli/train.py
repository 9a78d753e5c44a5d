"""`train`: a model from a folder of pictures, stopped and resumed at will."""

from __future__ import annotations

import argparse
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType

import torch

from ..chain import Chain
from ..checkpoint import bundled, resolve
from ..denoiser_file import load_denoiser
from ..perceptual_distance import PerceptualDistance
from ..squeezenet import load_squeezenet
from ..train.about import About
from ..train.config import TrainConfig
from ..train.distributed import joined
from ..train.loop import Trainer
from ..train.recipe import read_config, read_recipe
from ..train.run_folder import BEST, CONFIG, LAST, STATE
from ..train.setup import learning
from ..train.state import read_run
from ..train.task import Model, check_fits, config_of
from ..upsamplers import load_upsampler
from .console import Console
from .models import kind_of, pick_device
from .train_plan import duration, plan
from .train_report import Report

DEFAULT_RECIPE = "fidelity"
BIRTH = "birth"
_LOGGER = logging.getLogger(Trainer.__module__.rpartition(".")[0])


def run(args: argparse.Namespace, console: Console) -> int:
    """Run the subcommand.

    Args:
        args: the parsed options.
        console: where to report.

    Returns:
        0.

    Raises:
        ValueError, OSError: an option, the config, the model or a folder is not usable.
        RuntimeError: the loss was not finite too often.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, with the run saved.
    """
    with learning():  # now, because torch's threads take over from here what they count as 0
        return _run(args, console)


def _run(args: argparse.Namespace, console: Console) -> int:
    if args.threads is not None:
        if args.threads < 1:
            raise ValueError(f"--threads: expected a whole number >= 1, got {args.threads}")
        torch.set_num_threads(args.threads)
    out = Path(args.out)
    if (out / STATE).exists() and not (args.resume or args.dry_run):
        raise ValueError(f"{out}: holds a run; go on with --resume, or choose another folder with --out")
    config, recipe = _config(args)
    begun = args.resume and (out / STATE).exists()
    given, untold = config.chain, TrainConfig(kappa=config.kappa, data=config.data).chain
    config, init = _gone_on(config, out) if begun else _started(config, args.init)
    if args.steps is not None:
        config = config.scaled(args.steps)
    _check_vgg(args.vgg, config)
    command = None if recipe is None else _command(args)
    told = {"licence": args.licence, "data_licence": args.data_licence, "command": command}
    about = About(**_given(recipe=recipe, init=Path(config.init).stem or None, **told))
    with joined(pick_device(args.device)) as (world, device):
        console = console if world.first else console.silent()
        if isinstance(init, Chain) and given not in (untold, config.chain):
            console.note("warning: config: its chain is not used, as the run starts from one that has its own config")
        trunk = None if args.squeezenet is None else load_squeezenet(args.squeezenet)
        distance = None if trunk is None else PerceptualDistance(trunk).to(device)
        with _warnings_to(console):
            trainer = Trainer(
                config,
                args.data,
                out,
                val=args.val,
                init=init,
                device=device,
                vgg=args.vgg,
                distance=distance,
                about=about,
                world=world,
            )
            if distance is not None and trainer.validation is None:
                raise ValueError("--squeezenet: expected pictures to validate with, which it would measure, got none")
            if args.dry_run:
                lines = plan(trainer)
                if world.first:
                    print("\n".join(lines))
                return 0
            _train(trainer, args, console)
    return 0


def load_init(name_or_path: str) -> Model:
    """The model that a run starts from: a chain, a denoiser, or a single upsampler in any layout that is known.

    Raises:
        CheckpointError: no such model, or a file of something else.
    """
    path = resolve(name_or_path)
    kind = kind_of(path)
    if kind == "denoiser":
        return load_denoiser(path)
    return load_upsampler(path) if kind == "upsampler" else Chain.from_pretrained(path)


def _check_vgg(path: str | None, config: TrainConfig) -> None:
    """Refuses a file that the run would not even read."""
    if path is not None and not config.loss.perceptual:
        raise ValueError(f"--vgg: expected a run with loss.perceptual above 0, which alone needs it, got {path} and 0")


def _train(trainer: Trainer, args: argparse.Namespace, console: Console) -> None:
    with _stop_between_steps() as poll, Report(trainer.config, console).shown() as report:

        def on_step(done: int, total: int, values: dict[str, float]) -> None:
            report(done, total, values)
            poll()

        trainer.on_step, trainer.poll = on_step, poll
        try:
            trainer.run(args.resume)
        except KeyboardInterrupt:
            saved, steps = trainer.saved or 0, trainer.config.steps
            console.note(f"saved at step {saved} of {steps} in {trainer.out}; --resume goes on there")
            raise
    if trainer.world.first and not args.quiet:
        print("\n".join(_results(trainer)))


def _results(trainer: Trainer) -> list[str]:
    counters = trainer.counters
    lines = [f"{counters.step} steps in {duration(counters.seconds)}", f"last  {trainer.out / LAST}"]
    if counters.best is not None:
        told = {"psnr": f"Y-PSNR {counters.best:.2f} dB", "ssim": f"Y-SSIM {counters.best:.4f}"}
        score = told.get(trainer.config.select, f"PD-squeeze {-counters.best:.4f}")
        about = f"{score} after {counters.best_step} steps"
        lines.append(f"best  {trainer.out / BEST}  ({about})")
    return lines


def _started(config: TrainConfig, asked: str | None) -> tuple[TrainConfig, Model | None]:
    """The run with the model that it starts from, and that model."""
    name = "" if asked == BIRTH else asked or config.init
    if not name:
        return replace(config, init=""), None
    init = load_init(name)
    wanted = "upsampler" if config.upsampler is not None else "denoiser" if config.denoiser is not None else None
    kind = kind_of(resolve(name))
    if wanted not in (None, kind):
        raise ValueError(f"init: expected a model of kind {wanted}, as the run trains one, got {name} of kind {kind}")
    told = name if name in bundled() else str(resolve(name).resolve())
    try:
        return replace(config.starting_from(config_of(init)), init=told), init
    except ValueError as error:
        raise ValueError(f"init: {name} of kind {kind} is not what this run is for: {error}") from None


def _gone_on(config: TrainConfig, out: Path) -> tuple[TrainConfig, Model | None]:
    """The run with what its state knows of the model that it started from, and that model if it is a bundled one.

    The samples show it. A file may be gone or another by now, and nothing but the samples needs it.
    """
    begun = read_run(out / STATE)
    if not begun.init:
        return replace(config, init=""), None
    config = replace(config.starting_from(begun.denoiser or begun.upsampler or begun.chain), init=begun.init)
    if begun.init in bundled():
        with suppress(ValueError):  # earlier versions wrote the name of a file in the same way
            init = load_init(begun.init)
            check_fits(init, config)
            return config, init
    return config, None


def _config(args: argparse.Namespace) -> tuple[TrainConfig, str | None]:
    """The run that the options ask for, and the name of its recipe."""
    recipe = None
    if args.config is not None:
        config, recipe = read_config(args.config), Path(args.config).stem
    elif args.recipe is None and args.resume and (Path(args.out) / CONFIG).exists():
        config = read_config(Path(args.out) / CONFIG)
    else:
        recipe = args.recipe or DEFAULT_RECIPE
        config = read_recipe(recipe)
    return config if args.seed is None else replace(config, seed=args.seed), recipe


def _command(args: argparse.Namespace) -> str:
    """What begins the run that the options ask for; of files and folders no path."""
    words = ["progressive-upsampling", "train"]
    words += ["--config", Path(args.config).name] if args.config else ["--recipe", args.recipe or DEFAULT_RECIPE]
    words += ["--data", "DATA", *(["--val", "VAL"] if args.val else []), "--out", "RUN"]
    files = {"--init": args.init and Path(args.init).stem, "--vgg": args.vgg and "VGG19.safetensors"}
    options = {**files, "--steps": args.steps, "--seed": args.seed}
    words += [str(word) for pair in options.items() if pair[1] is not None for word in pair]
    return " ".join(words)


def _given(**values: str | None) -> dict[str, str]:
    return {key: value for key, value in values.items() if value is not None}


@contextmanager
def _stop_between_steps() -> Iterator[Callable[[], None]]:
    """Turns Ctrl-C and SIGTERM into a `KeyboardInterrupt` of the function yielded, where the run is whole.

    A second signal does not wait for that.
    """
    asked = False

    def ask(signum: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    def poll() -> None:
        if asked:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # which alone may set handlers
        yield poll
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield poll
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Notes(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.note(f"warning: {' '.join(record.getMessage().split())}")


@contextmanager
def _warnings_to(console: Console) -> Iterator[None]:
    """What the trainer logs goes to the console, where it does not cut through the bar."""
    handler, propagate = _Notes(console), _LOGGER.propagate
    _LOGGER.addHandler(handler)
    _LOGGER.propagate = False
    try:
        yield
    finally:
        _LOGGER.removeHandler(handler)
        _LOGGER.propagate = propagate
