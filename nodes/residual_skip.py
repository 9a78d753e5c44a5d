"""Residual Skip (article 2.6)."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..core.back_projection import back_project
from ..core.chain import Chain
from ..core.checks import check_choice
from ..core.layout import bhwc_shape
from ..core.residual import skip
from . import _models as models
from . import _runtime as runtime
from ._batch import run_batch
from ._inputs import CATEGORY, images_of, model_input, stage_input

MODES = ("weighted", "constant", "cosine", "attention", "back_projection")


class ResidualSkip(io.ComfyNode):
    """Bring part of the previous image back."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's schema."""
        return io.Schema(
            node_id="PU_ResidualSkip",
            display_name="Residual Skip",
            category=f"{CATEGORY}/stage",
            description="Brings part of the previous image back into the current one, so that stages do "
            "not drift away from what was there. With all of it the result is the previous image, "
            "enlarged; mode back_projection only makes both agree.",
            inputs=[
                io.Image.Input("current", tooltip="The image of this stage, usually denoised. Sets the size."),
                io.Image.Input(
                    "previous",
                    tooltip="The image of the stage before, any size; enlarged by bicubic. Mode back_projection: the "
                    "picture that the current image was made from.",
                ),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default="weighted",
                    tooltip="weighted = the model's learned weight for each band of detail; constant = "
                    "strength everywhere; cosine = by stage position, as DemoFusion; attention = where "
                    "both look alike; back_projection = what the current image, reduced, lacks of the "
                    "previous one: connect the picture that all began with.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Multiplier on the weight: 0 = the current image exactly, 1 = all that the mode gives.",
                ),
                io.Float.Input(
                    "position",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Mode cosine: where in the process this is. 1 = at its start, the previous "
                    "image leads; 0.5 = one eighth of it; 0 = at its end, none.",
                ),
                io.Int.Input(
                    "levels",
                    default=1,
                    min=1,
                    max=8,
                    tooltip="Modes constant, cosine and attention: bands of detail. With more, coarse bands take "
                    "more of the previous image than fine ones, which keeps new detail.",
                ),
                stage_input(),
                model_input("weighs (mode weighted; the bundled model if none is connected)"),
            ],
            outputs=[io.Image.Output("combined_image", display_name="image", tooltip="Current image with skip.")],
        )

    @classmethod
    def execute(
        cls,
        current: Tensor,
        previous: Tensor,
        mode: str,
        strength: float,
        position: float,
        levels: int,
        stage: int,
        model: Chain | None = None,
    ) -> io.NodeOutput:
        """Add the skip."""
        check_choice(mode, "mode", MODES)
        batch, height, width, _ = bhwc_shape(current, "current")
        chain = models.chain_or_default(model) if mode == "weighted" else None

        def work(job: runtime.Job, images: slice) -> list[Tensor]:
            now = job.send(images_of(current, images, batch, "current"))
            before = job.send(images_of(previous, images, batch, "previous"))
            if chain is not None:
                result = chain.stage(stage).skip(now, before, strength, on_step=job.on_step)
            elif mode == "back_projection":
                result = back_project(now, before, strength, overwrite=True, on_step=job.on_step)
            else:
                result = skip(now, before, mode, strength, position, levels)
            return [runtime.to_comfy(result, like=current)]

        return io.NodeOutput(*run_batch(work, batch, height * width, [chain] if chain else []))
