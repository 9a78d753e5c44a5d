"""Attention U-Net Denoise (article 2.3, 2.4)."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..core.chain import Chain
from ..core.layout import bhwc_shape
from . import _models as models
from . import _runtime as runtime
from ._batch import run_batch
from ._inputs import (
    CATEGORY,
    detail_mask_input,
    images_of,
    machine_inputs,
    model_input,
    refinement_inputs,
    sigma_of,
    stage_input,
    steps_of,
    unit_map_of,
)


class AttnUNetDenoise(io.ComfyNode):
    """Turn a noisy image into a clean one."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's schema."""
        return io.Schema(
            node_id="PU_AttnUNetDenoise",
            display_name="Attention U-Net Denoise",
            category=f"{CATEGORY}/stage",
            description="Estimates the true image from a noisy one, in one step (least error) or a few "
            "(more texture). With the upsampled image as conditioning it works as in the chain; without, "
            "it is a denoiser.",
            inputs=[
                io.Image.Input("noisy_image", tooltip="The image from Inject Noise, or any noisy image."),
                io.Mask.Input(
                    "sigma_map",
                    optional=True,
                    tooltip="Standard deviation of its noise at every pixel, for images of 0..1; 0 = no "
                    "noise, as where nothing is connected. From Inject Noise; another size is brought to the image's.",
                ),
                *refinement_inputs(),
                stage_input(),
                *machine_inputs(),
                model_input("denoises (the bundled model if none is connected)"),
                io.Image.Input(
                    "conditioning",
                    optional=True,
                    tooltip="The image before noise was added, of the same size. Without it the noise is taken out "
                    "of the noisy image alone, by the bundled denoiser if no model is connected.",
                ),
                detail_mask_input(),
            ],
            outputs=[
                io.Image.Output("denoised_image", display_name="image", tooltip="The estimate of the true image.")
            ],
        )

    @classmethod
    def execute(
        cls,
        noisy_image: Tensor,
        detail: float,
        steps: str,
        stage: int,
        tile: int,
        precision: str,
        sigma_map: Tensor | None = None,
        model: Chain | None = None,
        conditioning: Tensor | None = None,
        detail_mask: Tensor | None = None,
    ) -> io.NodeOutput:
        """Denoise the image."""
        batch, height, width, _ = bhwc_shape(noisy_image, "noisy_image")
        evaluations = steps_of(steps)
        if sigma_map is None and conditioning is None:
            raise ValueError("sigma_map: expected how strong the noise is, as there is no conditioning, got none")
        level = noisy_image.new_zeros(1, height, width) if sigma_map is None else sigma_map
        chain = models.chain_or_default(model)
        part = chain.stage(stage)
        blind = models.bundled_denoiser() if conditioning is None and model is None else None
        networks = [chain] if blind is None else [chain, blind]

        def work(job: runtime.Job, images: slice) -> list[Tensor]:
            noisy = job.send(images_of(noisy_image, images, batch, "noisy_image"))
            sigma = job.send(sigma_of(level, images, batch, "sigma_map", noisy))
            known = where = None
            if conditioning is not None:
                known = job.send(images_of(conditioning, images, batch, "conditioning"))
            if detail_mask is not None:
                where = job.send(unit_map_of(detail_mask, images, batch, "detail_mask"))
            result = part.denoise(
                noisy,
                sigma,
                known,
                steps=evaluations,
                detail=detail,
                detail_mask=where,
                blind=blind,
                tile=job.tile,
                dtype=job.dtype(precision),
                on_step=job.on_step,
            )
            return [runtime.to_comfy(result, like=noisy_image)]

        return io.NodeOutput(*run_batch(work, batch, height * width, networks, tile, show=True))
