"""A few pictures that a run enlarges again and again, so that one sees what it learns."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..pictures import PictureError
from .degradation import RealisticConfig
from .pictures import Pictures
from .samples import Sample, sample_sheet
from .task import Task
from .validate import presentable, subject

COUNT = 4
SIDE = 384  # pixels of each picture's middle; the sheet shows the place with most detail of it


class Showcase:
    """Pictures of the validation set, or of the training set where there is none.

    Args:
        task: what is trained.
        pictures: the set; of it some pictures are taken, evenly spread.
        before: the model that the run started from; None leaves it out.
        dtype: format of the networks.
        realistic: how inputs are degraded, see `validate.subject`.
    """

    def __init__(
        self,
        task: Task,
        pictures: Pictures,
        before: nn.Module | None,
        dtype: str,
        realistic: RealisticConfig | None = None,
    ) -> None:
        self._task, self._pictures, self._before, self._dtype = task, pictures, before, dtype
        self._realistic = realistic
        self._shown: dict[tuple[int, ...], list[tuple[Tensor, Sample]]] = {}

    def sheet(self, model: nn.Module, stages: int, count: int = COUNT) -> Tensor:
        """What it is given, what the model did before and does now, and the truth; `[1, 3, H, W]` in 0..1.

        Args:
            model: as it is now.
            stages: how many it runs.
            count: pictures, at most `COUNT`.
        """
        known = self._known(stages)[:count]
        rows = []
        for image, sample in known:
            versions = dict(sample.versions)
            truth = versions.pop("truth")
            now = self._task.outputs(model, image, stages, self._dtype)[-1]
            rows.append(Sample(sample.name, {**versions, "now": now, "truth": truth}))
        return sample_sheet(rows)

    def _known(self, stages: int) -> Sequence[tuple[Tensor, Sample]]:
        """What stays as it is during the run."""
        factors = self._task.factors(stages)
        if factors not in self._shown:
            usable = presentable(self._pictures, factors)
            step = max(len(usable) // COUNT, 1)
            samples = []
            for index in usable[::step]:
                try:
                    shown = subject(self._pictures, index, factors, SIDE, self._realistic)
                except PictureError:  # the folder has named it
                    continue
                truth = shown.targets[-1]
                versions = self._task.shown(shown.input, (truth.shape[2], truth.shape[3]))
                if self._before is not None:
                    versions["before"] = self._task.outputs(self._before, shown.input, stages, self._dtype)[-1]
                samples.append((shown.input, Sample(self._pictures.names[index], {**versions, "truth": truth})))
                if len(samples) == COUNT:
                    break
            if not samples:
                raise ValueError(f"data: none of the pictures of {self._pictures.name} can be decoded")
            self._shown[factors] = samples
        return self._shown[factors]
