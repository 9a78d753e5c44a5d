"""Save Progressive Model."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from comfy_api.latest import io, ui

from ..core.chain import Chain
from ..core.checkpoint import SUFFIX
from ..core.checks import check_choice
from . import _models as models
from . import _runtime as runtime
from ._inputs import CATEGORY, Model, inside

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16}


class SaveModel(io.ComfyNode):
    """Write a chain to a checkpoint."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's schema."""
        return io.Schema(
            node_id="PU_SaveModel",
            display_name="Save Progressive Model",
            category=f"{CATEGORY}/model",
            description="Saves a model as a new file in models/progressive_upsampling, where Load "
            "Progressive Model finds it. Nothing is overwritten: names are counted on.",
            is_output_node=True,
            inputs=[
                Model.Input("model", tooltip="The model to save."),
                io.String.Input(
                    "filename_prefix",
                    default="progressive",
                    tooltip="Start of the file's name, with subfolder if wanted (mine/portraits). A number "
                    "and .safetensors are added.",
                ),
                io.Combo.Input(
                    "precision",
                    options=list(PRECISIONS),
                    default="fp32",
                    tooltip="How weights are stored. fp16 halves the file; the pictures then differ by "
                    "less than one grey level.",
                ),
            ],
            outputs=[io.String.Output("file", display_name="file", tooltip="Path of the file written.")],
        )

    @classmethod
    def execute(cls, model: Chain, filename_prefix: str, precision: str) -> io.NodeOutput:
        """Save the model."""
        check_choice(precision, "precision", PRECISIONS)
        chain = models.chain_or_default(model)
        path = next_path(runtime.model_folder(), filename_prefix)
        os.makedirs(path.parent, exist_ok=True)
        chain.save(path, dtype=PRECISIONS[precision])
        return io.NodeOutput(str(path), ui=ui.PreviewText(f"saved as {path.name}"))


def next_path(folder: str, prefix: str) -> Path:
    """The first free name with a prefix and a number.

    Raises:
        ValueError: the prefix is empty, or leads out of the folder.
    """
    target = inside(folder, prefix.strip().removesuffix(SUFFIX), "filename_prefix")
    number = 1
    while (path := target.with_name(f"{target.name}_{number:05}{SUFFIX}")).exists():
        number += 1
    return path
