"""A small place of one picture, enlarged again and again while a run goes on: quick enough to be shown live."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from ..pictures import PictureError
from ..sheet import detail_boxes
from .degradation import RealisticConfig
from .pictures import Pictures
from .samples import Sample, sample_sheet
from .task import Task
from .validate import presentable, subject

SIDE = 128  # pixels of the place
_AREA = 384  # of the picture's middle, in which it is looked for


class Glimpse:
    """The place with most detail in the middle of a picture: before the run, now, and as it should be.

    Args:
        task: what is trained.
        pictures: of which the first that can be used is shown.
        model: as it is before the run.
        stages: how many are going to be shown, all that occur.
        dtype: format of the networks.
        realistic: how inputs are degraded, see `validate.subject`.

    Raises:
        ValueError: no picture is large enough, or can be decoded.
    """

    def __init__(
        self,
        task: Task,
        pictures: Pictures,
        model: nn.Module,
        stages: Iterable[int],
        dtype: str,
        realistic: RealisticConfig | None = None,
    ) -> None:
        self._task, self._dtype, self._realistic = task, dtype, realistic
        self._known = {count: self._sample(pictures, model, count) for count in set(stages)}

    def sheet(self, model: nn.Module, stages: int) -> Tensor:
        """Three versions side by side, `[1, 3, h, w]` in 0..1.

        Args:
            model: as it is now.
            stages: how many it runs, one of those given at first.
        """
        image, sample = self._known[stages]
        now = self._task.outputs(model, image, stages, self._dtype)[-1]
        versions = {"before": sample.versions["before"], "now": now, "truth": sample.versions["truth"]}
        return sample_sheet([Sample(sample.name, versions)], side=SIDE)

    def _sample(self, pictures: Pictures, model: nn.Module, stages: int) -> tuple[Tensor, Sample]:
        factors = self._task.factors(stages)
        for index in presentable(pictures, factors):
            try:
                known = subject(pictures, index, factors, _AREA, self._realistic)
            except PictureError:  # the folder has named it
                continue
            image, truth = _place(known.input, known.targets[-1], factors[-1])
            before = self._task.outputs(model, image, stages, self._dtype)[-1]
            return image, Sample(pictures.names[index], {"before": before, "truth": truth})
        raise ValueError(f"data: none of the pictures of {pictures.name} can be decoded")


def _place(image: Tensor, truth: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """The same place of both, on whole pixels of the input."""
    side = min(SIDE // factor * factor, *truth.shape[-2:])
    top, left, _, _ = (length // factor for length in detail_boxes(truth, side, 1)[0])
    small, large = side // factor, side // factor * factor
    y, x = top * factor, left * factor
    return image[..., top : top + small, left : left + small], truth[..., y : y + large, x : x + large]
