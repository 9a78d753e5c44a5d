"""What holds for every node: inputs stay, dtypes and channels come back, batches do not mix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from progressive_upsampling.nodes.adaptive_noise import AdaptiveNoise
from progressive_upsampling.nodes.compare import Compare
from progressive_upsampling.nodes.denoise import AttnUNetDenoise
from progressive_upsampling.nodes.inject_noise import InjectNoise
from progressive_upsampling.nodes.multi_scale_fuse import MultiScaleFuse
from progressive_upsampling.nodes.progressive_upscale import ProgressiveUpscale
from progressive_upsampling.nodes.residual_skip import ResidualSkip
from progressive_upsampling.nodes.upsample import Upsample

from .conftest import call

Picture = Callable[..., Tensor]
# Node, the names of its IMAGE inputs, what else it needs.
CASES: dict[str, tuple[Any, tuple[str, ...], dict[str, Any]]] = {
    "upsample": (Upsample, ("image",), {"method": "lanczos"}),
    "upsample_model": (Upsample, ("image",), {"precision": "fp32", "model": True}),
    "adaptive_noise": (AdaptiveNoise, ("image",), {"model": True}),
    "inject_noise": (InjectNoise, ("image",), {"seed": 3}),
    "denoise": (
        AttnUNetDenoise,
        ("noisy_image", "conditioning"),
        {"model": True, "detail": 0.5, "precision": "fp32"},
    ),
    "denoise_blind": (AttnUNetDenoise, ("noisy_image",), {"model": True, "precision": "fp32"}),
    "fuse": (MultiScaleFuse, ("image_1", "image_2", "image_4"), {"mode": "attention"}),
    "fuse_learned": (MultiScaleFuse, ("image_1", "image_2"), {"model": True}),
    "skip": (ResidualSkip, ("current", "previous"), {"model": True}),
    "skip_back": (ResidualSkip, ("current", "previous"), {"mode": "back_projection"}),
    "upscale": (
        ProgressiveUpscale,
        ("image",),
        {"model": True, "scale": 3.0, "detail": 0.5, "precision": "fp32"},
    ),
}


def run(case: str, picture: Picture, chain: Any, images: list[Tensor]) -> Tensor:
    node, names, extra = CASES[case]
    extra = {name: chain if value is True else value for name, value in extra.items()}
    if node is AttnUNetDenoise:
        extra["sigma_map"] = torch.full(images[0].shape[1:3], 0.05)
    return call(node, **dict(zip(names, images, strict=True)), **extra)[0]


def images_for(case: str, picture: Picture, **shape: int) -> list[Tensor]:
    return [picture(seed=i, **shape) for i in range(len(CASES[case][1]))]


@pytest.mark.parametrize("case", CASES)
def test_inputs_are_never_changed(case: str, picture: Picture, chain: Any) -> None:
    images = images_for(case, picture)
    before = [image.clone() for image in images]
    run(case, picture, chain, images)
    assert all(torch.equal(image, copy) for image, copy in zip(images, before, strict=True))


@pytest.mark.parametrize("case", CASES)
def test_results_share_no_memory_with_inputs(case: str, picture: Picture, chain: Any) -> None:
    images = images_for(case, picture)
    result = run(case, picture, chain, images)
    assert all(result.data_ptr() != image.data_ptr() for image in images)
    assert not result.requires_grad


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_the_dtype_of_the_image_comes_back(case: str, picture: Picture, chain: Any, dtype: torch.dtype) -> None:
    images = [image.to(dtype) for image in images_for(case, picture)]
    result = run(case, picture, chain, images)
    assert result.dtype == (torch.float32 if case == "adaptive_noise" else dtype)
    exact = run(case, picture, chain, [image.float() for image in images])
    torch.testing.assert_close(result.float(), exact, atol=2e-3, rtol=0)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_are_carried(case: str, picture: Picture, chain: Any, channels: int) -> None:
    images = images_for(case, picture, channels=channels)
    result = run(case, picture, chain, images)
    assert result.shape[-1] == (channels if case != "adaptive_noise" else result.shape[-1])
    assert result.isfinite().all()


@pytest.mark.parametrize("case", CASES)
def test_an_image_of_a_batch_comes_out_as_it_does_alone(case: str, picture: Picture, chain: Any) -> None:
    images = images_for(case, picture, batch=3)
    together = run(case, picture, chain, images)
    alone = run(case, picture, chain, [image[1:2] for image in images])
    torch.testing.assert_close(together[1:2], alone, atol=2e-6, rtol=0)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("bad", ["empty", "nan", "five channels", "integers"])
def test_bad_images_are_refused_with_a_reason(case: str, picture: Picture, chain: Any, bad: str) -> None:
    images = images_for(case, picture)
    images[0] = {
        "empty": images[0][:, :0],
        "nan": images[0].masked_fill(images[0] > 0.7, float("nan")),
        "five channels": torch.zeros(1, 9, 9, 5),
        "integers": (images[0] * 255).byte(),
    }[bad]
    with pytest.raises((ValueError, TypeError), match=r"expected .*, got "):
        run(case, picture, chain, images)


def test_compare_takes_alpha_and_grey(picture: Picture) -> None:
    text, beside, heat = call(Compare, image=picture(channels=4), reference=picture(channels=1))
    assert "PSNR" in text
    assert beside.shape[-1] == heat.shape[-1] == 3
