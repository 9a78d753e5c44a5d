"""Compare: an image against its reference, in numbers and pictures."""

from __future__ import annotations

import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..core.layout import bhwc_shape, from_bhwc, through_rgb_only
from ..core.metrics import SSIM_WINDOW, psnr, ssim
from ..core.sheet import arrange, heat_map
from ..core.upsample import upsample
from . import _runtime as runtime
from ._batch import run_batch
from ._inputs import CATEGORY


class Compare(io.ComfyNode):
    """Compare an image with a reference."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's schema."""
        return io.Schema(
            node_id="PU_Compare",
            display_name="Compare",
            category=f"{CATEGORY}/tools",
            description="Compares an image with a reference: PSNR and SSIM, both side by side, and a heat "
            "map of where they differ. With the truth as reference the numbers are quality; otherwise they "
            "are only difference.",
            is_output_node=True,
            inputs=[
                io.Image.Input("image", tooltip="The image to judge; shown on the left."),
                io.Image.Input(
                    "reference",
                    tooltip="The truth, or what to compare with; shown on the right. Of another size, the "
                    "image is brought to it by bicubic and the text says so.",
                ),
                io.Float.Input(
                    "heat_levels",
                    default=24.0,
                    min=1.0,
                    max=255.0,
                    step=1.0,
                    tooltip="Difference, in grey levels of 255, that is brightest in the heat map. Smaller "
                    "shows smaller differences.",
                ),
                io.Int.Input(
                    "crop",
                    default=0,
                    min=0,
                    max=256,
                    tooltip="Pixels left out at each border for the numbers; the usual protocol leaves out "
                    "as many as the scale.",
                ),
            ],
            outputs=[
                io.String.Output(
                    "metrics",
                    display_name="metrics",
                    tooltip="PSNR, SSIM and mean colour difference as text.",
                ),
                io.Image.Output("side_by_side", display_name="side by side", tooltip="Image left, reference right."),
                io.Image.Output("heat_map", display_name="heat map", tooltip="Where they differ; black = not at all."),
            ],
        )

    @classmethod
    def execute(cls, image: Tensor, reference: Tensor, heat_levels: float, crop: int) -> io.NodeOutput:
        """Compare the two."""
        batch, before, after = _shared_batch(image, reference), bhwc_shape(image), bhwc_shape(reference, "reference")
        size = after[1:3]
        measured: dict[int, str] = {}

        def work(job: runtime.Job, images: slice) -> list[Tensor]:
            count = images.stop - images.start
            both = (_some(value, images, name) for name, value in (("image", image), ("reference", reference)))
            a, b = (through_rgb_only(job.send(value)).expand(count, -1, -1, -1) for value in both)
            a = a if before[1:3] == size else upsample(a, size)
            for number, (one, other) in enumerate(zip(a.split(1), b.split(1), strict=True), images.start):
                measured[number] = describe(one, other, crop)
            beside = runtime.to_comfy(side_by_side(a, b), like=image)
            runtime.check_cancelled()
            return [beside, runtime.to_comfy(heat_map(a, b, heat_levels / 255), like=image)]

        beside, heat = run_batch(work, batch, size[0] * size[1])
        text = _text(list(measured.values()))
        if before[1:3] != size:
            text = f"image resized from {before[2]}×{before[1]} to {size[1]}×{size[0]} by bicubic\n{text}"
        shown = ui.PreviewImage(beside.float(), cls=cls).as_dict() | ui.PreviewText(text).as_dict()
        return io.NodeOutput(text, beside, heat, ui=shown)


def describe(image: Tensor, reference: Tensor, crop: int = 0) -> str:
    """PSNR, SSIM and mean colour difference as text.

    Args:
        image, reference: `[1, 3, H, W]`, 0..1.
        crop: pixels left out at each border.

    Raises:
        Cancelled: the user does not want to know any more.
    """
    has_window = min(image.shape[-2:]) - 2 * crop >= SSIM_WINDOW
    lines = []
    for name, channel in (("Y", "y"), ("RGB", "rgb")):
        line = f"{name:4}PSNR {float(psnr(image, reference, channel=channel, crop=crop)):.2f} dB"
        if has_window:
            line += f"   SSIM {_ssim(image, reference, channel, crop):.4f}"
        lines.append(line)
    H, W = image.shape[-2:]
    inner = (..., slice(crop, H - crop), slice(crop, W - crop))
    shift = (image.clamp(0, 1) - reference.clamp(0, 1))[inner].mean(dim=(0, 2, 3)).mul(255).tolist()
    lines.append("mean colour difference (R G B, of 255) " + " ".join(f"{value:+.2f}" for value in shift))
    return "\n".join(lines)


def _ssim(image: Tensor, reference: Tensor, channel: str, crop: int) -> float:
    # colour by colour: the mean is the same, and who cancels waits for one of them alone
    planes = [(image, reference)] if channel == "y" else zip(image.split(1, 1), reference.split(1, 1), strict=True)
    values = []
    for one, other in planes:
        runtime.check_cancelled()
        values.append(float(ssim(one, other, crop=crop)))
    return sum(values) / len(values)


def _text(measured: list[str]) -> str:
    if len(measured) == 1:
        return measured[0]
    return "\n".join(f"image {number}\n{text}" for number, text in enumerate(measured, 1))


def _shared_batch(image: Tensor, reference: Tensor) -> int:
    """How many images are compared: one of the two may be a single one."""
    first, second = bhwc_shape(image)[0], bhwc_shape(reference, "reference")[0]
    if 1 not in (first, second) and first != second:
        raise ValueError(f"reference: expected a batch of 1 or {first} as image, got {second}")
    return max(first, second)


def _some(value: Tensor, images: slice, name: str) -> Tensor:
    return from_bhwc(value if value.shape[0] == 1 else value[images], name)


def side_by_side(image: Tensor, reference: Tensor) -> Tensor:
    """Both images beside each other, labelled with their names and size; `[B, 3, H', W']`."""
    size = f"{image.shape[-1]}×{image.shape[-2]}"
    pairs = zip(image.split(1), reference.split(1), strict=True)
    return torch.cat([arrange([[(f"image {size}", one), (f"reference {size}", other)]]) for one, other in pairs])
