"""Progressive Upscale: the whole chain in one node."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor, nn

from ..core.adaptive_noise import MODES
from ..core.chain import Chain
from ..core.checks import check_choice
from ..core.layout import bhwc_shape
from ..core.noise import KINDS
from . import _models as models
from . import _runtime as runtime
from ._batch import run_batch
from ._inputs import (
    CATEGORY,
    COMMUNITY_TILES,
    Model,
    detail_mask_input,
    images_of,
    machine_inputs,
    refinement_inputs,
    scale_inputs,
    seed_input,
    steps_of,
    strength_input,
    unit_map_of,
    wanted_size,
)
from ._upsamplers import CHOICES, MODEL, NETWORKS, network_of


class ProgressiveUpscale(io.ComfyNode):
    """Take an image to its target size, stage by stage."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's schema."""
        return io.Schema(
            node_id="PU_ProgressiveUpscale",
            display_name="Progressive Upscale",
            category=CATEGORY,
            description="Takes an image to its target size in stages of ×2: upsample, add noise, denoise, "
            "residual skip, fuse. The same as a graph of the separate nodes.",
            inputs=[
                io.Image.Input("image", tooltip="The image to enlarge, any size and aspect ratio."),
                *scale_inputs(4.0),
                *refinement_inputs(),
                strength_input(),
                seed_input(),
                io.Combo.Input(
                    "noise",
                    options=list(reversed(MODES)),
                    default="learned",
                    tooltip="Where noise goes: learned = where the model expects errors; gradient = more "
                    "at edges; uniform = everywhere alike. Counts while detail is above 0.",
                ),
                io.Combo.Input(
                    "distribution",
                    options=list(KINDS),
                    default="gaussian",
                    tooltip="gaussian = what models are trained with; uniform = bounded; correlated = "
                    "grains of a few pixels. Counts while detail is above 0.",
                ),
                io.Float.Input(
                    "skip",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Multiplier on the residual skips, from stage to stage and, at the end, from the first "
                    "picture: 0 = off, 1 = as trained.",
                ),
                io.Boolean.Input(
                    "fusion",
                    default=True,
                    tooltip="Whether each stage's result is fused with the image before it.",
                ),
                *machine_inputs(COMMUNITY_TILES),
                io.Combo.Input(
                    "upsampler",
                    options=list(CHOICES),
                    default=MODEL,
                    optional=True,
                    tooltip="What enlarges in every stage. model = the connected upscale_model, or else the model's "
                    "own upsampler; nearest to lanczos = interpolation; espcn, fsrcnn and edsr = the bundled network "
                    "of that name for ×2. Denoiser, skip and fusion go on from there as trained.",
                ),
                Model.Input(
                    "model",
                    optional=True,
                    tooltip="The progressive model that does all the work (the bundled model if none is connected).",
                ),
                io.UpscaleModel.Input(
                    "upscale_model",
                    optional=True,
                    tooltip="A community model from Load Upscale Model, used as the upsampler of every stage.",
                ),
                detail_mask_input(),
            ],
            outputs=[
                io.Image.Output("upscaled_image", display_name="image", tooltip="The image at its target size."),
                io.Image.Output(
                    "stages",
                    display_name="stages",
                    is_output_list=True,
                    tooltip="The image after every stage, as a list; the last is the result.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        image: Tensor,
        scale: float,
        width: int,
        height: int,
        detail: float,
        steps: str,
        strength: float,
        seed: int,
        noise: str,
        distribution: str,
        skip: float,
        fusion: bool,
        tile: int,
        precision: str,
        upsampler: str = MODEL,
        model: Chain | None = None,
        upscale_model: Any = None,
        detail_mask: Tensor | None = None,
    ) -> io.NodeOutput:
        """Run the chain."""
        check_choice(upsampler, "upsampler", CHOICES)
        if upsampler != MODEL and upscale_model is not None:
            raise ValueError(f"upsampler, upscale_model: expected one of the two, got {upsampler!r} and a model")
        batch, *before, _ = bhwc_shape(image)
        size = wanted_size((before[0], before[1]), scale, width, height)
        chain = models.chain_or_default(model)
        chosen: str | nn.Module | None = None if upsampler == MODEL else upsampler
        extra: list[nn.Module] = []
        if upsampler in NETWORKS:
            extra = [chosen := network_of(upsampler, 2)]
        elif upscale_model is not None:
            extra = [runtime.community_network(upscale_model)]

        evaluations = steps_of(steps)

        def work(job: runtime.Job, images: slice) -> list[Tensor]:
            where = None
            if detail_mask is not None:
                where = unit_map_of(detail_mask, images, batch, "detail_mask")
            stages = chain.stages_of(
                images_of(image, images, batch, "image"),
                size=size,
                upsampler=chosen if upscale_model is None else runtime.community_upsampler(upscale_model, job.tile),
                seed=seed,
                strength=strength,
                detail=detail,
                detail_mask=where,
                steps=evaluations,
                noise=noise,
                distribution=distribution,
                skip=skip,
                fusion=fusion,
                tile=job.tile,
                dtype=job.dtype(precision),
                on_step=job.on_step,
            )
            return [runtime.to_comfy(stage, like=image) for stage in stages]

        results = run_batch(work, batch, size[0] * size[1], [chain, *extra], tile, show=True)
        return io.NodeOutput(results[-1], results)
