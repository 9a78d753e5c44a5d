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

from ..chain import Chain, channels_last
from ..config import to_dict
from ..precision import autocast, resolve_dtype
from .config import PhaseConfig, TrainConfig
from .data import Batch, CropSampler, PictureFolder
from .ema import EMA
from .history import History
from .schedule import learning_rate
from .state import load_state, save_state
from .unroll import unrolled_losses, weighted_sum
from .validate import validate

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
        init: the model to start from; None starts at birth.
        on_step: progress.

    Raises:
        ValueError: `init` has another config than `config.chain`; no usable pictures.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: str | Path,
        out: str | Path,
        *,
        val: str | Path | None = None,
        init: Chain | None = None,
        on_step: OnTrainStep | None = None,
    ) -> None:
        if init is not None and init.config != config.chain:
            raise ValueError("init: expected a model with the config of the run")
        torch.manual_seed(config.seed)
        self.config, self.out, self.on_step = config, Path(out), on_step
        self.chain = channels_last(Chain(config.chain) if init is None else init).train()
        self.ema: EMA[Chain] = EMA(self.chain, config.ema)
        self.sampler = CropSampler(PictureFolder(data, config.memory), config.seed)
        self.validation = None if val is None else PictureFolder(val, config.memory)
        self.dtype = resolve_dtype(config.dtype, self.chain.device)
        self.optimizer = self._new_optimizer()
        self.step, self.bad_steps = 0, 0

    def run(self, resume: bool = False) -> Chain:
        """Trains to the end and returns the averaged model.

        Args:
            resume: go on from the run folder's state, if there is one.

        Raises:
            CheckpointError: the state is damaged or belongs to another config.
            RuntimeError: the loss was not finite in MAX_BAD_STEPS steps in a row.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        config = to_dict(self.config)
        if resume and (self.out / STATE).exists():
            self.step = load_state(self.out / STATE, self.chain, self.ema, self.optimizer, config)
        (self.out / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        history = History(self.out / HISTORY, self.step)
        try:
            self._steps(history)
        finally:
            self._save()
            history.close()
        return self.ema.model

    def _steps(self, history: History) -> None:
        with ThreadPoolExecutor(1) as ahead:
            upcoming = ahead.submit(self._batch, self.step) if self.step < self.config.steps else None
            while upcoming is not None:
                batch, start = upcoming.result(), time.perf_counter()
                more = self.step + 1 < self.config.steps
                upcoming = ahead.submit(self._batch, self.step + 1) if more else None
                values = self._train_step(batch)
                values["seconds"] = time.perf_counter() - start
                done = self.step + 1
                if self._due(self.config.validate_every, done) and self.validation is not None:
                    stages = self.config.phases[self.config.phase_at(self.step)[0]].stages
                    values |= validate(self.ema.model, self.validation, stages, self.config.dtype)
                history.add(self.step, **values)
                self.step = done
                if self._due(self.config.save_every, done):
                    self._save()
                if self.on_step is not None:
                    self.on_step(done, self.config.steps, values)

    def _due(self, every: int, done: int) -> bool:
        return every > 0 and (done % every == 0 or done == self.config.steps)

    def _batch(self, step: int) -> Batch:
        phase = self.config.phases[self.config.phase_at(step)[0]]
        return self.sampler.batch(step, stages=phase.stages, crop=phase.crop, batch=phase.batch)

    def _train_step(self, batch: Batch) -> dict[str, float]:
        index, inside = self.config.phase_at(self.step)
        phase = self.config.phases[index]
        if inside == 0:
            self._begin(phase)
        rate = learning_rate(inside, phase.steps, phase.learning_rate, phase.warmup, phase.final)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.step)
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.chain.device, self.dtype):
            terms = unrolled_losses(self.chain, batch, self.config.loss, phase.noisy, generator)
        total = weighted_sum(terms, self.config.loss)
        values = {name: value.item() for name, value in terms.items()} | {"loss": total.item(), "lr": rate}
        if math.isfinite(values["loss"]):
            total.backward()
            values["gradient"] = float(torch.nn.utils.clip_grad_norm_(self.chain.parameters(), self.config.clip))
        if not all(math.isfinite(value) for value in values.values()):
            self._skip_step(values)
            return values
        self.bad_steps = 0
        self.optimizer.step()
        self.ema.update(self.chain)
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

    def _new_optimizer(self) -> torch.optim.Adam:
        return torch.optim.Adam(self.chain.parameters(), lr=1e-4, betas=BETAS)

    def _skip_step(self, values: dict[str, float]) -> None:
        self.bad_steps += 1
        log.warning("step %d skipped: not finite: %s", self.step, values)
        if self.bad_steps >= MAX_BAD_STEPS:
            raise RuntimeError(f"training stopped: {MAX_BAD_STEPS} steps in a row were not finite, last {values}")

    def _save(self) -> None:
        config = to_dict(self.config)
        save_state(self.out / STATE, self.chain, self.ema, self.optimizer, self.step, config)
        self.ema.model.save(self.out / LAST, self.provenance())

    def provenance(self) -> dict[str, Any]:
        """What a checkpoint of this run says of itself."""
        return {"steps": self.step, "recipe": to_dict(self.config), "torch": torch.__version__}
