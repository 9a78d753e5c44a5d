"""Adversarial losses on logits, R1, and feature matching. r are logits of pictures, f those of results.

Lists of logits, one a scale, are averaged. All are computed in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_choice, check_integer, check_number
from .discriminators import DiscriminatorConfig, Judgement
from .losses import full_precision, l1

KINDS = ("vanilla", "hinge", "relativistic")


@dataclass(frozen=True)
class AdversarialConfig:
    """How the discriminator is trained.

    Attributes:
        kind: one of `KINDS`.
        discriminator: its shape.
        learning_rate: peak of its schedule, which has the shape of the generator's.
        r1: γ of the R1 penalty; 0 for none, 10 is usual.
        r1_every: steps from one penalty to the next; each counts for that many.
        clip: largest norm of its gradient.
    """

    kind: str = "relativistic"
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    learning_rate: float = 1e-4
    r1: float = 0.0
    r1_every: int = 16
    clip: float = 10.0

    def __post_init__(self) -> None:
        check_choice(self.kind, "kind", KINDS)
        check_number(self.learning_rate, "learning_rate", above=0)
        check_number(self.r1, "r1", 0)
        check_integer(self.r1_every, "r1_every", 1)
        check_number(self.clip, "clip", above=0)


def discriminator_loss(real: Sequence[Tensor], fake: Sequence[Tensor], kind: str = "relativistic") -> Tensor:
    """What the discriminator minimises, with sp = softplus, r a real logit and f one of a result.

    - "vanilla" (Goodfellow 2014): sp(−r) + sp(f).
    - "hinge" (Lim 2017, Miyato 2018): relu(1 − r) + relu(1 + f).
    - "relativistic" average (Jolicoeur-Martineau 2018, arXiv 1807.00734): sp(−(r − mean f)) + sp(f − mean r).

    Args:
        real: r, logits of any shape, one tensor a scale.
        fake: f, as many, of results that are detached.
        kind: one of `KINDS`.

    Returns:
        A tensor without axes, float32: each part averaged over the logits, then over the scales.

    Raises:
        ValueError: another kind, or not as many scales.
    """
    return _over_scales(real, fake, _DISCRIMINATOR[_checked(kind)])


def generator_loss(real: Sequence[Tensor], fake: Sequence[Tensor], kind: str = "relativistic") -> Tensor:
    """What the generator minimises.

    - "vanilla": sp(−f), the form that does not saturate.
    - "hinge": −f.
    - "relativistic": sp(r − mean f) + sp(−(f − mean r)); gradients do not reach r.

    Args, Returns, Raises:
        As `discriminator_loss`; `real` is of no effect but for "relativistic".
    """
    return _over_scales([logits.detach() for logits in real], fake, _GENERATOR[_checked(kind)])


def r1_penalty(judge: Callable[[Tensor], Judgement], real: Tensor, gamma: float = 10.0) -> Tensor:
    """R1 (Mescheder 2018, arXiv 1801.04406): γ/2 · E ‖∇ₓ r(x)‖², r(x) being the mean of an image's logits.

    The mean makes it the same for a discriminator of one logit an image and for one of many; of several scales the
    means are averaged.

    Args:
        judge: the discriminator, without autocast around it.
        real: `[B, 3, H, W]` pictures.
        gamma: γ, >= 0; times n where the penalty is taken every n-th step only (Karras 2020, arXiv 1912.04958).

    Returns:
        A tensor without axes, float32; its gradient reaches the discriminator, through second derivatives.

    Raises:
        ValueError: a wrong gamma.
    """
    check_number(gamma, "gamma", 0)
    with full_precision(real), torch.enable_grad():
        image = real.detach().float().requires_grad_()
        logits = judge(image).logits
        score = torch.stack([scale.float().flatten(1).mean(1) for scale in logits]).mean(0).sum()
        (gradient,) = torch.autograd.grad(score, image, create_graph=True)
        return 0.5 * gamma * gradient.square().flatten(1).sum(1).mean()


def feature_matching(real: Sequence[Sequence[Tensor]], fake: Sequence[Sequence[Tensor]]) -> Tensor:
    """How far the discriminator's features of results are from those of pictures (pix2pixHD, arXiv 1711.11585).

    Σ over scales and layers of (1 / scales) · (4 / layers) · mean |D(fake) − D(real)|.

    Args:
        real: features of pictures, layer by layer, one list a scale; gradients do not reach them.
        fake: those of results, of the same shapes.

    Returns:
        A tensor without axes, float32.

    Raises:
        ValueError: not as many scales or layers.
    """
    if not real or [len(scale) for scale in real] != [len(scale) for scale in fake]:
        counts = f"{[len(scale) for scale in real]} and {[len(scale) for scale in fake]}"
        raise ValueError(f"real, fake: expected features of as many scales and layers, got {counts}")
    terms = [
        4 / (len(scale) * len(real)) * l1(found, known.detach())
        for scale, results in zip(real, fake, strict=True)
        for known, found in zip(scale, results, strict=True)
    ]
    return torch.stack(terms).sum()


_Loss = Callable[[Tensor, Tensor], Tensor]  # (r, f) of one scale to a scalar

_DISCRIMINATOR: dict[str, _Loss] = {
    "vanilla": lambda r, f: F.softplus(-r).mean() + F.softplus(f).mean(),
    "hinge": lambda r, f: F.relu(1 - r).mean() + F.relu(1 + f).mean(),
    "relativistic": lambda r, f: F.softplus(f.mean() - r).mean() + F.softplus(f - r.mean()).mean(),
}
_GENERATOR: dict[str, _Loss] = {
    "vanilla": lambda r, f: F.softplus(-f).mean(),
    "hinge": lambda r, f: -f.mean(),
    "relativistic": lambda r, f: F.softplus(r - f.mean()).mean() + F.softplus(r.mean() - f).mean(),
}


def _checked(kind: str) -> str:
    check_choice(kind, "kind", KINDS)
    return kind


def _over_scales(real: Sequence[Tensor], fake: Sequence[Tensor], loss: _Loss) -> Tensor:
    if not real or len(real) != len(fake):
        raise ValueError(f"real, fake: expected logits of as many scales, got {len(real)} and {len(fake)}")
    with full_precision(fake[0]):
        return torch.stack([loss(r.float(), f.float()) for r, f in zip(real, fake, strict=True)]).mean()
