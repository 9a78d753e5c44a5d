"""Compare: an image against its reference, in numbers and pictures."""

from __future__ import annotations

import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..core.layout import from_bhwc
from ..core.metrics import psnr, ssim
from ..core.sheet import arrange, heat_map
from ..core.upsample import upsample
from . import _runtime as runtime
from ._inputs import CATEGORY

SMALLEST_SSIM = 11  # side of the window of SSIM


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
        a, b = _colour(from_bhwc(image)), _colour(from_bhwc(reference))
        note, size = "", (b.shape[-2], b.shape[-1])
        if tuple(a.shape[-2:]) != size:
            note = f"image resized from {a.shape[-1]}×{a.shape[-2]} to {size[1]}×{size[0]} by bicubic\n"
            a = upsample(a, size)
        B = max(a.shape[0], b.shape[0])
        if {a.shape[0], b.shape[0]} - {1, B}:
            raise ValueError(f"reference: expected a batch of 1 or {a.shape[0]} as image, got {b.shape[0]}")
        a, b = a.expand(B, -1, -1, -1), b.expand(B, -1, -1, -1)
        text = note + runtime.run(lambda job: describe(job.send(a), job.send(b), crop))
        beside = runtime.to_comfy(side_by_side(a, b), like=image)
        shown = ui.PreviewImage(beside.float(), cls=cls).as_dict() | ui.PreviewText(text).as_dict()
        heat = runtime.to_comfy(heat_map(a, b, heat_levels / 255), like=image)
        return io.NodeOutput(text, beside, heat, ui=shown)


def describe(image: Tensor, reference: Tensor, crop: int = 0) -> str:
    """PSNR, SSIM and mean colour difference of every image of a batch, as text.

    Args:
        image, reference: `[B, 3, H, W]`, 0..1.
        crop: pixels left out at each border.
    """
    has_window = min(image.shape[-2:]) - 2 * crop >= SMALLEST_SSIM
    lines = []
    for i, (one, other) in enumerate(zip(image.split(1), reference.split(1), strict=True), 1):
        if image.shape[0] > 1:
            lines.append(f"image {i}")
        for name, channel in (("Y", "y"), ("RGB", "rgb")):
            value = float(psnr(one, other, channel=channel, crop=crop))
            line = f"{name:4}PSNR {value:.2f} dB"
            if has_window:
                line += f"   SSIM {float(ssim(one, other, channel=channel, crop=crop)):.4f}"
            lines.append(line)
        shift = (one - other).mean(dim=(0, 2, 3)).mul(255).tolist()
        lines.append("mean colour difference (R G B, of 255) " + " ".join(f"{value:+.2f}" for value in shift))
    return "\n".join(lines)


def side_by_side(image: Tensor, reference: Tensor) -> Tensor:
    """Both images beside each other, labelled with their names and size; `[B, 3, H', W']`."""
    size = f"{image.shape[-1]}×{image.shape[-2]}"
    pairs = zip(image.split(1), reference.split(1), strict=True)
    return torch.cat([arrange([[(f"image {size}", one), (f"reference {size}", other)]]) for one, other in pairs])


def _colour(image: Tensor) -> Tensor:
    """Three channels: grey repeated, alpha left out."""
    return image[:, :3].expand(-1, 3, -1, -1)
