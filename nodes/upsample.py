"""Upsample (article 2.1)."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor, nn

from ..core.chain import Chain
from ..core.checks import check_choice
from ..core.layout import bhwc_shape
from ..core.upsample import upsample
from . import _models as models
from . import _runtime as runtime
from ._batch import run_batch
from ._inputs import (
    CATEGORY,
    COMMUNITY_TILES,
    images_of,
    machine_inputs,
    model_input,
    scale_inputs,
    stage_input,
    wanted_size,
)
from ._upsamplers import BUNDLED, CHOICES, MODEL, NETWORKS, network_of


class Upsample(io.ComfyNode):
    """Bring an image to another size, by interpolation or a network."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's schema."""
        return io.Schema(
            node_id="PU_Upsample",
            display_name="Upsample",
            category=f"{CATEGORY}/stage",
            description="Brings an image to another size: by interpolation, by ESPCN, FSRCNN or EDSR, by "
            "the upsampler of a progressive model, or by any upscale model that ComfyUI loads. A network "
            "runs as often as needed; antialiased bicubic then reduces its result to the exact size.",
            inputs=[
                io.Image.Input("image", tooltip="The image to enlarge or reduce."),
                io.Combo.Input(
                    "method",
                    options=list(CHOICES),
                    default=MODEL,
                    tooltip="How pixels are made. model = by the connected upscale_model or model, or else by "
                    "the bundled model; nearest = blocks, bilinear = soft, bicubic = the usual baseline, "
                    "lanczos = sharper with faint halos; espcn, fsrcnn and edsr = networks of the papers.",
                ),
                *scale_inputs(2.0),
                io.Combo.Input(
                    "checkpoint",
                    options=[BUNDLED, *runtime.model_files()],
                    default=BUNDLED,
                    tooltip="Weights of the methods espcn, fsrcnn and edsr: the bundled ones, or a "
                    ".safetensors file in models/progressive_upsampling.",
                ),
                stage_input(),
                *machine_inputs(COMMUNITY_TILES),
                model_input("upsamples (method model; the bundled model if none is connected)"),
                io.UpscaleModel.Input(
                    "upscale_model",
                    optional=True,
                    tooltip="A community model from Load Upscale Model (method model).",
                ),
            ],
            outputs=[io.Image.Output("upsampled_image", display_name="image", tooltip="The image at its new size.")],
        )

    @classmethod
    def fingerprint_inputs(cls, method: str | None = None, checkpoint: str | None = None, **_: Any) -> Any:
        """Load again when the file has changed."""
        unread = checkpoint == BUNDLED or method not in (None, *NETWORKS)
        return "" if unread else models.watched(checkpoint)

    @classmethod
    def execute(
        cls,
        image: Tensor,
        method: str,
        scale: float,
        width: int,
        height: int,
        checkpoint: str,
        stage: int,
        tile: int,
        precision: str,
        model: Chain | None = None,
        upscale_model: Any = None,
    ) -> io.NodeOutput:
        """Upsample the image."""
        check_choice(method, "method", CHOICES)
        if method == MODEL and model is not None and upscale_model is not None:
            raise ValueError("model, upscale_model: expected one of the two, got both")
        batch, *before, _ = bhwc_shape(image)
        size = wanted_size((before[0], before[1]), scale, width, height)
        how: str | nn.Module = method
        networks: list[nn.Module] = []
        community = upscale_model if method == MODEL else None
        if community is not None:
            networks = [runtime.community_network(community)]
        elif method == MODEL:
            chain = models.chain_or_default(model)
            networks = [chain]
            how = chain.stage(stage).upsampler
        elif method in NETWORKS:
            ratio = max(size[0] / before[0], size[1] / before[1])
            how = network_of(method, ratio, checkpoint)
            networks = [how]

        def work(job: runtime.Job, images: slice) -> list[Tensor]:
            chosen = how if community is None else runtime.community_upsampler(community, job.tile)
            source = job.send(images_of(image, images, batch, "image"))
            dtype = job.dtype(precision) if networks else "auto"
            result = upsample(source, size, chosen, tile=job.tile, dtype=dtype, on_step=job.on_step)
            return [runtime.to_comfy(result, like=image)]

        return io.NodeOutput(*run_batch(work, batch, size[0] * size[1], networks, tile, show=True))
