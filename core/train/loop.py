"""The training loop: phases of unrolled stages, resumable at any saved step."""

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

from ..chain import Chain
from ..checkpoint import CheckpointError
from ..config import to_dict
from ..tensor_file import write_whole
from .about import About, provenance
from .config import PhaseConfig, TrainConfig
from .data import Batch, CropSampler, PictureFolder
from .ema import EMA
from .history import History
from .objective import Objective
from .schedule import learning_rate
from .setup import learning, trainable, training_autocast, training_dtype
from .state import Counters, Trained, load_state, remove_leftovers, save_state
from .unroll import unrolled_losses, weighted_sum
from .validate import large_enough, validate

STATE, LAST, BEST, HISTORY, CONFIG = (
    "state.safetensors",
    "last.safetensors",
    "best.safetensors",
    "history.jsonl",
    "config.json",
)
MAX_BAD_STEPS = 10
BETAS = (0.9, 0.99)  # a shorter memory of squares than Adam's own: losses here change their size with the phase

log = logging.getLogger(__name__)

# called after every step with (steps done, steps in all, values by name); may raise to stop the run
OnTrainStep = Callable[[int, int, dict[str, float]], None]


class Trainer:
    """Trains a chain.

    Args:
        config: of the run.
        data: folder of training pictures.
        out: folder of the run, made if it is not there.
        val: folder of validation pictures; None validates nothing.
        init: the model to start from, which is left as it is; None starts at birth.
        device: where to train.
        vgg: file of VGG19's weights for the perceptual term, see `vgg`; None takes random ones, labelled so.
        about: goes into the provenance of the models.
        on_step: progress; may raise to stop the run, with the state saved.
        poll: called where a step takes long (at each picture of a validation); may raise to stop, too.

    Attributes:
        saved: steps done by the state on disk; None before the first is written.

    Raises:
        ValueError: `init` has another config than `config.chain`; no usable pictures for one of the phases.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: str | Path,
        out: str | Path,
        *,
        val: str | Path | None = None,
        init: Chain | None = None,
        device: torch.device | str = "cpu",
        vgg: str | Path | None = None,
        about: About | None = None,
        on_step: OnTrainStep | None = None,
        poll: Callable[[], None] | None = None,
    ) -> None:
        if init is not None and init.config != config.chain:
            raise ValueError("init: expected a model with the config of the run")
        self.config, self.out, self.on_step, self.poll = config, Path(out), on_step, poll
        self.about = about or About()
        self.device = torch.device(device)
        self.dtype = training_dtype(config.dtype, self.device)
        self.sampler = CropSampler(PictureFolder(data, config.memory), config.seed)
        self.validation = None if val is None else PictureFolder(val, config.memory)
        for phase in config.phases:  # now, and not hours later, when the phase begins
            self.sampler.fitting(phase.stages, phase.crop)
            if self.validation is not None:
                large_enough(self.validation, phase.stages)
        with learning():
            self.chain = trainable(init, config, self.device)
            self.ema: EMA[Chain] = EMA(self.chain, config.ema)
            self.optimizer = self._new_optimizer()
            self.objective = Objective(config, self.device, self.dtype, vgg)
        self.counters = Counters(data=self.sampler.pictures.fingerprint)
        self.saved: int | None = None
        self._whole = True  # whether the weights are those of `counters.step` steps, and the history has them all

    @property
    def step(self) -> int:
        """Steps done."""
        return self.counters.step

    def run(self, resume: bool = False) -> Chain:
        """Trains to the end and returns the averaged model.

        However it ends, the state of the last whole step is saved.

        Args:
            resume: go on from the run folder's state, if there is one.

        Raises:
            CheckpointError: the state is damaged or belongs to another config.
            RuntimeError: the loss was not finite in MAX_BAD_STEPS steps in a row.
            ValueError: the folder holds a run already, and it is not to be resumed.
        """
        with learning():
            self.out.mkdir(parents=True, exist_ok=True)
            if (self.out / STATE).exists():
                if not resume:
                    raise ValueError(f"out: {self.out} holds a run; resume it, or choose another folder")
                self._load()
            remove_leftovers(self.out)
            write_whole(self.out / CONFIG, (json.dumps(to_dict(self.config), indent=2) + "\n").encode())
            history = History(self.out / HISTORY, self.step)
            try:
                self._steps(history)
            finally:
                history.close()
                if self._whole and self.saved != self.step:
                    self._save()
            return self.ema.model

    def trial(self, phase: int) -> float:
        """Takes the first step of a phase twice, and times the second. What has been learned is spoilt by it.

        Args:
            phase: index of the phase.

        Returns:
            seconds of one step, without the making of crops, which goes on beside it.
        """
        with learning():
            first = sum(before.steps for before in self.config.phases[:phase])
            batch = self._batch(first)
            times = [time.perf_counter()]
            for _ in range(2):
                self.counters.step = first
                self._train_step(batch)
                times.append(time.perf_counter())
            return times[-1] - times[-2]

    def _steps(self, history: History) -> None:
        with ThreadPoolExecutor(1) as ahead:
            self._validate_again(history)
            upcoming = ahead.submit(self._batch, self.step) if self.step < self.config.steps else None
            while upcoming is not None:
                asked = time.perf_counter()
                batch, start = upcoming.result(), time.perf_counter()
                more = self.step + 1 < self.config.steps
                upcoming = ahead.submit(self._batch, self.step + 1) if more else None
                values = self._train_step(batch)
                now = time.perf_counter()
                values |= {"seconds": now - start, "wait": start - asked}
                self.counters.seconds += now - asked
                try:
                    if self._due(self.config.validate_every):
                        values |= self._validate()
                finally:
                    history.add(self.step - 1, **values, **self._notes())
                    self._whole = True
                if self._due(self.config.save_every):
                    self._save()
                if self.on_step is not None:
                    self.on_step(self.step, self.config.steps, values)

    def _notes(self) -> dict[str, str]:
        """Words for the history, with the first step of a phase."""
        first = self.config.phase_at(self.step - 1)[1] == 0
        return {"perceptual_trunk": self.objective.trunk} if first and self.objective.trunk else {}

    def _due(self, every: int) -> bool:
        return every > 0 and (self.step % every == 0 or self.step == self.config.steps)

    def _batch(self, step: int) -> Batch:
        phase = self.config.phases[self.config.phase_at(step)[0]]
        return self.sampler.batch(step, stages=phase.stages, crop=phase.crop, batch=phase.batch)

    def _train_step(self, batch: Batch) -> dict[str, float]:
        index, inside = self.config.phase_at(self.step)
        phase = self.config.phases[index]
        if inside == 0:
            self._begin(phase)
        share = learning_rate(inside, phase.steps, 1.0, phase.warmup, phase.final)
        rate = learning_rate(inside, phase.steps, phase.learning_rate, phase.warmup, phase.final)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.step)
        self.optimizer.zero_grad(set_to_none=True)
        self.objective.begin_step(phase)
        with training_autocast(self.device, self.dtype):
            crops, loss = batch.to(self.device), self.config.loss
            terms = unrolled_losses(self.chain, crops, loss, phase.noisy, generator, self.objective)
        total = weighted_sum(terms, self.config.loss)
        values = {name: value.item() for name, value in terms.items()} | {"loss": total.item(), "lr": rate}
        if math.isfinite(values["loss"]):
            total.backward()
            values["gradient"] = float(torch.nn.utils.clip_grad_norm_(self.chain.parameters(), self.config.clip))
            values |= self.objective.backward(self.step, share)
        finite = all(math.isfinite(value) for value in values.values())
        if not finite:
            self._count_bad_step(values)
        self._whole = False  # until the step is in the history
        if finite:
            self.counters.bad_steps = 0
            self.optimizer.step()
            self.objective.update()
            self.ema.update(self.chain)
        self.counters.step += 1
        return values

    def _begin(self, phase: PhaseConfig) -> None:
        """Starts a phase: new optimiser; a stage that is trained for the first time takes over weights that fit."""
        if phase.start_from:
            source = self.ema.model.stage(phase.start_from).state_dict()
            target = self.chain.stage(phase.stages)
            fitting = {k: v for k, v in target.state_dict().items() if k in source and source[k].shape == v.shape}
            target.load_state_dict({k: source[k] for k in fitting}, strict=False)
            self.ema.model.stage(phase.stages).load_state_dict(target.state_dict())
        self.optimizer = self._new_optimizer()
        self.objective.begin_phase()

    def _new_optimizer(self) -> torch.optim.Adam:
        return torch.optim.Adam(self.chain.parameters(), lr=1e-4, betas=BETAS)

    def _count_bad_step(self, values: dict[str, float]) -> None:
        self.counters.bad_steps += 1
        log.warning("step %d skipped: not finite: %s", self.step, values)
        if self.counters.bad_steps >= MAX_BAD_STEPS:
            raise RuntimeError(f"training stopped: {MAX_BAD_STEPS} steps in a row were not finite, last {values}")

    def _validate(self) -> dict[str, float]:
        """Measures the averaged model, and keeps it where it is the best one with as many stages in training."""
        if self.validation is None:
            return {}
        stages = self.config.phases[self.config.phase_at(self.step - 1)[0]].stages
        values = validate(self.ema.model, self.validation, stages, self.config.dtype, self.poll)
        score = round(sum(values.values()) / len(values), 4)
        known = self.counters
        if known.best is None or stages > known.best_stages or (stages == known.best_stages and score > known.best):
            known.best, known.best_stages, known.best_step = score, stages, self.step
            self.ema.model.save(self.out / BEST, self.provenance())
        return values

    def _validate_again(self, history: History) -> None:
        """The validation that the run was stopped in."""
        last = history.last
        if last is None or last["step"] != self.step - 1 or "x2" in last or not self._due(self.config.validate_every):
            return
        values = self._validate()
        if values:
            history.amend(**values)

    def _parts(self) -> list[Trained]:
        return [Trained("", self.chain, self.optimizer), *self.objective.parts()]

    def _save(self) -> None:
        provenance = self.provenance()
        save_state(self.out / STATE, self._parts(), self.ema, self.counters, self.config, provenance)
        self.ema.model.save(self.out / LAST, provenance)
        self.saved = self.step

    def _load(self) -> None:
        data = self.counters.data
        self.counters, known = load_state(self.out / STATE, self._parts(), self.ema, self.config)
        self.saved = self.step
        if known.get("perceptual_trunk", "") != self.objective.trunk:
            told = f"{known.get('perceptual_trunk')!r}, got {self.objective.trunk!r}"
            raise CheckpointError(f"{self.out / STATE}: the run was started with the perceptual trunk {told}")
        if self.counters.data not in ("", data):
            log.warning("data: the pictures are not those that the run was started with")
        self.counters.data = data
        self.about = self.about.completed(known)

    def provenance(self) -> dict[str, Any]:
        """What a checkpoint of this run says of itself; of folders only the name."""
        known = provenance(self.about, self.config, self.counters, self.sampler.pictures, self.device, self.dtype)
        return known | ({"perceptual_trunk": self.objective.trunk} if self.objective.trunk else {})
