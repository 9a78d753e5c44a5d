"""Inject Noise (article 2.2)."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..core.checks import check_choice
from ..core.interrupt import interruptible
from ..core.layout import bhwc_shape, map_to_mask
from ..core.noise import KINDS, inject_noise
from ..core.progress import OnStep
from . import _runtime as runtime
from ._batch import in_groups
from ._inputs import CATEGORY, images_of, seed_input, sigma_of, stage_input


class InjectNoise(io.ComfyNode):
    """Add noise to an image."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's schema."""
        return io.Schema(
            node_id="PU_InjectNoise",
            display_name="Inject Noise",
            category=f"{CATEGORY}/stage",
            description="Adds noise to an image, everywhere alike or as a sigma map says, for Attention "
            "U-Net Denoise to turn into texture. The result is not clipped to 0..1, so that no noise is "
            "lost.",
            inputs=[
                io.Image.Input("image", tooltip="The upsampled image. Alpha gets no noise."),
                io.Float.Input(
                    "sigma",
                    default=0.04,
                    min=0.0,
                    max=1.0,
                    step=0.005,
                    tooltip="Standard deviation of the noise for images of 0..1 (0.04 is ten grey levels). "
                    "A connected sigma map takes its place.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=4.0,
                    step=0.05,
                    tooltip="Multiplier on sigma or on the sigma map: 0 = the image comes out exactly as it came.",
                ),
                seed_input(),
                io.Combo.Input(
                    "distribution",
                    options=list(KINDS),
                    default="gaussian",
                    tooltip="gaussian = what models are trained with; uniform = bounded; correlated = "
                    "Gaussian, blurred to grains of a few pixels. All have the same standard deviation.",
                ),
                stage_input(),
                io.Mask.Input(
                    "sigma_map",
                    optional=True,
                    tooltip="Standard deviation at every pixel, from Adaptive Noise or painted; another "
                    "size is brought to the image's.",
                ),
            ],
            outputs=[
                io.Image.Output("noisy_image", display_name="noisy image", tooltip="Image plus noise, not clipped."),
                io.Mask.Output(
                    "applied_sigma_map",
                    display_name="sigma map",
                    tooltip="The standard deviation that was applied, strength included: give it to the denoiser.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        image: Tensor,
        sigma: float,
        strength: float,
        seed: int,
        distribution: str,
        stage: int,
        sigma_map: Tensor | None = None,
    ) -> io.NodeOutput:
        """Add the noise."""
        check_choice(distribution, "distribution", KINDS)
        batch, height, width, _ = bhwc_shape(image)

        def work(images: slice, _: OnStep) -> list[Tensor]:
            runtime.check_cancelled()
            source = images_of(image, images, batch, "image")
            if sigma_map is None:
                applied = source.new_full((1, 1, height, width), sigma * strength)
            else:
                applied = sigma_of(sigma_map, images, batch, "sigma_map", source) * strength
            noisy = inject_noise(source, applied, seed, stage, distribution)
            mask = map_to_mask(applied.expand(source.shape[0], -1, -1, -1))
            return [runtime.to_comfy(noisy, like=image), runtime.on_intermediate(mask)]

        with interruptible([], runtime.check_cancelled):
            return io.NodeOutput(*in_groups(work, batch, height * width))
