"""Measuring what is bundled on the standard sets, as far as it has not been measured yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from progressive_upsampling.core.evaluate import BICUBIC, Evaluation, Row, evaluate_folder
from progressive_upsampling.core.evaluate_denoising import NOISY, DenoisingEvaluation, evaluate_denoising
from progressive_upsampling.core.perceptual_distance import PerceptualDistance
from progressive_upsampling.core.precision import resolve_dtype
from progressive_upsampling.core.train.hardware import describe

from . import photographs
from .ledger import DENOISING, PHOTOGRAPHS, RESULTS, Ledger, lacks, put, renew
from .models import Bundled

SETS = ("Set5", "Set14", "B100")
DENOISING_SET, DENOISING_PICTURES = "CBSD68", "B100"  # the first is a folder, or a list of pictures of the second
SIGMAS = (15, 25, 50)


@dataclass(frozen=True)
class Measurement:
    """What is missing of some models is measured, and saved after every piece.

    Attributes:
        ledger: the figures so far; changed.
        data: folder with the folders of `SETS`, and CBSD68 (or CBSD68.txt with names of pictures of B100).
        save: called whenever there is something new.
        judge: measures PD-squeeze; None leaves it out.
        dtype: format to compute in, see `resolve_dtype`.
        say: is told what is measured and what is left out.
    """

    ledger: Ledger
    data: Path
    save: Callable[[], None]
    judge: PerceptualDistance | None = None
    dtype: str = "fp32"
    say: Callable[[str], None] = print

    def run(self, models: list[Bundled], only: Sequence[str] | None = None, *, again: bool = False) -> None:
        """Measure.

        Args:
            models: all that are bundled.
            only: names of those to measure; None takes all.
            again: whether what is known of them is forgotten first.

        Raises:
            ValueError: an unknown name in `only`.
        """
        unknown = sorted(set(only or ()) - {model.name for model in models})
        if unknown:
            raise ValueError(f"only: expected names of bundled models, got {', '.join(unknown)}")
        renew(self.ledger, models)
        chosen = [model for model in models if only is None or model.name in only]
        for model in chosen:
            if again:
                self.ledger["models"][model.name] = model.facts()
            if PHOTOGRAPHS not in self.ledger["models"][model.name]:
                self.say(f"{model.name}: photographs")
                self.ledger["models"][model.name][PHOTOGRAPHS] = photographs.figures(model)
                self.save()
        self._upsampling(chosen)
        self._denoising([model for model in chosen if model.denoises])
        self.save()

    def _upsampling(self, models: list[Bundled]) -> None:
        for folder in SETS:
            if not (self.data / folder).is_dir():
                self.say(f"{folder}: left out, not in the folder")
                continue
            for scale in sorted({scale for model in models for scale in model.scales}):
                key = f"{folder} x{scale}"
                wanted = self._lacking([model for model in models if scale in model.scales], RESULTS, key)
                if wanted:
                    self.say(f"{key}: {', '.join([BICUBIC, *(model.name for model in wanted)])}")
                    methods = {model.name: model.enlarge(self.dtype) for model in wanted}
                    found = evaluate_folder(self.data / folder, scale, methods, distance=self.judge)
                    self._keep(RESULTS, key, found)

    def _denoising(self, models: list[Bundled]) -> None:
        folder, names = self.data / DENOISING_SET, None
        if not folder.is_dir():
            listed = self.data / f"{DENOISING_SET}.txt"
            if not listed.is_file() or not (self.data / DENOISING_PICTURES).is_dir():
                self.say(f"{DENOISING_SET}: left out, not in the folder")
                return
            folder, names = self.data / DENOISING_PICTURES, listed.read_text(encoding="utf-8").split()
        for sigma in SIGMAS:
            key = f"{DENOISING_SET} {sigma}"
            wanted = self._lacking(models, DENOISING, key)
            if wanted:
                self.say(f"{key}: {', '.join([NOISY, *(model.name for model in wanted)])}")
                methods = {model.name: model.clean(self.dtype) for model in wanted}
                found = evaluate_denoising(folder, sigma, methods, distance=self.judge, names=names)
                self._keep(DENOISING, key, found)

    def _lacking(self, models: list[Bundled], section: str, key: str) -> list[Bundled]:
        judged = self.judge is not None
        return [model for model in models if lacks(self.ledger, model.name, section, key, judged)]

    def _keep(self, section: str, key: str, found: Evaluation | DenoisingEvaluation) -> None:
        for name in found.methods:
            put(self.ledger, name, section, key, entry(found, name, self.dtype))
        self.save()


def entry(found: Evaluation | DenoisingEvaluation, method: str, dtype: str) -> dict[str, Any]:
    """The mean of a method as it is kept, with what it was measured by."""
    row: Row = found.mean(method)
    distance = {} if row.distance is None else {"distance": round(row.distance, 5)}
    return {
        "pictures": len(found.rows) // len(found.methods),
        "psnr": round(row.psnr, 4),
        "ssim": round(row.ssim, 5),
        "spectrum": round(row.spectrum, 4),
        **distance,
        "seconds": round(row.seconds, 3),
        "by": machine(dtype),
    }


def machine(dtype: str) -> str:
    """What figures are measured by: torch, number format, processor."""
    form = str(resolve_dtype(dtype)).removeprefix("torch.")
    return f"torch {torch.__version__}, {form}, {describe(torch.device('cpu'))}"
