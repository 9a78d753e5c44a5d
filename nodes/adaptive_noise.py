"""Adaptive Noise (article 2.2.3)."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..core.adaptive_noise import MODES, adaptive_sigma
from ..core.chain import Chain
from ..core.layout import bhwc_shape, map_at, map_to_mask
from . import _models as models
from . import _runtime as runtime
from ._batch import run_batch
from ._inputs import CATEGORY, images_of, model_input, stage_input, strength_input, unit_map_of


class AdaptiveNoise(io.ComfyNode):
    """Decide how much noise goes where."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's schema."""
        return io.Schema(
            node_id="PU_AdaptiveNoise",
            display_name="Adaptive Noise",
            category=f"{CATEGORY}/stage",
            description="Decides how much noise goes where. The sigma map is a mask: preview it, paint on "
            "it, multiply it, and give it to Inject Noise and Attention U-Net Denoise.",
            inputs=[
                io.Image.Input("image", tooltip="The upsampled image that noise will be added to."),
                io.Combo.Input(
                    "mode",
                    options=list(reversed(MODES)),
                    default="learned",
                    tooltip="learned = where the model expects errors; gradient = more at edges, less in "
                    "flat areas; uniform = the same everywhere.",
                ),
                strength_input(),
                io.Float.Input(
                    "base_sigma",
                    default=0.04,
                    min=0.0,
                    max=1.0,
                    step=0.005,
                    tooltip="Noise level of the modes gradient and uniform without a model, as standard "
                    "deviation for images of 0..1 (0.04 is ten grey levels). With a model its trained "
                    "level is used.",
                ),
                stage_input(),
                model_input("predicts the errors (mode learned; the bundled model if none is connected)"),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Limits where noise goes: the sigma map is multiplied by it. White (1) = as it is, "
                    "black (0) = no noise. Another size is brought to the image's.",
                ),
            ],
            outputs=[
                io.Mask.Output(
                    "sigma_map",
                    display_name="sigma map",
                    tooltip="Standard deviation of the noise at every pixel, for images of 0..1.",
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        image: Tensor,
        mode: str,
        strength: float,
        base_sigma: float,
        stage: int,
        model: Chain | None = None,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        """Compute the sigma map."""
        batch, height, width, _ = bhwc_shape(image)
        chain = None if model is None and mode != "learned" else models.chain_or_default(model)

        def work(job: runtime.Job, images: slice) -> list[Tensor]:
            source = job.send(images_of(image, images, batch, "image"))
            if chain is None:
                sigma = adaptive_sigma(source, mode, strength, base_sigma)
            else:
                sigma = chain.stage(stage).sigma(source, mode, strength)
            if mask is not None:
                sigma = sigma * job.send(map_at(unit_map_of(mask, images, batch, "mask"), (height, width)))
            return [runtime.on_intermediate(map_to_mask(sigma))]

        return io.NodeOutput(*run_batch(work, batch, height * width, [chain] if chain else []))
