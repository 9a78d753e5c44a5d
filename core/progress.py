"""Progress, preview and cancel as one callback.

`on_step(done, total, preview)` is called with the work done and the work in all, in the same unit, and now and then
a small picture. Whoever supplies it may raise from it: that is how a run is cancelled.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

OnStep = Callable[[float, float, "Tensor | None"], None]


class Progress:
    """Adds up the work of parts that do not know of each other and reports it to one `on_step`.

    What is reported never falls and never exceeds the total.

    Args:
        on_step: the callback, or None to report to nobody.
        total: work in all, in any unit (the chain counts output pixels weighted by cost).
    """

    def __init__(self, on_step: OnStep | None, total: float) -> None:
        self._on_step, self._total, self._done = on_step, max(total, 1e-9), 0.0

    def advance(self, work: float, preview: Tensor | None = None) -> None:
        """Reports `work` more as done, with an optional `preview` [1, 3, h, w] in 0..1."""
        self._done += work
        if self._total - self._done < 1e-9 * self._total:  # the sum of the parts is rounded
            self._done = self._total
        if self._on_step is not None:
            self._on_step(self._done, self._total, preview)

    def finish(self, preview: Tensor | None = None) -> None:
        """Reports all work as done, unless it has been and there is no preview to show."""
        if self._done < self._total or preview is not None:
            self.advance(self._total - self._done, preview)

    @property
    def watched(self) -> bool:
        """Whether previews reach anybody; where they do not, they need not be made."""
        return self._on_step.whole.watched if isinstance(self._on_step, _Part) else self._on_step is not None

    def part(self, work: float) -> OnStep:
        """An `on_step` for one part that is `work` of the whole, whatever unit the part counts in."""
        return _Part(self, work)


class _Part:
    """The `on_step` of a part of some work."""

    def __init__(self, whole: Progress, work: float) -> None:
        self.whole, self._work, self._reported = whole, work, 0.0

    def __call__(self, done: float, total: float, preview: Tensor | None) -> None:
        now = self._work * min(done / total, 1.0) if total > 0 else self._work
        step, self._reported = max(now - self._reported, 0.0), max(now, self._reported)
        self.whole.advance(step, preview)
