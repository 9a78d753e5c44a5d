"""A step's batch in shares: one for each process and, with accumulation, several in each, one after the other.

The shares' losses are weighted so that their mean is the loss of the whole batch: neither how many processes there
are nor in how many parts each of them computes changes what is learned. The relativistic loss alone is no mean
over crops: it compares with the mean logits of its share.
"""

from __future__ import annotations

from dataclasses import dataclass

from .data import Batch


@dataclass(frozen=True)
class Share:
    """Some crops of a step.

    Attributes:
        batch: the crops.
        items: their places in the step's whole batch.
        size: crops of the whole batch.
        shares: in how many the whole batch is computed.
        noisy: the first so many crops of the whole batch also go through the noisy paths.
        noise: range of their sigma, in units of sigma_r.
        seed: of the step's noise, which is drawn for all noisy crops of the whole batch.
    """

    batch: Batch
    items: tuple[int, ...]
    size: int
    shares: int
    noisy: int
    noise: tuple[float, float]
    seed: int

    @property
    def weight(self) -> float:
        """Of a mean over these crops, for the mean over the shares to be that of the whole batch."""
        return len(self.items) * self.shares / self.size

    @property
    def local(self) -> list[int]:
        """Which of these crops are noisy, by their place here."""
        return [place for place, item in enumerate(self.items) if item < self.noisy]

    @property
    def noisy_weight(self) -> float:
        """As `weight`, of a mean over the noisy crops."""
        return len(self.local) * self.shares / max(self.noisy, 1)

    @property
    def noisy_items(self) -> list[int]:
        """The noisy crops here, by their place in the whole batch."""
        return [self.items[place] for place in self.local]


def items_of(share: int, shares: int, size: int) -> tuple[int, ...]:
    """The crops of a share, spread over the batch so that each gets its part of the noisy ones."""
    return tuple(range(share, size, shares))
