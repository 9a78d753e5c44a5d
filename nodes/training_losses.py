"""Training Losses (article 3.1)."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..core.checkpoint import CheckpointError
from ..core.checks import check_choice
from ..core.train import adversarial as gans
from ..core.train import discriminators
from ..core.train.config import JUDGED, LossConfig
from ..core.train.losses import PIXEL_LOSSES
from ..core.train.vgg import load_vgg
from . import _models as models
from . import _runtime as runtime
from ._training import TRAINING, Losses, LossTerms

RANDOM = "random"
DEFAULTS = LossConfig()
CRITIC = LossTerms()


class TrainingLosses(io.ComfyNode):
    """Choose what training minimises."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's schema."""
        return io.Schema(
            node_id="PU_TrainingLosses",
            display_name="Training Losses",
            category=TRAINING,
            description="Chooses what training minimises: a weighted sum of terms, of which those of weight 0 are "
            "not computed. As it stands it is what Train does without it: least error. With perceptual and "
            "adversarial terms texture grows and PSNR falls.",
            inputs=[
                io.Combo.Input(
                    "pixel",
                    options=list(PIXEL_LOSSES),
                    default=DEFAULTS.pixel,
                    tooltip="How the pixels of the result and of the upsampler are compared: l1 = mean absolute "
                    "error; l2 = mean squared error, softer; charbonnier = l1, smooth near 0.",
                ),
                _weight("pixel_weight", DEFAULTS.output, "Weight of the pixel error of each stage's result."),
                io.Combo.Input(
                    "judge",
                    options=list(JUDGED),
                    default=DEFAULTS.judge,
                    tooltip="What the terms on pictures (ssim to feature_matching, spectrum, checkerboard) see: "
                    "output = the result of least error, which detail 0 shows; refined = an estimate from noise, "
                    "which detail 1 shows, and then detail 0 is left to the pixels.",
                ),
                _weight(
                    "ssim",
                    DEFAULTS.ssim,
                    "Weight of 1 − SSIM, the structural similarity. 0.3 counts about as much as pixel_weight 1.",
                ),
                _weight(
                    "frequency",
                    DEFAULTS.frequency,
                    "Weight of the difference of the spectra, which asks for the right amount of fine detail. 1 counts "
                    "about as much as pixel_weight 1.",
                ),
                _weight(
                    "perceptual",
                    DEFAULTS.perceptual,
                    "Weight of the difference of VGG19's features: texture that looks right in place of least "
                    "error. 0.1 counts about as much as pixel_weight 1.",
                ),
                io.Combo.Input(
                    "vgg",
                    options=[RANDOM, *runtime.model_files()],
                    default=RANDOM,
                    tooltip="Weights of VGG19 for the perceptual term: a .safetensors file in "
                    "models/progressive_upsampling, or random ones, which see texture but no objects.",
                ),
                _weight(
                    "adversarial",
                    DEFAULTS.adversarial,
                    "Weight of the judgement of a discriminator, which learns to tell results from pictures: the "
                    "most texture, and some of it invented. 0.01 counts about as much as pixel_weight 1.",
                ),
                _weight(
                    "feature_matching",
                    DEFAULTS.feature_matching,
                    "Weight of the difference of the discriminator's features, which steadies adversarial "
                    "training. 1 counts about as much as pixel_weight 1.",
                ),
                io.Combo.Input(
                    "gan",
                    options=list(gans.KINDS),
                    default=CRITIC.adversarial.kind,
                    tooltip="The game of the two: vanilla = the original; hinge = of limited reach; relativistic = "
                    "which of two looks more real. For weights of adversarial or feature_matching above 0.",
                ),
                io.Combo.Input(
                    "discriminator",
                    options=list(discriminators.KINDS),
                    default=CRITIC.adversarial.discriminator.kind,
                    tooltip="patch = judges patches of 70 pixels at two sizes; unet = judges every pixel, slower. "
                    "For weights of adversarial or feature_matching above 0.",
                ),
                io.Float.Input(
                    "r1",
                    default=CRITIC.adversarial.r1,
                    min=0.0,
                    max=1000.0,
                    step=0.5,
                    tooltip="Penalty on the discriminator's gradient, which keeps it from winning too early; 10 is "
                    "usual, 0 = none. For weights of adversarial or feature_matching above 0.",
                ),
                io.Float.Input(
                    "adversarial_start",
                    default=CRITIC.start,
                    min=0.0,
                    max=0.95,
                    step=0.05,
                    tooltip="Part of the steps before the discriminator takes part. A model that is good already "
                    "needs little. For weights of adversarial or feature_matching above 0.",
                ),
                _weight(
                    "upsampler",
                    DEFAULTS.upsampler,
                    "Weight of the pixel error of the upsampler's own result, so that the denoiser is left with "
                    "what is hard.",
                ),
                _weight(
                    "refine",
                    DEFAULTS.refine,
                    "Weight of the denoiser's error when it works from noise, which detail above 0 asks for.",
                ),
                _weight(
                    "blind",
                    DEFAULTS.blind,
                    "Weight of the denoiser's error without conditioning.",
                ),
                _weight(
                    "controller",
                    DEFAULTS.controller,
                    "Weight of the noise controller's likelihood: how well it tells where errors are. It reaches "
                    "no other part.",
                ),
                _weight(
                    "spectrum",
                    DEFAULTS.spectrum,
                    "Weight of the difference of the power spectra in small windows: as much texture as there "
                    "should be at each place, wherever its grains lie. 0.04 counts about as much as pixel_weight 1.",
                    optional=True,
                ),
                _weight(
                    "checkerboard",
                    DEFAULTS.checkerboard,
                    "Weight of the error that repeats every 2 or 4 pixels, the grid that texture terms bring along. "
                    "3 counts about as much as pixel_weight 1, 6 holds a perceptual term.",
                    optional=True,
                ),
            ],
            outputs=[Losses.Output("training_losses", display_name="losses", tooltip="The terms, for Train.")],
        )

    @classmethod
    def fingerprint_inputs(cls, vgg: str | None = None, perceptual: float | None = None, **_: Any) -> Any:
        """Load again when the file has changed, if it is read at all."""
        return "" if vgg == RANDOM or perceptual == 0 else models.watched(vgg)

    @classmethod
    def execute(
        cls,
        pixel: str,
        pixel_weight: float,
        judge: str,
        ssim: float,
        frequency: float,
        perceptual: float,
        vgg: str,
        adversarial: float,
        feature_matching: float,
        gan: str,
        discriminator: str,
        r1: float,
        adversarial_start: float,
        upsampler: float,
        refine: float,
        blind: float,
        controller: float,
        spectrum: float = DEFAULTS.spectrum,
        checkerboard: float = DEFAULTS.checkerboard,
    ) -> io.NodeOutput:
        """Collect the terms."""
        check_choice(gan, "gan", gans.KINDS)
        check_choice(discriminator, "discriminator", discriminators.KINDS)
        weights = (pixel_weight, upsampler, refine, blind, controller, ssim, frequency, spectrum, checkerboard)
        if not any((*weights, perceptual, adversarial, feature_matching)):
            raise ValueError("pixel_weight: expected a weight above 0, here or for another term, got none")
        loss = LossConfig(
            output=pixel_weight,
            upsampler=upsampler,
            refine=refine,
            blind=blind,
            controller=controller,
            ssim=ssim,
            frequency=frequency,
            spectrum=spectrum,
            checkerboard=checkerboard,
            perceptual=perceptual,
            adversarial=adversarial,
            feature_matching=feature_matching,
            pixel=pixel,
            judge=judge,
        )
        critic = gans.AdversarialConfig(
            kind=gan, discriminator=discriminators.DiscriminatorConfig(discriminator), r1=r1
        )
        trunk = _checked(vgg) if perceptual and vgg != RANDOM else None
        return io.NodeOutput(LossTerms(loss, adversarial=critic, vgg=trunk, start=adversarial_start))


def _weight(id_: str, default: float, tooltip: str, optional: bool = False) -> Any:
    return io.Float.Input(id_, default=default, min=0.0, max=100.0, step=0.001, tooltip=tooltip, optional=optional)


def _checked(name: str) -> str:
    """The path of a file of VGG19's weights."""
    try:
        path = runtime.model_path(name)
        load_vgg(path)
    except CheckpointError as error:
        raise CheckpointError(f"vgg: {error}") from None
    return path
