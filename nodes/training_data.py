"""Training Data."""

from __future__ import annotations

import hashlib
import os
from typing import Any

from comfy_api.latest import io, ui
from torch import Tensor

from ..core.checks import check_choice
from ..core.layout import from_bhwc
from ..core.train.data_config import DEGRADATIONS, DataConfig
from ..core.train.picture_files import picture_files
from ..core.train.pictures import PictureBatch, Pictures, Subset
from . import _models as models
from . import _runtime as runtime
from ._training import TRAINING, Data, TrainingPictures

NAMED = 5  # files that the report names


class TrainingData(io.ComfyNode):
    """Choose the pictures to train on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's schema."""
        return io.Schema(
            node_id="PU_TrainingData",
            display_name="Training Data",
            category=TRAINING,
            description="Chooses the pictures to train on and to validate with, and how small pictures are made "
            "of them: training takes crops, reduces them, and learns the way back. Shows how many pictures there "
            "are and which cannot be read.",
            is_output_node=True,  # so that it can be run alone, for its report
            inputs=[
                io.String.Input(
                    "folder",
                    default="",
                    tooltip="Folder of pictures, searched through all levels: its whole path, or from ComfyUI's "
                    "input folder on. Empty = train on the connected images.",
                ),
                io.String.Input(
                    "validation_folder",
                    default="",
                    tooltip="Folder of pictures that the model is measured on and never trained on. Empty = hold "
                    "back a share of the training pictures.",
                ),
                io.Float.Input(
                    "validation_share",
                    default=0.1,
                    min=0.0,
                    max=0.5,
                    step=0.05,
                    tooltip="Share of the training pictures held back to measure on, at least one; 0 = none. "
                    "Used while validation_folder is empty. A single picture is never held back.",
                ),
                io.Combo.Input(
                    "degradation",
                    options=list(DEGRADATIONS),
                    default="bicubic",
                    tooltip="How small pictures are made: bicubic = reduced cleanly, as benchmarks do; realistic = "
                    "with blur, noise and JPEG traces too, for pictures from the web or old cameras.",
                ),
                io.Float.Input(
                    "color_jitter",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Strength of random changes of colour; 0 = none. Helps where pictures are few and all "
                    "of one mood.",
                ),
                io.Float.Input(
                    "mixup",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Share of the crops that are blends of two. Guards against learning few pictures by heart.",
                ),
                io.Float.Input(
                    "cutblur",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Share of the crops whose input is softened in part, so that the model learns to leave "
                    "alone what is sharp.",
                ),
                io.Boolean.Input(
                    "flips",
                    default=True,
                    tooltip="Whether crops are mirrored at random. Switch it off for text.",
                ),
                io.Boolean.Input(
                    "turns",
                    default=True,
                    tooltip="Whether crops are turned at random by 90, 180 or 270 degrees. Switch it off for text.",
                ),
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip="Pictures to train on in place of a folder.",
                ),
            ],
            outputs=[
                Data.Output("training_data", display_name="data", tooltip="The pictures, for Train."),
                io.String.Output("report", display_name="report", tooltip="How many pictures, and which are left out."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, folder: str | None = None, validation_folder: str | None = None, **_: Any) -> Any:
        """Read again when a picture has come, gone or changed."""
        try:
            return content(folder, "folder"), content(validation_folder, "validation_folder")
        except (ValueError, OSError):
            return float("nan")  # never equal: let execute say what is wrong

    @classmethod
    def execute(
        cls,
        folder: str,
        validation_folder: str,
        validation_share: float,
        degradation: str,
        color_jitter: float,
        mixup: float,
        cutblur: float,
        flips: bool,
        turns: bool,
        images: Tensor | None = None,
    ) -> io.NodeOutput:
        """Look at the pictures."""
        check_choice(degradation, "degradation", DEGRADATIONS)
        if bool(folder.strip()) == (images is not None):
            got = "neither" if images is None else "both"
            raise ValueError(f"folder, images: expected pictures from one of the two, got {got}")
        config = DataConfig(
            degradation=degradation, jitter=color_jitter, mixup=mixup, cutblur=cutblur, flips=flips, turns=turns
        )
        source = runtime.input_folder(folder, "folder") if images is None else PictureBatch(from_bhwc(images, "images"))
        given = validation_folder.strip() != ""
        validation = runtime.input_folder(validation_folder, "validation_folder") if given else None
        data = TrainingPictures(source, validation, validation_share, config)
        text = report(*data.open())
        runtime.say(text)
        return io.NodeOutput(data, text, ui=ui.PreviewText(text))


def content(folder: str | None, argument: str) -> str:
    """What changes with the names, sizes and dates of the pictures under a folder.

    Nothing for no folder, or for one whose name comes through a link, which ComfyUI does not tell beforehand.
    """
    if folder is None or not folder.strip():
        return ""
    digest = hashlib.sha256()
    for path in picture_files(runtime.input_folder(folder, argument)):
        digest.update(repr(models.fingerprint(os.fspath(path))).encode())
    return digest.hexdigest()


def report(training: Pictures, validation: Pictures | None) -> str:
    """How many pictures there are for what, and which are left out."""
    lines = [f"{len(training)} to train on, {_sides(training)}"]
    if validation is None:
        lines.append("none to validate with")
    else:
        lines.append(f"{len(validation)} to validate with, {_sides(validation)}")
    if isinstance(training, Subset) and not isinstance(validation, Subset):
        lines.append(f"{len(training.pictures) - len(training)} in both folders, not trained on")
    skipped = [*training.skipped, *(validation.skipped if validation is not None else [])]
    skipped = list(dict.fromkeys(skipped))  # of a split, both sides name those of the whole
    if skipped:
        more = ["…"] if len(skipped) > NAMED else []
        lines += [f"{len(skipped)} left out:", *skipped[:NAMED], *more]
    return "\n".join(lines)


def _sides(pictures: Pictures) -> str:
    short = [min(size) for size in pictures.sizes]
    low, high = min(short), max(short)
    return f"short side {low} px" if low == high else f"short sides {low} to {high} px"
