"""How training crops are made of pictures."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..checks import check_choice, check_integer, check_number
from .degradation import RealisticConfig

DEGRADATIONS = ("bicubic", "realistic")


@dataclass(frozen=True)
class DataConfig:
    """How training crops are made of pictures; the defaults are the protocol of the published benchmarks.

    Attributes:
        degradation: of the input: "bicubic", the reduction of MATLAB's imresize, as the targets have; or
            "realistic", see `degradation`.
        realistic: the latter's settings.
        reduce: whole numbers by which pictures are reduced before crops are made of them, one drawn for each crop. The
            first stage of a chain of ×8 is given what was reduced by 8 and makes of it what was reduced by 4, which is
            rougher than photographs are: (1, 4) teaches it both at the cost of one stage. A picture too small for its
            number is reduced by as much as it can be.
        jitter: strength of random changes of colour, 0..1.
        mixup: share of the crops that are blends of two.
        cutblur: share of the crops whose input is blurred in part.
        flips: whether crops are mirrored at random. Leave it out for text.
        turns: whether crops are turned at random, by a multiple of 90 degrees. Leave it out for text.
        validation: share of the pictures held out where no others are given to validate on, 0 up to below 1.
        memory: bytes of decoded pictures kept, those to validate with among them.
    """

    degradation: str = "bicubic"
    realistic: RealisticConfig = field(default_factory=RealisticConfig)
    reduce: tuple[int, ...] = (1,)
    jitter: float = 0.0
    mixup: float = 0.0
    cutblur: float = 0.0
    flips: bool = True
    turns: bool = True
    validation: float = 0.0
    memory: int = 2 << 30

    def __post_init__(self) -> None:
        check_choice(self.degradation, "degradation", DEGRADATIONS)
        for name in ("jitter", "mixup", "cutblur", "validation"):
            check_number(getattr(self, name), name, 0, 1)
        if self.validation == 1:
            raise ValueError("validation: expected a number from 0 up to below 1, got 1")
        check_integer(self.memory, "memory", 0)
        if not self.reduce:
            raise ValueError("reduce: expected at least one whole number, got none")
        for factor in self.reduce:
            check_integer(factor, "reduce", 1)
