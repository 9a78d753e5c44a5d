"""`evaluate`: PSNR, SSIM and PD-squeeze of models on a folder of pictures, beside bicubic or the noisy pictures."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from ..denoiser_file import BLIND, load_denoiser
from ..evaluate import BICUBIC, Evaluation, Method, Row, evaluate_folder
from ..evaluate_denoising import NOISY, DenoisingEvaluation, DenoisingMethod, blind, evaluate_denoising
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
    if args.unrounded and args.denoise is not None:
        raise ValueError("--unrounded: expected with --scale, got --denoise, which reduces no picture")
    if args.json:
        check_target(args.json)
    distance = PerceptualDistance(load_squeezenet(args.squeezenet)) if args.squeezenet else None
    names = read_list(args.list) if args.list else None
    evaluate = _upsampling if args.denoise is None else _denoising
    result = evaluate(args, console, device, distance, names)
    if args.json:  # first: the reader of the table may have gone
        write_atomic(args.json, (result.to_json() + "\n").encode())
    print(table(result, per_picture=args.per_picture))
    return 0


def read_list(path: str | Path) -> list[str]:
    """The names of pictures in a text file, one a line.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no text, or has no names.
    """
    try:
        names = [line.strip() for line in Path(path).read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected names of pictures, one a line: {error}") from None
    if not names:
        raise ValueError(f"{path}: expected names of pictures, one a line, got none")
    return names


def table(result: Evaluation | DenoisingEvaluation, *, per_picture: bool = False) -> str:
    """The evaluation as text.

    Args:
        result: what was measured.
        per_picture: lines for every picture above the means.

    Returns:
        Lines, bicubic (or the noisy pictures) first.
    """
    count = len(result.rows) // len(result.methods)
    channel = result.channel.upper() if isinstance(result, Evaluation) else "RGB"
    rows = [*(result.rows if per_picture else ()), *(result.mean(method) for method in result.methods)]
    judged = (PerceptualDistance.name,) if rows[-1].distance is not None else ()
    head = ("picture", "method", f"{channel}-PSNR", f"{channel}-SSIM", "spectrum", *judged, "seconds")
    cells = [head, *(_cells(row, count) for row in rows)]
    if not per_picture:
        cells = [line[1:] for line in cells]
    if isinstance(result, Evaluation):
        title = f"{result.folder} x{result.scale}: {count} pictures, PSNR (dB) and SSIM on 8-bit {channel}, "
        title += f"{result.scale} pixels cropped" + ("" if result.rounded else ", reduced without rounding")
    else:
        title = f"{result.folder}, noise of {result.sigma:g}/255: {count} pictures, PSNR (dB) and SSIM on 8-bit RGB"
    title += "; spectrum: error of the power spectrum (dB, lower is better)"
    if judged:
        title += f"; {PerceptualDistance.name}: distance of SqueezeNet 1.0 features of RGB (lower is better)"
    return "\n".join([title, *columns(cells, words=2 if per_picture else 1)])


def _upsampling(
    args: argparse.Namespace,
    console: Console,
    device: torch.device,
    distance: PerceptualDistance | None,
    names: list[str] | None,
) -> Evaluation:
    models = [load_model(name, device) for name in args.model or ["default"] if name != BICUBIC]
    methods = {name: _method(model, args) for name, model in _named(models).items()}
    options = {"channel": "rgb" if args.rgb else "y", "distance": distance, "names": names}
    with console.progress(f"{args.data} x{args.scale}") as on_step:
        return evaluate_folder(args.data, args.scale, methods, **options, rounded=not args.unrounded, on_step=on_step)


def _denoising(
    args: argparse.Namespace,
    console: Console,
    device: torch.device,
    distance: PerceptualDistance | None,
    names: list[str] | None,
) -> DenoisingEvaluation:
    methods: dict[str, DenoisingMethod] = {}
    for wanted in args.model or [BLIND]:
        denoiser = load_denoiser(wanted).to(device)
        methods[_free_name(Path(wanted).stem, {*methods, NOISY})] = blind(
            denoiser, device=device, tile=args.tile, dtype=args.dtype
        )
    with console.progress(f"{args.data}, noise of {args.denoise:g}/255") as on_step:
        return evaluate_denoising(args.data, args.denoise, methods, distance=distance, names=names, on_step=on_step)


def _cells(row: Row, count: int) -> tuple[str, ...]:
    picture = f"mean of {count}" if row.picture == "mean" else row.picture
    distance = () if row.distance is None else (f"{row.distance:.4f}",)
    figures = (f"{row.psnr:.2f}", f"{row.ssim:.4f}", f"{row.spectrum:.2f}", *distance, f"{row.seconds:.2f}")
    return (picture, row.method, *figures)


def _named(models: list[Model]) -> dict[str, Model]:
    """Models by name; those of one name are told apart by a number."""
    named: dict[str, Model] = {}
    for model in models:
        named[_free_name(model.name, {*named, BICUBIC})] = model
    return named


def _free_name(wanted: str, taken: set[str]) -> str:
    name, number = wanted, 2
    while name in taken:
        name, number = f"{wanted} ({number})", number + 1
    return name


def _method(model: Model, args: argparse.Namespace) -> Method:
    def enlarge(image: Tensor, scale: int) -> Tensor:
        height, width = image.shape[-2:]
        size = (height * scale, width * scale)
        return model.stages(image, size, tile=args.tile, dtype=args.dtype, every=False)[-1]

    return enlarge
