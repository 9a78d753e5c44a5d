"""Super-resolution quality over a folder of pictures, by the protocol of the literature."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from .checks import check_choice, check_image, check_integer
from .metrics import CHANNELS, SSIM_WINDOW, psnr, radial_spectrum_error, ssim
from .perceptual_distance import PerceptualDistance
from .picture_format import READABLE, find_pictures
from .pictures import read_picture
from .progress import OnStep
from .squeezenet import SMALLEST
from .train.degrade import matlab_imresize

BICUBIC = "bicubic"  # the row that every result has: it shows whether the protocol is right

Method = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class Row:
    """One picture (or the mean over all) by one method.

    Args:
        picture: file name; "mean" for the mean.
        method: name of the method.
        psnr: dB.
        ssim: at most 1.
        spectrum: `radial_spectrum_error`, dB.
        distance: PD-squeeze, see `PerceptualDistance`; None where it was not measured.
        seconds: time the method took.
    """

    picture: str
    method: str
    psnr: float
    ssim: float
    spectrum: float
    distance: float | None
    seconds: float


class Means:
    """What evaluations have in common: means over their rows, and JSON. A subclass is a dataclass with both fields."""

    methods: tuple[str, ...]
    rows: tuple[Row, ...]

    def mean(self, method: str) -> Row:
        """Mean over the pictures.

        Args:
            method: one of `methods`.

        Returns:
            A row whose picture is "mean".

        Raises:
            ValueError: no such method.
        """
        check_choice(method, "method", self.methods)
        return mean_row(self.rows, method)

    def to_json(self) -> str:
        """The evaluation as JSON text: its fields, and "mean" by method; an infinite PSNR becomes null."""
        fields = asdict(self)  # type: ignore[call-overload]
        content = fields | {"mean": {name: asdict(self.mean(name)) for name in self.methods}}
        return json.dumps(without_infinity(content), indent=2, allow_nan=False)


@dataclass(frozen=True)
class Evaluation(Means):
    """The result of `evaluate_folder`.

    Args:
        folder: name of the folder.
        scale: factor.
        channel: "y" or "rgb".
        rounded: whether the pictures that were enlarged are of 8 bits.
        methods: method names, "bicubic" first.
        rows: one per picture and method, pictures in the order of their names.
    """

    folder: str
    scale: int
    channel: str
    rounded: bool
    methods: tuple[str, ...]
    rows: tuple[Row, ...]


@torch.no_grad()
def evaluate_folder(
    folder: str | Path,
    scale: int,
    methods: Mapping[str, Method],
    *,
    channel: str = "y",
    rounded: bool = True,
    distance: PerceptualDistance | None = None,
    names: Collection[str] | None = None,
    on_step: OnStep | None = None,
) -> Evaluation:
    """Reduce each picture as the published benchmarks do, let each method enlarge it, and compare.

    The picture is cropped to a multiple of the scale, reduced by MATLAB's imresize, enlarged,
    quantised to 8 bits, and compared with `scale` pixels left out at each border. A grey picture stays grey:
    the methods see it repeated to RGB, and the mean of what they return is compared with it.

    Args:
        folder: folder of pictures, all of which are read, as `find_pictures` lists and `read_picture` reads them.
        scale: whole factor, >= 2.
        methods: name to function of (`[1, 3, h, w]` float32 in 0..1 on the CPU, scale) to
            `[1, 3, h·scale, w·scale]` on any device. "bicubic" is always computed and cannot be given.
        channel: "y" or "rgb", for PSNR, SSIM and spectrum.
        rounded: whether it is reduced in 8 bits, as a file would hold it. False leaves reductions as they are, neither
            rounded nor clipped: the published figures of LapSRN and MS-LapSRN are of those.
        distance: what measures PD-squeeze, always on RGB; None leaves it out.
        names: file names of the pictures to read, with or without their suffix; None reads all.
        on_step: called after each picture of each method, with the enlarged picture.

    Returns:
        The rows, picture by picture.

    Raises:
        ValueError: no pictures in the folder, one of `names` that is not there, a picture that cannot be read or is
            too small, a bad scale, a name that is taken, a method that returns another shape, NaN or infinity.
    """
    check_integer(scale, "scale", 2)
    check_choice(channel, "channel", CHANNELS)
    if BICUBIC in methods:
        raise ValueError(f"methods: expected names other than {BICUBIC!r}, which is always computed")
    paths = picture_paths(Path(folder), names)
    every = (BICUBIC, *methods)
    rows: list[Row] = []
    smallest = 2 * scale + (SSIM_WINDOW if distance is None else SMALLEST)
    for path in paths:
        truth = read_8bit(path)
        H, W = truth.shape[-2:]
        truth = truth[..., : H - H % scale, : W - W % scale]
        if min(truth.shape[-2:]) < smallest:
            raise ValueError(f"{path}: expected at least {smallest} pixels a side, got {H} x {W}")
        reduced = matlab_imresize(truth if rounded else truth.double(), scale=1.0 / scale)
        for name in every:
            started = time.perf_counter()
            if name == BICUBIC:
                result = matlab_imresize(reduced, scale=float(scale)).float() / 255.0
            else:
                result = _enlarge(methods[name], name, reduced, scale)
            seconds = time.perf_counter() - started
            rows.append(_compare(path.name, name, result, truth, scale, channel, distance, seconds))
            if on_step is not None:
                on_step(float(len(rows)), float(len(paths) * len(every)), result.clamp(0.0, 1.0))
    return Evaluation(Path(folder).resolve().name, scale, channel, rounded, every, tuple(rows))


def _enlarge(method: Method, name: str, reduced: Tensor, scale: int) -> Tensor:
    C, h, w = reduced.shape[1:]
    result = method(reduced.expand(-1, 3, -1, -1).float() / 255.0, scale)
    expected = (1, 3, h * scale, w * scale)
    if tuple(result.shape) != expected:
        raise ValueError(f"{name}: expected a result {list(expected)}, got {tuple(result.shape)}")
    check_image(result, name)
    result = result.float().cpu()
    return result.mean(dim=1, keepdim=True) if C == 1 else result


def _compare(
    picture: str,
    method: str,
    result: Tensor,
    truth: Tensor,
    scale: int,
    channel: str,
    distance: PerceptualDistance | None,
    seconds: float,
) -> Row:
    reference = truth.float() / 255.0
    return Row(
        picture=picture,
        method=method,
        psnr=float(psnr(result, reference, channel=channel, crop=scale)),
        ssim=float(ssim(result, reference, channel=channel, crop=scale)),
        spectrum=float(radial_spectrum_error(result, reference, channel=channel, crop=scale)),
        distance=None if distance is None else float(distance.measure(result, reference, crop=scale)),
        seconds=seconds,
    )


def mean_row(rows: Sequence[Row], method: str) -> Row:
    """The mean over the pictures of a method; PD-squeeze is None where one picture lacks it."""
    rows = [row for row in rows if row.method == method]

    def mean(key: str) -> float:
        return math.fsum(getattr(row, key) for row in rows) / len(rows)

    distance = None if any(row.distance is None for row in rows) else mean("distance")
    return Row("mean", method, mean("psnr"), mean("ssim"), mean("spectrum"), distance, mean("seconds"))


def picture_paths(folder: Path, names: Collection[str] | None = None) -> list[Path]:
    """The pictures of a folder in the order of their names, or those of `names` (with or without their suffix).

    Raises:
        ValueError: no folder, no pictures in it, or one of the names is not there.
    """
    if not folder.is_dir():
        raise ValueError(f"folder: expected a folder of pictures, got {folder}")
    paths = find_pictures(folder)
    if names is not None:
        known = {path.name for path in paths} | {path.stem for path in paths}
        missing = [name for name in names if name not in known]
        if missing:
            raise ValueError(f"names: expected pictures of {folder}, got {missing[0]!r} ({len(missing)} not there)")
        paths = [path for path in paths if path.name in names or path.stem in names]
    if not paths:
        raise ValueError(f"folder: expected pictures ({', '.join(READABLE)}), found none in {folder}")
    return paths


def read_8bit(path: Path) -> Tensor:
    """Read a picture as `[1, 1 or 3, H, W]` uint8; alpha is dropped, 16 bits are rounded to 8.

    Raises:
        PictureError: as `read_picture`.
    """
    picture = read_picture(path)
    image = picture.image[:, : 1 if picture.grey else 3]
    return image.mul(255.0).add(0.5).floor().byte()


def without_infinity(value: object) -> object:
    """Plain values with null in the place of every number that JSON cannot hold."""
    if isinstance(value, dict):
        return {key: without_infinity(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_infinity(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
