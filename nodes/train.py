"""Train (article 3)."""

from __future__ import annotations

import os
from typing import Any

from comfy_api.latest import io, ui

from ..core.chain import Chain
from ..core.checkpoint import CheckpointError
from ..core.checks import check_choice
from ..core.perceptual_distance import PerceptualDistance
from ..core.precision import DTYPES
from ..core.squeezenet import load_squeezenet
from ..core.train.about import About
from ..core.train.config import MAX_SEED, TrainConfig
from ..core.train.strategies import CROP_STEP, EARLIER, STRATEGIES, phases_of
from . import _models as models
from . import _runtime as runtime
from ._inputs import Model, seed_input
from ._training import TRAINING, Data, Losses, LossTerms, TrainingPictures, expect
from ._training_run import Order, run_folder, train

NONE = "none"
LAST, BEST = "last", "best_"
KEEP = (LAST, "best_psnr", "best_ssim", "best_pd")
SAVE_EVERY = 200  # steps: what a crash of the machine costs at most


class Train(io.ComfyNode):
    """Train a model on pictures of one's own."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's schema."""
        return io.Schema(
            node_id="PU_Train",
            display_name="Train",
            category=TRAINING,
            description="Trains a model further on pictures of your own, so that it enlarges such pictures better. "
            "The model that comes in is not changed. Cancelling keeps what was learned: the run can go on later, "
            "and its models are offered by Load Progressive Model.",
            is_output_node=True,
            inputs=[
                Data.Input("data", tooltip="The pictures, from Training Data."),
                io.Combo.Input(
                    "strategy",
                    options=list(STRATEGIES),
                    default=STRATEGIES[0],
                    tooltip="With more than one stage: progressive = the first stage alone, then with the second, "
                    "and so on; end_to_end = all together from the start; multi_scale = a number of stages drawn "
                    "at random for each step.",
                ),
                io.Combo.Input(
                    "earlier_stages",
                    options=list(EARLIER),
                    default="joint",
                    tooltip="Strategy progressive: what happens to stages trained before when the next is added: "
                    "joint = they learn on; slowed = at a tenth of the rate; frozen = they stay.",
                ),
                io.Int.Input(
                    "stages",
                    default=1,
                    min=1,
                    max=3,
                    tooltip="Stages to train: 1 = up to ×2, 2 = ×4, 3 = ×8. Each needs larger pictures: with crops of "
                    "48, 104, 144 and 224 pixels on the short side.",
                ),
                io.Int.Input(
                    "steps",
                    default=1000,
                    min=1,
                    max=10_000_000,
                    tooltip="Steps in all. Some hundreds adapt a model to a kind of picture; with many pictures more "
                    "go further.",
                ),
                io.Int.Input(
                    "batch",
                    default=8,
                    min=1,
                    max=1024,
                    tooltip="Crops a step. More give steadier learning; time and memory grow in proportion.",
                ),
                io.Int.Input(
                    "crop",
                    default=48,
                    min=CROP_STEP,
                    max=512,
                    step=CROP_STEP,
                    tooltip="Side in pixels of the crops that the first stage is given; its results are twice as "
                    "large. Made smaller where more stages are trained together.",
                ),
                io.Int.Input(
                    "accumulate",
                    default=1,
                    min=1,
                    max=1024,
                    tooltip="Parts that the batch is computed in, one after the other: memory is that of one part, and "
                    "the result is the same, but for gan relativistic, which compares with the means of a part. At "
                    "most the batch.",
                ),
                io.Float.Input(
                    "learning_rate",
                    default=1e-4,
                    min=1e-6,
                    max=1e-2,
                    step=1e-6,
                    round=1e-6,
                    tooltip="Length of a step at its highest; it rises at first and then falls to a hundredth. "
                    "0.0001 to go on from a trained model; more can spoil it.",
                ),
                seed_input(
                    "Which crops and which noise are drawn. The same seed gives the same model on the same device."
                ),
                io.Int.Input(
                    "validate_every",
                    default=100,
                    min=0,
                    max=1_000_000,
                    tooltip="Steps from one validation to the next; 0 = only at the end.",
                ),
                io.Combo.Input(
                    "keep",
                    options=list(KEEP),
                    default=LAST,
                    tooltip="Which model comes out: last = after all steps; best_psnr, best_ssim or best_pd = that "
                    "of the validation with the best PSNR, SSIM or PD-squeeze.",
                ),
                io.Combo.Input(
                    "precision",
                    options=list(DTYPES),
                    default="auto",
                    tooltip="Number format of the computation; weights are kept in fp32. auto = bf16 where the "
                    "hardware is fast in it; fp32 = slowest and exact.",
                ),
                io.String.Input(
                    "run_name",
                    default="training",
                    tooltip="Name of the run's folder in output/progressive_upsampling. If there is one, a new run "
                    "gets a number behind its name.",
                ),
                io.Boolean.Input(
                    "resume",
                    default=False,
                    tooltip="Go on with the run of this name, with the settings that it was started with; without "
                    "such a run a new one starts.",
                ),
                io.Combo.Input(
                    "squeezenet",
                    options=[NONE, *runtime.model_files()],
                    default=NONE,
                    tooltip="Weights of SqueezeNet 1.0, a .safetensors file in models/progressive_upsampling. With "
                    "them validation measures PD-squeeze too, how far results look from the truth.",
                ),
                Model.Input(
                    "model",
                    optional=True,
                    tooltip="The model to start from (the bundled one if none is connected).",
                ),
                Losses.Input(
                    "losses",
                    optional=True,
                    tooltip="What to minimise, from Training Losses (least error if nothing is connected).",
                ),
            ],
            outputs=[
                Model.Output("trained_model", display_name="model", tooltip="The trained model."),
                io.Image.Output("curves", display_name="curves", tooltip="Losses and measurements over the steps."),
                io.Image.Output(
                    "samples",
                    display_name="samples",
                    tooltip="Up to four pictures: input, bicubic, before the training, now, and the truth.",
                ),
                io.String.Output(
                    "run_folder",
                    display_name="run folder",
                    tooltip="Folder with the models, the history, curves and samples, and the state to go on from.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, squeezenet: str | None = None, **_: Any) -> Any:
        """Measure with what is in the file now."""
        return "" if squeezenet == NONE else models.watched(squeezenet)

    @classmethod
    def execute(
        cls,
        data: TrainingPictures,
        strategy: str,
        earlier_stages: str,
        stages: int,
        steps: int,
        batch: int,
        crop: int,
        accumulate: int,
        learning_rate: float,
        seed: int,
        validate_every: int,
        keep: str,
        precision: str,
        run_name: str,
        resume: bool,
        squeezenet: str,
        model: Chain | None = None,
        losses: LossTerms | None = None,
    ) -> io.NodeOutput:
        """Train."""
        check_choice(keep, "keep", KEEP)
        check_choice(earlier_stages, "earlier_stages", EARLIER)
        if keep == "best_pd" and squeezenet == NONE:
            raise ValueError("squeezenet: expected a file of its weights to keep best_pd, got none")
        chain = models.chain_or_default(model)
        terms = LossTerms() if losses is None else expect(losses, LossTerms, "losses", "Training Losses")
        phases = phases_of(
            strategy,
            stages=stages,
            steps=steps,
            weights=len(chain.stages),
            crop=crop,
            batch=batch,
            learning_rate=learning_rate,
            earlier=earlier_stages,
            pixel=terms.start,
            adversarial=terms.loss.judged,
            accumulate=accumulate,
        )
        pictures = expect(data, TrainingPictures, "data", "Training Data")
        config = TrainConfig(
            chain=chain.config,
            phases=phases,
            loss=terms.loss,
            adversarial=terms.adversarial,
            data=pictures.config,
            seed=seed % (MAX_SEED + 1),
            dtype=precision,
            validate_every=validate_every,
            save_every=SAVE_EVERY,
            select="psnr" if keep == LAST else keep.removeprefix(BEST),
        )
        order = Order(
            data=pictures,
            folder=run_folder(run_name, resume),
            resume=resume,
            best=keep != LAST,
            vgg=terms.vgg,
            distance=None if squeezenet == NONE else _distance(squeezenet),
            about=About(recipe=strategy, init=str(chain.provenance.get("name", ""))),
        )
        result = train(config, chain, order)
        curves, samples = runtime.to_comfy(result.curves), runtime.to_comfy(result.samples)
        shown = ui.PreviewImage(samples, cls=cls).as_dict() | ui.PreviewText(result.text).as_dict()
        return io.NodeOutput(result.model, curves, samples, os.fspath(order.folder), ui=shown)


def _distance(name: str) -> PerceptualDistance:
    try:
        return PerceptualDistance(models.load_once(runtime.model_path(name), load_squeezenet))
    except CheckpointError as error:
        raise CheckpointError(f"squeezenet: {error}") from None
