"""Load Progressive Model."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..core.chain import DEFAULT, KIND, Chain
from ..core.checkpoint import bundled, read_metadata, resolve
from . import _models as models
from . import _runtime as runtime
from ._inputs import CATEGORY, Model


class LoadModel(io.ComfyNode):
    """Load a chain from a checkpoint."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's schema."""
        names = offered()
        return io.Schema(
            node_id="PU_LoadModel",
            display_name="Load Progressive Model",
            category=f"{CATEGORY}/model",
            description="Loads a model for the nodes of this pack: a bundled one, a .safetensors file in "
            "models/progressive_upsampling, or the last or best one of a training run.",
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=names,
                    default=DEFAULT if DEFAULT in names else None,
                    tooltip="A bundled model, a file in models/progressive_upsampling, or what a run of Train has "
                    "saved in output/progressive_upsampling. Press R to see new files.",
                ),
            ],
            outputs=[
                Model.Output(
                    "model",
                    display_name="model",
                    tooltip="All stages: upsamplers, noise controllers, denoisers, weights.",
                )
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, model_name: str | None = None, **_: Any) -> Any:
        """Load again when the file has changed."""
        return models.watched(model_name)

    @classmethod
    def execute(cls, model_name: str) -> io.NodeOutput:
        """Load the model."""
        return io.NodeOutput(models.load_once(runtime.model_path(model_name, offered()), Chain.from_pretrained))


def offered() -> list[str]:
    """Names of the models that can be chosen: bundled ones, files, and those of training runs."""
    return [*bundled_chains(), *runtime.model_files(), *runtime.run_models()]


def bundled_chains() -> list[str]:
    """Names of the bundled checkpoints that hold a chain."""
    return [name for name in bundled() if read_metadata(resolve(name)).get("kind") == KIND]
