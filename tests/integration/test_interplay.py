"""The pack among ComfyUI's own nodes, in a real server: alpha, masks, lists, and graphs that encode an image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from progressive_upsampling import core

from .server import Server

pytestmark = pytest.mark.comfy

HEIGHT, WIDTH = 24, 40


@pytest.fixture(scope="module")
def photo(server: Server) -> str:
    """A picture whose left half is transparent, in the server's input folder."""
    rgba = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 4), np.uint8)
    rgba[..., 3] = np.where(np.arange(WIDTH) < WIDTH // 2, 0, 255)
    Image.fromarray(rgba, "RGBA").save(server.base / "input" / "alpha.png")
    return "alpha.png"


def graph(photo: str, **inputs: Any) -> dict[str, Any]:
    """Progressive Upscale with the tiny model on the picture; LoadImage gives its transparency as a mask."""
    settings = {"scale": 4.0, "width": 0, "height": 0, "detail": 0.8, "steps": "2", "strength": 1.0, "seed": 3}
    settings |= {"noise": "learned", "distribution": "gaussian", "skip": 1.0, "fusion": True, "tile": 0}
    return {
        "photo": {"class_type": "LoadImage", "inputs": {"image": photo}},
        "tiny": {"class_type": "PU_LoadModel", "inputs": {"model_name": "tiny.safetensors"}},
        "upscale": {
            "class_type": "PU_ProgressiveUpscale",
            "inputs": {"image": ["photo", 0], "model": ["tiny", 0], "precision": "fp32"} | settings | inputs,
        },
        "keep": {"class_type": "KeepImage", "inputs": {"image": ["upscale", 0], "name": "interplay"}},
    }


def loaded(server: Server, photo: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The picture's colour as an image, and its transparency as a map: 1 where nothing is to be seen."""
    with Image.open(server.base / "input" / photo) as file:
        rgba = torch.from_numpy(np.asarray(file).astype(np.float32) / 255).movedim(-1, 0)[None]
    return rgba[:, :3], 1 - rgba[:, 3:]


def test_a_mask_from_comfyui_limits_where_detail_is_added(server: Server, photo: str, chain: core.Chain) -> None:
    server.run(graph(photo, detail_mask=["photo", 1]))
    image, transparent = loaded(server, photo)
    chosen: dict[str, Any] = {"scale": 4, "detail": 0.8, "steps": 2, "seed": 3, "dtype": "fp32"}
    expected = chain(image, **chosen, detail_mask=transparent).movedim(1, -1)
    np.testing.assert_allclose(server.kept("interplay"), expected, atol=1e-5, rtol=0)
    assert (expected - chain(image, **chosen).movedim(1, -1)).abs().max() > 1e-3


def test_a_mask_from_comfyui_limits_where_noise_goes(server: Server, photo: str) -> None:
    prompt = {name: node for name, node in graph(photo).items() if name == "photo"}
    sigma = {"mode": "learned", "strength": 1.0, "base_sigma": 0.04, "stage": 1}
    noise = {"sigma": 0.04, "strength": 1.0, "seed": 3, "distribution": "gaussian", "stage": 1}
    prompt["sigma"] = {
        "class_type": "PU_AdaptiveNoise",
        "inputs": sigma | {"image": ["photo", 0], "mask": ["photo", 1]},
    }
    prompt["noise"] = {
        "class_type": "PU_InjectNoise",
        "inputs": noise | {"image": ["photo", 0], "sigma_map": ["sigma", 0]},
    }
    prompt["keep"] = {"class_type": "KeepImage", "inputs": {"image": ["noise", 0], "name": "interplay"}}
    server.run(prompt)
    image, transparent = loaded(server, photo)
    changed = np.abs(server.kept("interplay") - image.movedim(1, -1).numpy()).max(axis=-1)[0]
    limits = transparent[0, 0].numpy()
    assert changed[limits == 0].max() < 1e-6
    assert changed[limits == 1].mean() > 1e-3


def test_alpha_goes_through(server: Server, photo: str) -> None:
    prompt = graph(photo, image=["joined", 0])
    prompt["joined"] = {"class_type": "JoinImageWithAlpha", "inputs": {"image": ["photo", 0], "alpha": ["photo", 1]}}
    server.run(prompt)
    alpha = server.kept("interplay")[..., 3]
    assert alpha.shape == (1, 4 * HEIGHT, 4 * WIDTH)
    assert alpha[:, :, :70].max() < 0.01 and alpha[:, :, -70:].min() > 0.99


def test_a_list_of_images_of_many_sizes_goes_through_one_by_one(server: Server, photo: str) -> None:
    prompt = graph(photo)
    settings = {"method": "bicubic", "scale": 0.5, "width": 0, "height": 0, "checkpoint": "bundled", "stage": 1}
    settings |= {"tile": 0, "precision": "auto", "image": ["upscale", 1]}
    prompt["half"] = {"class_type": "PU_Upsample", "inputs": settings}
    prompt["shown"] = {"class_type": "PreviewImage", "inputs": {"images": ["half", 0]}}
    sizes = []
    for shown in server.run(prompt)["shown"]["images"]:
        with Image.open(server.base / "temp" / shown["filename"]) as picture:
            sizes.append(picture.size)
    assert sizes == [(WIDTH, HEIGHT), (2 * WIDTH, 2 * HEIGHT)]


def test_the_result_can_be_encoded_and_decoded(server: Server, photo: str) -> None:
    prompt = graph(photo)
    del prompt["keep"]
    prompt["vae"] = {"class_type": "VAELoader", "inputs": {"vae_name": "pixel_space"}}  # needs no file
    prompt["encoded"] = {"class_type": "VAEEncode", "inputs": {"pixels": ["upscale", 0], "vae": ["vae", 0]}}
    prompt["decoded"] = {"class_type": "VAEDecode", "inputs": {"samples": ["encoded", 0], "vae": ["vae", 0]}}
    for name, node in (("before", "upscale"), ("after", "decoded")):
        prompt[name] = {"class_type": "KeepImage", "inputs": {"image": [node, 0], "name": name}}
    server.run(prompt)
    np.testing.assert_allclose(server.kept("after"), server.kept("before"), atol=1e-2, rtol=0)
