"""CARN-M (Ahn 2018, arXiv 1803.08664): cascading residuals of grouped convolutions with shared weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

GROUPS = 4


def _cascade(x: Tensor, steps: list[tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]]) -> Tensor:
    """Each step's result joins all before it, and a 1×1 convolution makes the next input of them (figure 3)."""
    gathered = current = x
    for block, join in steps:
        gathered = torch.cat([gathered, block(current)], 1)
        current = join(gathered)
    return current


class Residual(nn.Module):
    """Two grouped convolutions and a 1×1 one (figure 4b)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=GROUPS),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, groups=GROUPS),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.body(x)).relu()


class Join(nn.Module):
    """A 1×1 convolution with ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Cascade(nn.Module):
    """A cascading block: one residual block, run three times."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.b1 = Residual(channels)
        self.c1, self.c2, self.c3 = (Join(channels * count, channels) for count in (2, 3, 4))

    def forward(self, x: Tensor) -> Tensor:
        return _cascade(x, [(self.b1, join) for join in (self.c1, self.c2, self.c3)])


class Enlarge(nn.Module):
    """Grouped convolution, ReLU and pixel shuffle; twice by 2 where it enlarges by 4."""

    def __init__(self, channels: int, scale: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for factor in (2, 2) if scale == 4 else (scale,):
            grouped = nn.Conv2d(channels, channels * factor**2, 3, padding=1, groups=GROUPS)
            layers += [grouped, nn.ReLU(), nn.PixelShuffle(factor)]
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Shift(nn.Module):
    """A 1×1 convolution that takes the mean colour of the training pictures off, or puts it back."""

    def __init__(self) -> None:
        super().__init__()
        self.shifter = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.shifter(x)


class CARNM(nn.Module):
    """[B, 3, H, W] in 0..1 to [B, 3, H·scale, W·scale] for scale 2, 3 and 4: one trunk, an end for each."""

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        self.sub_mean, self.add_mean = Shift(), Shift()
        self.entry = nn.Conv2d(3, channels, 3, padding=1)
        self.b1, self.b2, self.b3 = (Cascade(channels) for _ in range(3))
        self.c1, self.c2, self.c3 = (Join(channels * count, channels) for count in (2, 3, 4))
        self.upsample = nn.ModuleDict({f"up{scale}": Enlarge(channels, scale) for scale in (2, 3, 4)})
        self.exit = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, x: Tensor, scale: int) -> Tensor:
        steps = [(self.b1, self.c1), (self.b2, self.c2), (self.b3, self.c3)]
        features = _cascade(self.entry(self.sub_mean(x)), steps)
        return self.add_mean(self.exit(self.upsample[f"up{scale}"](features)))
