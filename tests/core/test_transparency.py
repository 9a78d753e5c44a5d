"""What is not seen does not colour what is: pixels that alpha hides take the colour of those around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from progressive_upsampling.core import transparency
from progressive_upsampling.core.adaptive_noise import adaptive_sigma
from progressive_upsampling.core.back_projection import back_project
from progressive_upsampling.core.chain import Chain, ChainConfig
from progressive_upsampling.core.fusion import STRUCTURES, fuse
from progressive_upsampling.core.metrics import psnr
from progressive_upsampling.core.residual import skip
from progressive_upsampling.core.transparency import SEEN, spread_colour
from progressive_upsampling.core.upsample import upsample

from .tiny import largest_difference, picture, random_chain

SIZES = [(33, 47), (1, 300), (257, 129), (2, 2)]
FP32: dict[str, Any] = {"dtype": "fp32"}


def hole(height: int, width: int) -> Tensor:
    """Alpha of 8 bits, `[1, 1, H, W]`: seen on the left, soft in the middle, not seen on the right."""
    x = torch.linspace(2, -1, width).clamp(0, 1).expand(1, 1, height, width)
    return (255 * x).round() / 255


def cutout(
    hidden: float, height: int = 33, width: int = 47, batch: int = 1, channels: int = 4, seed: int = 0
) -> Tensor:
    """A picture with alpha that has `hidden` as its colour wherever alpha is 0."""
    alpha = hole(height, width).expand(batch, -1, -1, -1)
    colour = picture(height, width, batch, channels - 1, seed)
    return torch.cat([torch.where(alpha > 0, colour, torch.tensor(hidden)), alpha], 1)


# The helper.


@pytest.mark.parametrize(
    "image",
    [
        picture(channels=1),
        picture(channels=3),
        torch.cat([picture(), torch.ones(1, 1, 33, 47)], 1),
        torch.cat([picture(), torch.full((1, 1, 33, 47), 1 / 255)], 1),
        torch.cat([picture(), torch.zeros(1, 1, 33, 47)], 1),
        torch.zeros(1, 4, 1, 1),
    ],
    ids=["grey", "rgb", "opaque", "faint", "nothing", "one pixel"],
)
def test_an_image_without_both_seen_and_hidden_pixels_is_left_alone(image: Tensor) -> None:
    assert spread_colour(image) is image


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("size", SIZES)
def test_hidden_pixels_take_colours_that_are_seen_and_the_rest_stays(size: tuple[int, int], channels: int) -> None:
    black, white = (cutout(hidden, *size, batch=2, channels=channels) for hidden in (0.0, 1.0))
    kept, out = black.clone(), spread_colour(black)
    seen = (black[:, -1:] > 0).expand_as(out)
    assert torch.equal(out[seen], black[seen]) and torch.equal(out[:, -1], black[:, -1])
    assert torch.equal(out, spread_colour(white))
    assert torch.equal(black, kept)
    for i in range(2):
        for plane, was, shown in zip(out[i, :-1], black[i, :-1], seen[i], strict=False):
            lowest, highest = was[shown].min(), was[shown].max()
            assert plane.min() >= lowest - 1e-6 and plane.max() <= highest + 1e-6


def test_the_nearest_colour_counts_most() -> None:
    image = torch.zeros(1, 4, 5, 64)
    image[:, 0, :, :20], image[:, 2, :, 44:] = 1.0, 1.0  # red, nothing, blue
    image[:, 3, :, :20], image[:, 3, :, 44:] = 1.0, 1.0
    red, _, blue, _ = spread_colour(image)[0, :, 2]
    assert red[20] > 0.9 and red[22] > 0.75 and blue[43] > 0.9
    assert (red[20:44].diff() <= 1e-6).all() and red[20:44].max() <= 1
    torch.testing.assert_close(red + blue, torch.ones(64))


def test_a_wide_gap_is_bridged_without_a_step() -> None:
    image = torch.zeros(1, 4, 5, 88)
    image[..., :20], image[..., 68:] = torch.tensor([0.0, 0, 0, 1]).view(4, 1, 1), 1.0  # black, nothing, white
    steps = spread_colour(image)[0, :3].diff(dim=2)
    assert steps.min() > -1e-6 and steps.max() < 0.1


def test_one_seen_pixel_colours_all_the_rest() -> None:
    image = torch.zeros(1, 4, 70, 90)
    image[0, :, 41, 7] = torch.tensor([0.2, 0.5, 0.9, SEEN])
    expected = image[:, :3, 41:42, 7:8].expand(-1, -1, 70, 90)
    torch.testing.assert_close(spread_colour(image)[:, :3], expected)


def test_every_image_of_a_batch_is_by_itself() -> None:
    opaque, nothing = (torch.cat([picture(seed=1), torch.full((1, 1, 33, 47), alpha)], 1) for alpha in (1.0, 0.0))
    images = torch.cat([opaque, cutout(0.0), nothing, cutout(0.0, seed=3)])
    out = spread_colour(images)
    assert torch.equal(out[0], opaque[0]) and torch.equal(out[2], nothing[0])
    for i in (1, 3):
        assert torch.equal(out[i : i + 1], spread_colour(images[i : i + 1]))


def test_overwriting_gives_the_same_bits() -> None:
    image = cutout(0.0, batch=2)
    expected = spread_colour(image)
    assert spread_colour(image, overwrite=True) is image
    assert torch.equal(image, expected)


@pytest.mark.parametrize("size", SIZES)
def test_bands_of_rows_do_not_show(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    image = cutout(0.0, *size)
    whole = spread_colour(image)
    monkeypatch.setattr(transparency, "BAND_PIXELS", 100)
    assert largest_difference(spread_colour(image), whole) < 1e-6


@pytest.mark.parametrize("alpha", [0.0, 0.5 * SEEN, SEEN])
def test_a_touch_of_alpha_changes_little(alpha: float) -> None:
    image = cutout(0.0)
    image[:, 3, 10, 40] = alpha
    before = spread_colour(image)
    image[:, 3, 10, 40] += 1e-7
    assert largest_difference(spread_colour(image), before) < 1e-4


def test_half_of_what_is_seen_is_half_way_to_the_pixels_own_colour() -> None:
    image, found = cutout(0.0), []
    for alpha in (0.0, 0.5 * SEEN, SEEN):
        image[:, :, 10, 40] = torch.tensor([1.0, 1.0, 1.0, alpha])
        found.append(spread_colour(image)[0, :3, 10, 40])
    assert (found[2] - found[0]).min() > 0.2
    torch.testing.assert_close(found[1], (found[0] + found[2]) / 2, atol=0.01, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_format_stays(dtype: torch.dtype) -> None:
    image = cutout(0.0).to(dtype)
    out = spread_colour(image)
    assert out.dtype is dtype
    expected = spread_colour(image.float()).to(dtype)
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=torch.finfo(dtype).eps)


# Where it is used. Alpha of 8 bits hides nothing half, so not a bit of the hidden colour may come through.


@pytest.fixture(scope="module")
def chain() -> Chain:
    """A small chain of two stages of which every part does something."""
    plain = random_chain()
    projected = Chain(ChainConfig(plain.config.stages, back_projection=True)).eval()
    projected.load_state_dict(plain.state_dict())
    return projected


Part = Callable[[Chain, Tensor, Tensor], Tensor]


def _denoised_blindly(chain: Chain, large: Tensor) -> Tensor:
    return chain.stage(1).denoise(large, torch.full((1, 1, *large.shape[2:]), 0.1), **FP32)


PARTS: dict[str, Part] = {
    "upsample": lambda _, small, large: upsample(small, (66, 94), "lanczos"),
    "upsample by a network": lambda chain, small, large: chain.stage(1).upsample(small, (66, 94)),
    "upsample by a function": lambda _, small, large: upsample(
        small, (66, 94), lambda rgb, _: rgb.repeat_interleave(2, 2).repeat_interleave(2, 3)
    ),
    "reduce": lambda _, small, large: upsample(large, (33, 47)),
    "back_project": lambda _, small, large: back_project(large, small, 0.7),
    "sigma": lambda _, small, large: adaptive_sigma(large),
    "stage.sigma": lambda chain, small, large: chain.stage(1).sigma(large),
    "stage.denoise": lambda chain, small, large: _denoised_blindly(chain, large),
    "stage.skip": lambda chain, small, large: chain.stage(1).skip(large, small),
    "stage.fuse": lambda chain, small, large: chain.stage(1).fuse([small, large])[0],
    "stage.fuse, weights": lambda chain, small, large: chain.stage(1).fuse([small, large])[1],
    "stage.merge_over": lambda chain, small, large: chain.stage(1).merge_over(large.clone(), small),
    "chain": lambda chain, small, large: chain(small, 3, detail=0.5, seed=1, **FP32),
    "chain, another upsampler": lambda chain, small, large: chain(small, 2, upsampler="bicubic", **FP32),
    "chain, reducing": lambda chain, small, large: chain(large, 0.5),
    **{
        f"skip, {mode}": lambda _, small, large, mode=mode: skip(large, small, mode, 0.7, 0.8, levels=3)
        for mode in ("constant", "cosine", "attention")
    },
    **{
        f"fuse, {mode}, {structure}": lambda _, small, large, mode=mode, structure=structure: fuse(
            [small, small, large], mode, structure
        ).image
        for mode in ("weighted", "attention")
        for structure in STRUCTURES
    },
}


@pytest.mark.parametrize("name", PARTS)
def test_no_part_mixes_in_what_is_hidden(chain: Chain, name: str) -> None:
    results = []
    for hidden in (0.0, 0.45):
        small, large = cutout(hidden), cutout(hidden, 66, 94, seed=1)
        kept = small.clone(), large.clone()
        results.append(PARTS[name](chain, small, large))
        assert torch.equal(small, kept[0]) and torch.equal(large, kept[1])
    assert torch.equal(*results)


def test_what_a_part_leaves_alone_keeps_its_hidden_colours(chain: Chain) -> None:
    small, large = cutout(0.3), cutout(0.3, 66, 94)
    assert torch.equal(upsample(small, (33, 47)), small)
    assert torch.equal(chain(small, 1), small)
    assert torch.equal(back_project(large, small, 0.0), large)
    assert torch.equal(chain.stage(1).skip(large, small, 0.0), large)


def test_tiles_and_batches_do_not_show_in_a_cutout(chain: Chain) -> None:
    opaque = torch.cat([picture(40, 52, seed=5), torch.ones(1, 1, 40, 52)], 1)
    images = torch.cat([cutout(0.0, 40, 52), opaque])
    whole = chain(images, 4, detail=0.5, tile=10**4, **FP32)
    assert largest_difference(chain(images, 4, detail=0.5, tile=24, **FP32), whole) < 1e-4
    for i in range(2):
        assert largest_difference(chain(images[i : i + 1], 4, detail=0.5, **FP32), whole[i : i + 1]) < 1e-5


@pytest.mark.parametrize("method", ["bicubic", "default"])
def test_a_disc_laid_on_white_has_no_rim(method: str) -> None:
    centre = torch.arange(256) - 127.5
    inside = (centre[:, None] ** 2 + centre**2 < 90**2).float()[None, None]
    alpha = (inside.reshape(1, 1, 64, 4, 64, 4).mean((3, 5)) * 255).round() / 255
    peach = torch.tensor([255, 205, 180]).view(1, 3, 1, 1) / 255
    image = torch.cat([peach * (alpha > 0), alpha], 1)
    ours = upsample(image, (256, 256)) if method == "bicubic" else Chain.from_pretrained()(image, 4, **FP32)
    stored = Image.fromarray((image[0].movedim(0, -1) * 255).round().byte().numpy())
    resized = np.asarray(stored.resize((256, 256), Image.Resampling.BICUBIC)).astype(np.float32) / 255
    pillows = torch.from_numpy(resized).movedim(-1, 0)[None]

    def on_white(image: Tensor) -> Tensor:
        return image[:, :3] * image[:, 3:] + 1 - image[:, 3:]

    truth = on_white(torch.cat([peach.expand(-1, -1, 256, 256), inside], 1))
    assert on_white(ours)[:, 0].min() > 0.99  # red is 1 everywhere
    assert psnr(on_white(ours), truth).item() > psnr(on_white(pillows), truth).item()
