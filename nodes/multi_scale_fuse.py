"""Multi-Scale Fuse (article 2.5)."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..core.chain import Chain
from ..core.checks import check_choice, check_number
from ..core.fusion import MODES, STRUCTURES, fuse
from ..core.layout import bhwc_shape, map_to_mask
from ..core.precision import autocast, resolve_dtype
from . import _models as models
from . import _runtime as runtime
from ._batch import run_batch
from ._inputs import CATEGORY, images_of, model_input, precision_input, stage_input

MOST = 6


class MultiScaleFuse(io.ComfyNode):
    """Make one image of several."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's schema."""
        return io.Schema(
            node_id="PU_MultiScaleFuse",
            display_name="Multi-Scale Fuse",
            category=f"{CATEGORY}/stage",
            description="Makes one image of two to six of any sizes: a weighted sum at every pixel, at the "
            "size of the first, the finest. Where all images agree, the result is that image.",
            inputs=[
                *[_image_input(number) for number in range(1, MOST + 1)],
                io.Combo.Input(
                    "mode",
                    options=list(reversed(MODES)),
                    default="learned",
                    tooltip="learned = a small network weighs every pixel; attention = images count where "
                    "they look like the finest; weighted = the weights below.",
                ),
                io.Combo.Input(
                    "structure",
                    options=list(STRUCTURES),
                    default="flat",
                    tooltip="flat = all at once; hierarchical = the coarsest two first, then the next; "
                    "laplacian = each band of detail with weights of its own.",
                ),
                io.String.Input(
                    "weights",
                    default="",
                    placeholder="2, 1, 1",
                    tooltip="Mode weighted: one number from 0 up for each connected image, in order; only "
                    "their ratio counts. Empty = equal.",
                ),
                io.Float.Input(
                    "temperature",
                    default=1.0,
                    min=0.01,
                    max=100.0,
                    step=0.05,
                    tooltip="Mode attention: small = the finest image wins where they differ; large = they "
                    "are averaged.",
                ),
                stage_input(),
                model_input("weighs (mode learned; the bundled model if none is connected)"),
                precision_input(optional=True),  # scripts of before do not give it
            ],
            outputs=[
                io.Image.Output("fused_image", display_name="image", tooltip="The fused image."),
                io.Mask.Output(
                    "weight_maps",
                    display_name="weight maps",
                    is_output_list=True,
                    tooltip="For each connected image the share it has at every pixel, 0..1; together they are 1.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        image_1: Tensor,
        image_2: Tensor,
        mode: str,
        structure: str,
        weights: str,
        temperature: float,
        stage: int,
        model: Chain | None = None,
        precision: str = "auto",
        **more: Tensor | None,
    ) -> io.NodeOutput:
        """Fuse the images."""
        check_choice(mode, "mode", MODES)
        named = {"image_1": image_1, "image_2": image_2, **more}
        # core has them from coarse to fine; here the finest is first, so that it goes on where the node is bypassed
        connected = {name: image for name, image in sorted(named.items(), reverse=True) if image is not None}
        # the size of the finest, not of the largest: a stage that makes one side smaller keeps its own, as in the chain
        batch, height, width, channels = bhwc_shape(image_1, "image_1")
        for name, image in connected.items():
            if bhwc_shape(image, name)[3] != channels:
                raise ValueError(f"{name}: expected {channels} channels as image_1, got {image.shape[3]}")
        size = (height, width)
        chain = models.chain_or_default(model) if mode == "learned" else None
        part = chain.stage(stage) if chain else None
        given = parse_weights(weights)[::-1] or None if mode == "weighted" else None

        def work(job: runtime.Job, images: slice) -> list[Tensor]:
            sent = [job.send(images_of(image, images, batch, name)) for name, image in connected.items()]
            dtype = job.dtype(precision) if part else "auto"
            if part is None:
                image, maps = fuse(sent, mode, structure, given, None, size, temperature)
            elif structure == "flat":
                image, maps = part.fuse(sent, size, dtype=dtype)
            else:
                with autocast(job.device, resolve_dtype(dtype, job.device)):
                    image, maps = fuse(sent, mode, structure, given, part.weights, size, temperature)
            masks = [runtime.on_intermediate(map_to_mask(map_)) for map_ in reversed(maps.split(1, dim=1))]
            return [runtime.to_comfy(image, like=image_1), *masks]

        fused, *masks = run_batch(work, batch, height * width, [chain] if chain else [])
        return io.NodeOutput(fused, masks)


def _image_input(number: int) -> io.Image.Input:
    place = {1: "The finest image, which sets the size", 2: "The next coarser image"}
    tooltip = f"{place.get(number, 'A further, coarser image')}; any size, same batch and channels."
    return io.Image.Input(f"image_{number}", optional=number > 2, tooltip=tooltip)


def parse_weights(text: str) -> list[float]:
    """Numbers from text such as "2, 1, 1"; none from empty text.

    Raises:
        ValueError: something is no number, or below 0.
    """
    words = text.replace(",", " ").replace(";", " ").split()
    try:
        weights = [float(word) for word in words]
    except ValueError:
        raise ValueError(f"weights: expected numbers such as '2, 1, 1', got {text!r}") from None
    for number, weight in enumerate(weights, 1):
        check_number(weight, f"weights, number {number}", 0.0)
    return weights
