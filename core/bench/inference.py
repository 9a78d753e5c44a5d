"""Suite inference: the chain beside its peers and beside what the machine can do; attention; formats; a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..attention import WindowAttention
from ..chain import Chain
from ..cost import chain_cost
from ..evaluate import picture_paths
from ..metrics import psnr
from ..pictures import read_picture
from ..precision import resolve_dtype
from ..resample import resample
from ..train.degrade import matlab_imresize
from .ceiling import Work, convolution, product, share
from .layers import LayerGraph
from .pictures import sample
from .plain import PlainChain, full_attention, naive_window_attention
from .report import Figure, Report
from .timing import Timing, paired

SIDE, STAGES = 128, 3  # 128 to 1024
PLAIN = "plain float32, NCHW"
TOKENS = (64, 128, 256)  # sides of the maps that attention is measured on
FULL_TOKENS = 128  # side of the largest map on which every token looks at every other
ALLOWED = 2 / 255  # difference of a pixel between two number formats
SMALL, COUNT = 32, 100  # of the pictures of the folder

OnRound = Callable[[int], None]


def bench_inference(
    device: torch.device,
    chain: Chain,
    *,
    data: str | Path | None = None,
    peer: LayerGraph | None = None,
    rounds: int = 5,
    on_round: OnRound = lambda done: None,
) -> list[Report]:
    """Runs the suite.

    Args:
        device: where.
        chain: what is measured.
        data: pictures to compare the number formats and the peer's quality on; None leaves that out.
        peer: a progressive network from outside of ×8.
        rounds: paired repeats.
        on_round: progress, called with the rounds done.
    """
    chain = chain.to(device)
    peer = None if peer is None else peer.to(device)
    reports = [
        _chain(device, chain, peer, rounds, on_round),
        _attention(device, chain, rounds),
        _folder(device, chain),
    ]
    return reports if data is None else [*reports, _quality(device, chain, Path(data), peer)]


def check_peer(peer: LayerGraph) -> None:
    """Check that a network can stand beside the chain.

    Raises:
        ValueError: it cannot be run, or is not of ×8.
    """
    try:
        side = peer(sample(SMALL, SMALL)).shape[3]
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"peer: {peer.name} cannot be run: {type(error).__name__}: {error}") from error
    if side != SMALL * 2**STAGES:
        raise ValueError(f"peer: expected a network of x{2**STAGES}, got one that makes {side} pixels of {SMALL}")


def _formats(device: torch.device) -> list[str]:
    auto = resolve_dtype("auto", device)
    return {torch.bfloat16: ["bf16", "fp32"], torch.float16: ["fp16", "fp32"]}.get(auto, ["fp32"])


def _chain(device: torch.device, chain: Chain, peer: LayerGraph | None, rounds: int, on_round: OnRound) -> Report:
    image = sample(SIDE, SIDE).to(device)
    plain = PlainChain(chain)
    cost = chain_cost(chain, 2**STAGES)
    operations = 2 * cost.macs * (SIDE * 2**STAGES) ** 2
    formats = {PLAIN: "fp32"} | {f"this chain, {name}": name for name in _formats(device)}
    work: dict[str, Callable[[], object]] = {PLAIN: lambda: plain(image, STAGES)}
    for own, name in list(formats.items())[1:]:
        work[own] = lambda name=name: chain(image, 2**STAGES, dtype=name)
    if peer is not None:
        work[peer.name] = lambda: peer(image)
    ceilings = {name: _ceilings(device, name, operations) for name in _formats(device)}
    work |= {best: done.run for both in ceilings.values() for best, done in both.items()}
    timings = {timing.name: timing for timing in paired(work, rounds, device, on_round)}
    rows = [["chain 128 to 1024", "seconds", "faster", "GFLOP/s", "of convolutions", "of products"]]
    figures: list[Figure] = []
    for name, timing in timings.items():
        row, shares = [name, f"{timing.seconds:.3f}", f"{timing.ratio:.2f}x"], ["", "", ""]
        figures += _timing_figures("chain 128 to 1024", timing)
        if name in formats:
            both = ceilings[formats[name]]
            of = [share(timing, operations, timings[best], done) for best, done in both.items()]
            shares = [f"{operations / timing.seconds / 1e9:.0f}", *(f"{part:.0%}" for part in of)]
            if name != PLAIN:
                title = f"chain 128 to 1024, {name}: share of the convolution ceiling"
                figures.append(Figure(title, of[0], "", "higher"))
        rows.append([*row, *shares])
    notes = [
        f"{cost.macs / 1e3:.0f} thousand multiply-adds for each pixel of the result, {operations / 1e9:.0f} GFLOP",
        "convolutions, products: as many in 3×3 convolutions of 64 channels, in products of 2048² matrices",
    ]
    return Report(f"whole chain, medians of {rounds} paired rounds", rows, notes, figures)


def _ceilings(device: torch.device, name: str, operations: float) -> dict[str, Work]:
    dtype = resolve_dtype(name, device)
    return {
        f"convolutions, {name}": convolution(device, dtype).repeated(operations),
        f"products, {name}": product(device, dtype).repeated(operations),
    }


def _attention(device: torch.device, chain: Chain, rounds: int) -> Report:
    found = [part for part in chain.modules() if isinstance(part, WindowAttention) and part.position == "relative"]
    rows = [["attention", "milliseconds", "faster than naive", "than full"]]
    if not found:
        return Report("the chain has no self-attention", rows, [], [])
    layer, figures = found[0], []
    channels = layer.qkv.in_channels
    dtype = resolve_dtype("auto", device)
    for side in TOKENS:
        x = torch.randn(1, channels, side, side, device=device).contiguous(memory_format=torch.channels_last)

        def ours(x: Tensor = x) -> None:
            with torch.inference_mode(), torch.autocast(device.type, dtype, dtype is not torch.float32):
                layer(x)

        def naive(x: Tensor = x) -> None:
            with torch.inference_mode():
                naive_window_attention(layer, x.contiguous())

        def full(x: Tensor = x) -> None:
            with torch.inference_mode(), torch.autocast(device.type, dtype, dtype is not torch.float32):
                full_attention(layer, x)

        work = {"naive": naive, "ours": ours} | ({"full": full} if side <= FULL_TOKENS else {})
        times = {timing.name: timing for timing in paired(work, rounds, device, lambda done: None)}
        ratio = f"{times['full'].seconds / times['ours'].seconds:.0f}x" if "full" in times else "-"
        rows.append([f"{side}² tokens", f"{1e3 * times['ours'].seconds:.2f}", f"{times['ours'].ratio:.2f}x", ratio])
        figures.append(Figure(f"attention, {side}² tokens", times["ours"].seconds, "s", "lower"))
        figures.append(Figure(f"attention, {side}² tokens: faster than naive", times["ours"].ratio, "x", "higher"))
    title = f"windowed self-attention of {channels} channels, {layer.heads} heads, windows of {layer.window}²; "
    notes = ["naive: the formula in float32, every matrix in memory; full: every token looks at every other (fused)"]
    return Report(f"{title}medians of {rounds} paired rounds", rows, notes, figures)


def _folder(device: torch.device, chain: Chain) -> Report:
    images = sample(SMALL, SMALL, COUNT).to(device)

    def one_by_one() -> None:
        for number in range(COUNT):
            chain(images[number : number + 1], 2)

    def together() -> None:
        chain(images, 2)

    timings = paired({"one by one": one_by_one, "together": together}, 3, device, lambda done: None)
    rows = [["100 pictures of 32² to 64²", "seconds", "faster"]]
    rows += [[timing.name, f"{timing.seconds:.3f}", f"{timing.ratio:.2f}x"] for timing in timings]
    figures = [figure for timing in timings for figure in _timing_figures("100 small pictures", timing)]
    return Report("a folder of small pictures, networks alone", rows, [], figures)


def _quality(device: torch.device, chain: Chain, data: Path, peer: LayerGraph | None) -> Report:
    """Y-PSNR at ×8 against the truth, and the pixels on which a format and float32 differ."""
    scale = 2**STAGES
    sums: dict[str, list[float]] = {}
    worst, beyond = 0.0, 0.0
    pictures = picture_paths(data)
    for path in pictures:
        truth = (read_picture(path).image[:, :3] * 255).round().byte()
        truth = truth[..., : truth.shape[2] // scale * scale, : truth.shape[3] // scale * scale].expand(-1, 3, -1, -1)
        image = (matlab_imresize(truth, scale=1 / scale).float() / 255).to(device)
        target = truth.float() / 255
        results: dict[str, Tensor] = {}
        for name in _formats(device):
            results[f"this chain, {name}"] = chain(image, scale, dtype=name).cpu()
        if peer is not None:
            results[peer.name] = peer(image).cpu()
        results["bicubic"] = resample(image.cpu(), (target.shape[2], target.shape[3])).clamp(0, 1)
        for name, result in results.items():
            quality = float(psnr((result * 255).round() / 255, target, crop=scale))
            sums.setdefault(name, []).append(quality)
        first, *others = (results[f"this chain, {name}"] for name in _formats(device))
        for other in others:
            difference = (first - other).abs()
            worst = max(worst, float(difference.max()))
            beyond += float((difference > ALLOWED).float().mean())
    rows = [["×8", "Y-PSNR"]] + [[name, f"{sum(values) / len(values):.3f}"] for name, values in sums.items()]
    figures = [Figure(f"Y-PSNR ×8, {name}", sum(values) / len(values), "dB", "higher") for name, values in sums.items()]
    notes = []
    if len(_formats(device)) > 1:
        notes.append(
            f"{_formats(device)[0]} and float32 differ by at most {255 * worst:.1f}/255, by more than 2/255 on "
            f"{beyond / len(pictures):.4%} of all values"
        )
    return Report(f"quality on the {len(pictures)} pictures of {data.name}", rows, notes, figures)


def _timing_figures(what: str, timing: Timing) -> Sequence[Figure]:
    return (
        Figure(f"{what}, {timing.name}", timing.seconds, "s", "lower"),
        Figure(f"{what}, {timing.name}: faster than the first", timing.ratio, "x", "higher"),
    )
