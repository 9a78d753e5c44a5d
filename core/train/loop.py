"""The training loop: phases of steps, resumable at any saved one."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoint import CheckpointError
from ..checks import NotFiniteError
from ..config import to_dict
from ..perceptual_distance import PerceptualDistance
from ..picture_output import write_picture
from ..tensor_file import write_whole
from .about import About, provenance
from .config import TrainConfig
from .curves import loss_curves
from .data import Batch, CropSampler
from .distributed import World
from .ema import EMA
from .history import History, read_history
from .learner import Learner, check_rates
from .objective import Objective
from .perceptual import same_trunk
from .phase import PhaseConfig
from .picture_sets import open_pictures, whole_side
from .pictures import Pictures
from .run_folder import BEST, CONFIG, HISTORY, LAST, STATE, sheet_path, write_curves
from .setup import learning, loss_scaler, training_dtype
from .showcase import Showcase
from .state import Counters, read_state, remove_leftovers, restore, save_state
from .step import Stepper
from .task import Model, check_fits, task_of, trainable
from .validate import measurable, score, validate

MAX_BAD_STEPS = 10

log = logging.getLogger(__name__)

# called after every step with (steps done, steps in all, values by name); may raise to stop the run
OnTrainStep = Callable[[int, int, dict[str, float]], None]


class Trainer:
    """Trains a chain, or a single upsampler or denoiser.

    Args:
        config: of the run.
        data: training pictures, or the folder that they are in.
        out: folder of the run, made if it is not there.
        val: validation pictures or their folder, which are not trained on; None holds back `config.data.validation` of
            the training pictures.
        init: the model to start from, which is left as it is; None starts at birth.
        device: where to train.
        vgg: file of VGG19's weights for the perceptual term, see `vgg`; None takes random ones, labelled so.
        distance: measures PD-squeeze in validations; None leaves it out.
        about: goes into the provenance of the models.
        on_step: progress; may raise to stop the run, with the state saved.
        poll: called where a step takes long (at each picture of a validation); may raise to stop, too.
        world: the processes that train together, see `distributed`.

    Attributes:
        model: the weights in training.
        ema: their average, which is what is validated, saved and shipped.
        saved: steps done by the state on disk; None before the first is written.

    Raises:
        ValueError: `init` has another config than the run; no usable pictures for one of the phases.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: Pictures | str | Path,
        out: str | Path,
        *,
        val: Pictures | str | Path | None = None,
        init: Model | None = None,
        device: torch.device | str = "cpu",
        vgg: str | Path | None = None,
        distance: PerceptualDistance | None = None,
        about: About | None = None,
        on_step: OnTrainStep | None = None,
        poll: Callable[[], None] | None = None,
        world: World | None = None,
    ) -> None:
        if init is not None:
            check_fits(init, config)
        if config.select == "pd" and distance is None:
            raise ValueError('select: expected "psnr" or "ssim" without SqueezeNet\'s weights, got "pd"')
        self.config, self.out, self.on_step, self.poll = config, Path(out), on_step, poll
        self.about, self.world = about or About(), world or World()
        self.device, self.task, self.distance = torch.device(device), task_of(config), distance
        self.dtype = training_dtype(config.dtype, self.device)
        share, memory, side = config.data.validation, config.data.memory, whole_side(config, pd=distance is not None)
        pictures, self.validation = open_pictures(data, val, share=share, memory=memory, side=side)
        self.sampler = CropSampler(pictures, config.seed, config.data, self.device)
        for number, phase in enumerate(config.phases, 1):  # now, and not hours later, when the phase begins
            self._check(number, phase)
        scaler = loss_scaler(self.device, self.dtype)
        with learning():
            self.model = trainable(self.task, init, config.seed, self.device, config.afresh)
            for phase in config.phases:
                check_rates(self.model, phase.rates)
            self.ema: EMA[nn.Module] = EMA(self.model, config.ema)
            self.objective = Objective(config, self.device, self.dtype, scaler, vgg)
            parts = (self.task, self.model, self.objective, scaler, self.device, self.dtype, self.world)
            self.stepper = Stepper(config, *parts)
            for number, phase in enumerate(config.phases, 1):
                self._check_learning(number, phase)
            before = None if init is None else trainable(self.task, init, config.seed, self.device).eval()
        shown = pictures if self.validation is None else self.validation
        self.showcase = Showcase(self.task, shown, before, config.dtype, config.realistic)
        self._scaler = scaler
        held = "" if self.validation is None else self.validation.fingerprint
        self.counters = Counters(data=pictures.fingerprint, validation=held)
        self.saved: int | None = None
        self._whole = True  # whether the weights are those of `counters.step` steps, and the history has them all

    @property
    def step(self) -> int:
        """Steps done."""
        return self.counters.step

    @property
    def stages(self) -> int:
        """Stages that were trained last."""
        return self.config.phases[self.config.phase_at(max(self.step - 1, 0))[0]].stages

    def run(self, resume: bool = False) -> nn.Module:
        """Trains to the end and returns the averaged model.

        However it ends, the state of the last whole step is saved.

        Args:
            resume: go on from the run folder's state, if there is one.

        Raises:
            CheckpointError: the state is damaged or belongs to another config.
            RuntimeError: the loss was not finite in MAX_BAD_STEPS steps in a row, or the model's results are not.
            ValueError: the folder holds a run already, and it is not to be resumed.
        """
        with learning():
            if (self.out / STATE).exists():
                if not resume:
                    raise ValueError(f"out: {self.out} holds a run; resume it, or choose another folder")
                self._load()
            self.world.wait()  # before the first one writes
            history = self._begin_folder() if self.world.first else None
            try:
                self._steps(history)
            except NotFiniteError as error:  # in a validation, a sheet of samples, or what on_step shows
                told = f"training stopped at step {self.step}: the model has diverged, its results are not finite"
                raise RuntimeError(f"{told} ({error}); lower learning_rate or clip, or take dtype fp32") from None
            finally:
                if history is not None:
                    history.close()
                if self._whole and self.saved != self.step:
                    self._save()
            self.world.wait()
            return self.ema.model

    def batches_of(self, step: int, stages: int | None = None) -> list[Batch]:
        """The crops of a step, in this process's shares.

        Args:
            step: of the run.
            stages: how many it runs; None for as many as the step itself does.
        """
        phase = self.config.phases[self.config.phase_at(step)[0]]
        factors = self.task.factors(stages or phase.stages_at(self.config.seed, step))
        return [
            self.sampler.batch(step, factors=factors, crop=phase.crop, batch=phase.batch, items=items)
            for items in self.stepper.items(phase)
        ]

    def train_step(self, batches: list[Batch]) -> dict[str, float]:
        """Takes the step that the run is at, on its crops; nothing is written, measured or reported.

        Args:
            batches: of `batches_of`.

        Returns:
            the losses of the step, see `step.Stepper.gradient`.

        Raises:
            RuntimeError: the loss was not finite in MAX_BAD_STEPS steps in a row.
        """
        index, inside = self.config.phase_at(self.step)
        phase = self.config.phases[index]
        if inside == 0:
            self._begin(phase)
        values = self.stepper.gradient(batches, phase, self.step, inside)
        finite = all(math.isfinite(value) for value in values.values())
        if not finite and not self.stepper.skip():
            self._count_bad_step(values)
        self._whole = False  # until the step is in the history
        if finite:
            self.counters.bad_steps = 0
            self.stepper.update()
            self.ema.update(self.model)
        self.counters.step += 1
        return values

    def curves(self) -> Tensor:
        """The history so far as a picture, `[1, 3, H, W]` in 0..1, see `curves`."""
        return loss_curves(read_history(self.out / HISTORY), title=self.out.resolve().name)

    def samples(self, count: int = 4) -> Tensor:
        """What the averaged model makes of some pictures, `[1, 3, H, W]` in 0..1, see `showcase`."""
        with torch.no_grad():
            return self.showcase.sheet(self.ema.model, self.stages, count)

    def provenance(self) -> dict[str, Any]:
        """What a checkpoint of this run says of itself; of folders only the name."""
        where = (self.device, self.dtype, self.validation)
        known = provenance(self.about, self.config, self.counters, self.sampler.pictures, *where)
        return known | ({"perceptual_trunk": self.objective.trunk} if self.objective.trunk else {})

    def _check(self, number: int, phase: PhaseConfig) -> None:
        factors = self.task.factors(phase.stages)
        self.sampler.fitting(factors[-1], phase.crop)
        if self.validation is not None:
            usable = len(measurable(self.validation, factors, pd=self.distance is not None))
            if usable < len(self.validation):
                told = "phase %d: val: %d of %d pictures are measured, the others are too small"
                log.warning(told, number, usable, len(self.validation))
        shares = self.world.size * phase.accumulate
        if phase.batch < shares:
            told = f"{self.world.size} processes with {phase.accumulate} parts each"
            raise ValueError(f"phase {number}: batch: expected at least {shares} crops for {told}, got {phase.batch}")

    def _check_learning(self, number: int, phase: PhaseConfig) -> None:
        try:
            self.stepper.check(phase)
        except ValueError as error:
            raise ValueError(f"phase {number}: {error}") from None

    def _begin_folder(self) -> History:
        self.out.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.out)
        if self.saved is None or not (self.out / CONFIG).exists():  # where the run started from, only its start knows
            write_whole(self.out / CONFIG, (json.dumps(to_dict(self.config), indent=2) + "\n").encode())
        return History(self.out / HISTORY, self.step)

    def _steps(self, history: History | None) -> None:
        with ThreadPoolExecutor(1) as ahead:
            self._validate_again(history)
            upcoming = ahead.submit(self.batches_of, self.step) if self.step < self.config.steps else None
            while upcoming is not None:
                asked = time.perf_counter()
                batches, start = upcoming.result(), time.perf_counter()
                more = self.step + 1 < self.config.steps
                upcoming = ahead.submit(self.batches_of, self.step + 1) if more else None
                values = self.train_step(batches)
                now = time.perf_counter()
                values |= {"seconds": now - start, "wait": start - asked}
                self.counters.seconds += now - asked
                due = self._due(self.config.validate_every)
                try:
                    if due:
                        values |= self._validate()
                finally:
                    if history is not None:
                        history.add(self.step - 1, **values, **self._notes())
                    self._whole = True
                if due:
                    self._show()
                if self._due(self.config.save_every):
                    self._save()
                self._report(values)

    def _report(self, values: dict[str, float]) -> None:
        """Tells `on_step`, and stops every process where it stops one."""
        stop: BaseException | None = None
        try:
            if self.on_step is not None:
                self.on_step(self.step, self.config.steps, values)
        except BaseException as error:
            stop = error
        if self.world.any(stop is not None, self.device):
            raise stop or KeyboardInterrupt("another process of the run was stopped")

    def _notes(self) -> dict[str, Any]:
        """The phase, and words with its first step, for the history."""
        index, inside = self.config.phase_at(self.step - 1)
        words = {"perceptual_trunk": self.objective.trunk} if inside == 0 and self.objective.trunk else {}
        return {"phase": index, **words}

    def _due(self, every: int) -> bool:
        return self.step == self.config.steps or (every > 0 and self.step % every == 0)

    def _begin(self, phase: PhaseConfig) -> None:
        """Starts a phase: new optimisers; a stage that is trained for the first time takes over weights that fit."""
        if phase.start_from:
            self.task.inherit(self.model, self.ema.model, phase)
        self.stepper.begin(phase)

    def _count_bad_step(self, values: dict[str, float]) -> None:
        self.counters.bad_steps += 1
        log.warning("step %d skipped: not finite: %s", self.step, values)
        if self.counters.bad_steps >= MAX_BAD_STEPS:
            told = f"{MAX_BAD_STEPS} steps in a row were not finite, last {values}"
            raise RuntimeError(f"training stopped at step {self.step}: the model has diverged: {told}")

    def _validate(self) -> dict[str, float]:
        """Measures the averaged model, and keeps it where it is the best one with as many stages in training."""
        if self.validation is None:
            return {}
        stages, known = self.stages, self.counters
        with torch.no_grad():
            values = validate(
                lambda image: self.task.outputs(self.ema.model, image, stages, self.config.dtype),
                self.validation,
                self.task.factors(stages),
                realistic=self.config.realistic,
                distance=self.distance,
                poll=self.poll if self.world.size == 1 else None,  # the others would wait for ever
                world=self.world,
                device=self.device,
            )
        found, select = score(values, self.config.select), self.config.select
        if not math.isfinite(found):
            log.warning("step %d: not taken as the best model: its %s is not finite", self.step, select)
        elif known.best is None or stages > known.best_stages or (stages == known.best_stages and found > known.best):
            known.best, known.best_stages, known.best_step = found, stages, self.step
            if self.world.first:
                self.task.save(self.ema.model, self.out / BEST, self.provenance())
        return values

    def _validate_again(self, history: History | None) -> None:
        """The validation that the run was stopped in."""
        last = history.last if history is not None else None
        cut = last is not None and last["step"] == self.step - 1 and not any(key[0] == "x" for key in last)
        if self.world.any(cut and self._due(self.config.validate_every), self.device):
            values = self._validate()
            if history is not None and values:
                history.amend(**values)
                self._show()
            if values:
                self._save()  # it may have found the best model

    def _show(self) -> None:
        """Writes curves and samples."""
        if self.world.first:
            write_curves(self.out)
            write_picture(sheet_path(self.out, self.step), self.samples())

    def _learners(self) -> list[Learner]:
        return [self.stepper.learner, *self.objective.learners()]

    def _take_validation(self, held: str) -> None:
        """Forgets the best model where the rest of the run is measured on other pictures than it was."""
        known = self.counters
        if not held or self.step == self.config.steps:
            return
        if known.validation not in ("", held):
            log.warning("val: the pictures are not those that the run was measured on: the best model is chosen anew")
            known.best, known.best_stages, known.best_step = None, 0, 0
        known.validation = held

    def _save(self) -> None:
        if self.world.first:
            if self._scaler.is_enabled():
                scale = self._scaler.state_dict()
                self.counters.loss_scale, self.counters.loss_scale_steps = scale["scale"], scale["_growth_tracker"]
            provenance = self.provenance()
            # the state comes last: a run that dies between the two does these steps again, and writes both
            self.task.save(self.ema.model, self.out / LAST, provenance)
            save_state(self.out / STATE, self._learners(), self.ema, self.counters, self.config, provenance)
        self.saved = self.step

    def _load(self) -> None:
        data, held = self.counters.data, self.counters.validation
        self.counters, checkpoint = read_state(self.out / STATE, self.config)
        known = checkpoint.provenance
        if self.step < self.config.steps:
            self.stepper.begin(self.config.phases[self.config.phase_at(self.step)[0]])
        restore(checkpoint, self.counters, self._learners(), self.ema)
        self.saved = self.step
        if self._scaler.is_enabled() and self.counters.loss_scale:
            changed = {"scale": self.counters.loss_scale, "_growth_tracker": self.counters.loss_scale_steps}
            self._scaler.load_state_dict(self._scaler.state_dict() | changed)
        if not same_trunk(known.get("perceptual_trunk", ""), self.objective.trunk):
            told = f"{known.get('perceptual_trunk')!r}, got {self.objective.trunk!r}"
            raise CheckpointError(f"{self.out / STATE}: the run was started with the perceptual trunk {told}")
        if self.counters.data not in ("", data):
            log.warning("data: the pictures are not those that the run was started with")
        self.counters.data = data
        self._take_validation(held)
        self.about = self.about.completed(known)
