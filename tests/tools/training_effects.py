"""What each loss term, discriminator, strategy and augmentation does, after the same number of steps.

    python tests/tools/training_effects.py --data PICTURES --val PICTURES [--vgg FILE] [--squeezenet FILE]

Every variant starts from the bundled chain and changes one thing. The table tells how it differs from the plain run:
Y-PSNR, PD-squeeze and the error of the power spectrum on the middle of the validation pictures, at detail 0 and at
detail 1 (one step), how well noise is removed blind, and the likelihood of the noise controller.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from progressive_upsampling.core import Chain, PerceptualDistance, load_squeezenet, psnr, radial_spectrum_error
from progressive_upsampling.core.adaptive_noise import laplace_nll
from progressive_upsampling.core.noise import inject_noise
from progressive_upsampling.core.train.adversarial import AdversarialConfig
from progressive_upsampling.core.train.config import LossConfig, TrainConfig
from progressive_upsampling.core.train.data_config import DataConfig
from progressive_upsampling.core.train.degradation import RealisticConfig
from progressive_upsampling.core.train.discriminators import DiscriminatorConfig
from progressive_upsampling.core.train.loop import Trainer
from progressive_upsampling.core.train.perceptual import PerceptualConfig
from progressive_upsampling.core.train.pictures import PictureFolder
from progressive_upsampling.core.train.strategies import phases_of
from progressive_upsampling.core.train.validate import large_enough, subject

PLAIN = LossConfig(upsampler=0, refine=0, blind=0, controller=0)
NO_DISCRIMINATOR, AS_IT_IS = AdversarialConfig(), DataConfig()
SHALLOW = PerceptualConfig({"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0})  # as far as partial files reach
SIDE, PICTURES = 256, 6
BLIND_SIGMA = 25 / 255
FAST = 1e-3  # learning rate of the discriminators, which start at birth


@dataclass(frozen=True)
class Variant:
    """One run: its name, what it changes, and which settings."""

    group: str
    name: str
    loss: LossConfig = PLAIN
    strategy: str = "end_to_end"
    stages: int = 1
    earlier: str = "joint"
    adversarial: AdversarialConfig = NO_DISCRIMINATOR
    perceptual: PerceptualConfig = SHALLOW
    data: DataConfig = AS_IT_IS
    vgg: bool = False
    degraded: bool = False  # whether it is measured on inputs that are degraded realistically


def variants(has_vgg: bool) -> Iterator[Variant]:
    """All of them, the plain ones first."""
    yield Variant("loss", "L1 alone")
    yield Variant("loss", "L2", replace(PLAIN, pixel="l2"))
    yield Variant("loss", "Charbonnier", replace(PLAIN, pixel="charbonnier"))
    yield Variant("loss", "L1 on Y", replace(PLAIN, channel="y"))
    yield Variant("loss", "+ SSIM 0.1", replace(PLAIN, ssim=0.1))
    yield Variant("loss", "+ frequency 1", replace(PLAIN, frequency=1.0))
    yield Variant("loss", "+ perceptual 0.1, random VGG", replace(PLAIN, perceptual=0.1))
    if has_vgg:
        yield Variant("loss", "+ perceptual 0.1, VGG19", replace(PLAIN, perceptual=0.1), vgg=True)
    yield Variant("loss", "+ refine 0.5", replace(PLAIN, refine=0.5))
    yield Variant("loss", "+ blind 0.5", replace(PLAIN, blind=0.5))
    yield Variant("loss", "+ controller 0.01", replace(PLAIN, controller=0.01))
    small = {"width": 32}
    judged = replace(PLAIN, adversarial=0.2)  # strong, so that few steps show it
    patch, unet = DiscriminatorConfig("patch", layers=2, **small), DiscriminatorConfig("unet", **small)
    for kind in ("vanilla", "hinge", "relativistic"):
        yield Variant("adversarial", f"PatchGAN, {kind}", judged, adversarial=AdversarialConfig(kind, patch, FAST))
    yield Variant(
        "adversarial", "PatchGAN, vanilla, R1", judged, adversarial=AdversarialConfig("vanilla", patch, FAST, r1=10)
    )
    yield Variant(
        "adversarial", "U-Net, relativistic", judged, adversarial=AdversarialConfig("relativistic", unet, FAST)
    )
    matched = replace(judged, feature_matching=1.0)
    yield Variant(
        "adversarial", "U-Net, + feature matching 1", matched, adversarial=AdversarialConfig("relativistic", unet, FAST)
    )
    refined = replace(judged, judge="refined", refine=0.25)
    yield Variant(
        "adversarial", "U-Net, of refined estimates", refined, adversarial=AdversarialConfig("relativistic", unet, FAST)
    )
    every = LossConfig()
    for strategy, earlier in (
        ("progressive", "joint"),
        ("progressive", "slowed"),
        ("progressive", "frozen"),
        ("end_to_end", "joint"),
        ("multi_scale", "joint"),
    ):
        name = strategy + ("" if earlier == "joint" else f", earlier {earlier}")
        yield Variant("strategy", name, every, strategy, 3, earlier)
    yield Variant("data", "colour jitter 0.5", data=DataConfig(jitter=0.5))
    yield Variant("data", "mixup 0.5", data=DataConfig(mixup=0.5))
    yield Variant("data", "CutBlur 0.5", data=DataConfig(cutblur=0.5))
    realistic = DataConfig(degradation="realistic")
    yield Variant("data", "realistic", data=realistic)
    yield Variant("degraded", "L1 alone", degraded=True)
    yield Variant("degraded", "realistic", data=realistic, degraded=True)


def trained(variant: Variant, args: argparse.Namespace) -> tuple[Chain, float]:
    """The model of a variant, and the seconds that its training took."""
    init = Chain.from_pretrained()
    phases = phases_of(
        variant.strategy,
        stages=variant.stages,
        steps=args.steps,
        weights=2,
        crop=24 if variant.stages == 1 else 16,
        batch=8 if variant.stages == 1 else 4,
        learning_rate=2e-4,
        earlier=variant.earlier,
        pixel=0.0,
        adversarial=variant.loss.judged,
    )
    config = TrainConfig(
        chain=init.config,
        phases=phases,
        loss=variant.loss,
        perceptual=variant.perceptual,
        adversarial=variant.adversarial,
        data=variant.data,
        ema=0.98,
        validate_every=0,
        save_every=0,
    )
    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        model = Trainer(config, args.data, out, init=init, vgg=args.vgg if variant.vgg else None).run()
        seconds = time.perf_counter() - start
    if not isinstance(model, Chain):
        raise TypeError(f"model: expected a Chain, got {type(model).__name__}")
    return model, seconds


@torch.no_grad()
def measured(
    model: Chain, variant: Variant, args: argparse.Namespace, distance: PerceptualDistance | None
) -> dict[str, float]:
    """Mean figures of a model on the validation pictures."""
    stages, realistic = variant.stages, RealisticConfig() if variant.degraded else None
    pictures, factor = PictureFolder(args.val, 1 << 30), 2**stages
    sums: dict[str, float] = {}
    indices = large_enough(pictures, factor, 13)
    indices = indices[:: max(len(indices) // PICTURES, 1)][:PICTURES]
    for index in indices:
        shown = subject(pictures, index, tuple(2**k for k in range(1, stages + 1)), SIDE, realistic)
        truth = shown.targets[-1]
        for detail in (0.0, 1.0):
            output = model(shown.input, factor, detail=detail, steps=1, seed=0)
            for name, value in figures(output, truth, factor, distance).items():
                sums[f"{name}, detail {detail:g}"] = sums.get(f"{name}, detail {detail:g}", 0.0) + value
        stage = model.stage(1)
        sigma = torch.full((1, 1, *truth.shape[2:]), BLIND_SIGMA)
        clean = stage.denoise(inject_noise(truth, sigma, seed=1), sigma, None)
        up = stage.upsample(shown.targets[-2] if stages > 1 else shown.input, (truth.shape[2], truth.shape[3]))
        sums["blind PSNR"] = sums.get("blind PSNR", 0.0) + float(psnr(clean, truth))
        nll = float(laplace_nll(truth - up, stage.controller(up)))
        sums["controller NLL"] = sums.get("controller NLL", 0.0) + nll
    return {name: value / len(indices) for name, value in sums.items()}


def figures(output: Tensor, truth: Tensor, factor: int, distance: PerceptualDistance | None) -> dict[str, float]:
    """Of one result."""
    found = {"PSNR": float(psnr(output, truth, crop=factor))}
    if distance is not None:
        found["PD"] = float(distance.measure(output, truth, crop=factor))
    found["spectrum"] = float(radial_spectrum_error(output, truth))
    return found


def line(name: str, values: dict[str, float], plain: dict[str, float], columns: list[str]) -> str:
    """A row: the plain run's figures, or how others differ from them."""
    cells = [f"{values[c]:.3f}" if values is plain else f"{values[c] - plain[c]:+.3f}" for c in columns]
    return f"| {name} | " + " | ".join(cells) + f" | {values['seconds per step']:.2f} |"


def main() -> None:
    """Run every variant and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--val", required=True)
    parser.add_argument("--vgg")
    parser.add_argument("--squeezenet")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--only", metavar="PATTERN", help="only variants whose 'group: name' has this pattern")
    parser.add_argument("--json")
    args = parser.parse_args()
    distance = PerceptualDistance(load_squeezenet(args.squeezenet)) if args.squeezenet else None
    results: dict[str, dict[str, dict[str, float]]] = {}
    chosen = list(variants(bool(args.vgg)))
    for variant in chosen:
        if args.only and not re.search(args.only, f"{variant.group}: {variant.name}"):
            continue
        model, seconds = trained(variant, args)
        values = measured(model, variant, args, distance)
        values["seconds per step"] = seconds / args.steps
        group = results.setdefault(variant.group, {})
        columns = [name for name in values if name != "seconds per step"]
        if not group:
            print(f"\n| {variant.group}, {args.steps} steps | " + " | ".join(columns) + " | s/step |")
            print("| --- |" + " ---: |" * (len(columns) + 1))
        group[variant.name] = values
        shared = results.get("loss", group) if variant.group in ("adversarial", "data") else group
        plain = next(iter(shared.values()))
        print(line(variant.name, values, plain, columns), flush=True)
        if not all(math.isfinite(value) for value in values.values()):
            raise RuntimeError(f"{variant.name}: not finite")
    if args.json:
        Path(args.json).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
