"""`evaluate`: PSNR, SSIM and PD-squeeze of models on a folder of pictures, beside bicubic."""

from __future__ import annotations

import argparse

from torch import Tensor

from ..evaluate import BICUBIC, Evaluation, Method, Row, evaluate_folder
from ..perceptual_distance import PerceptualDistance
from ..picture_output import check_target, write_atomic
from ..precision import resolve_dtype
from ..squeezenet import load_squeezenet
from .console import Console, columns
from .models import Model, load_model, pick_device


def run(args: argparse.Namespace, console: Console) -> int:
    """Run the subcommand.

    Args:
        args: the parsed options.
        console: where to report.

    Returns:
        0.

    Raises:
        ValueError, OSError: the folder, a picture, an option, the weights or a model is not what it should be.
    """
    device = pick_device(args.device)
    resolve_dtype(args.dtype, device)
    if args.json:
        check_target(args.json)
    distance = PerceptualDistance(load_squeezenet(args.squeezenet)) if args.squeezenet else None
    models = [load_model(name, device) for name in args.model or ["default"] if name != BICUBIC]
    methods = {name: _method(model, args) for name, model in _named(models).items()}
    with console.progress(f"{args.data} x{args.scale}") as on_step:
        channel = "rgb" if args.rgb else "y"
        result = evaluate_folder(args.data, args.scale, methods, channel=channel, distance=distance, on_step=on_step)
    print(table(result, per_picture=args.per_picture))
    if args.json:
        write_atomic(args.json, (result.to_json() + "\n").encode())
    return 0


def table(result: Evaluation, *, per_picture: bool = False) -> str:
    """The evaluation as text.

    Args:
        result: what was measured.
        per_picture: lines for every picture above the means.

    Returns:
        Lines, bicubic first.
    """
    count = len(result.rows) // len(result.methods)
    channel = result.channel.upper()
    rows = [*(result.rows if per_picture else ()), *(result.mean(method) for method in result.methods)]
    judged = (PerceptualDistance.name,) if rows[-1].distance is not None else ()
    head = ("picture", "method", f"{channel}-PSNR", f"{channel}-SSIM", "spectrum", *judged, "seconds")
    cells = [head, *(_cells(row, count) for row in rows)]
    if not per_picture:
        cells = [line[1:] for line in cells]
    title = (
        f"{result.folder} x{result.scale}: {count} pictures, PSNR (dB) and SSIM on 8-bit {channel}, "
        f"{result.scale} pixels cropped; spectrum: error of the power spectrum (dB, lower is better)"
    )
    if judged:
        title += f"; {PerceptualDistance.name}: distance of SqueezeNet 1.0 features of RGB (lower is better)"
    return "\n".join([title, *columns(cells, words=2 if per_picture else 1)])


def _cells(row: Row, count: int) -> tuple[str, ...]:
    picture = f"mean of {count}" if row.picture == "mean" else row.picture
    distance = () if row.distance is None else (f"{row.distance:.4f}",)
    figures = (f"{row.psnr:.2f}", f"{row.ssim:.4f}", f"{row.spectrum:.2f}", *distance, f"{row.seconds:.2f}")
    return (picture, row.method, *figures)


def _named(models: list[Model]) -> dict[str, Model]:
    """Models by name; those of one name are told apart by a number."""
    named: dict[str, Model] = {}
    for model in models:
        name, number = model.name, 2
        while name in named or name == BICUBIC:
            name, number = f"{model.name} ({number})", number + 1
        named[name] = model
    return named


def _method(model: Model, args: argparse.Namespace) -> Method:
    def enlarge(image: Tensor, scale: int) -> Tensor:
        height, width = image.shape[-2:]
        size = (height * scale, width * scale)
        return model.stages(image, size, tile=args.tile, dtype=args.dtype)[-1]

    return enlarge
