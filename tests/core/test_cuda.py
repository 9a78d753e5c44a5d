"""What a GPU must do as the CPU does it. Skipped where there is none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from progressive_upsampling.core.back_projection import back_project
from progressive_upsampling.core.chain import Chain
from progressive_upsampling.core.denoise import denoise
from progressive_upsampling.core.denoiser_file import load_denoiser
from progressive_upsampling.core.fusion import fuse
from progressive_upsampling.core.noise import inject_noise
from progressive_upsampling.core.resample import resample
from progressive_upsampling.core.train.degrade import matlab_imresize
from progressive_upsampling.core.upsample import upsample
from progressive_upsampling.core.upsamplers import load_upsampler

from .tiny import picture

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

# cuDNN may round the operands of float32 convolutions to TF32 (10 bits), and chooses its algorithms by the size
TF32 = 2e-3
NETWORKS = ["fsrcnn_x2", "espcn_x3", "edsr_x2", "edsr_x4"]


@pytest.fixture(scope="module")
def chain() -> Chain:
    return Chain.from_pretrained()


@pytest.fixture(scope="module")
def on_gpu() -> Chain:
    return Chain.from_pretrained().to("cuda")


def close(a: Tensor, b: Tensor, tolerance: float = TF32) -> bool:
    return a.shape == b.shape and (a.cpu() - b.cpu()).abs().max().item() <= tolerance


@pytest.mark.parametrize("scale", [2, 3.3, 8])
def test_the_chain_gives_the_picture_of_the_cpu(chain, on_gpu, scale):
    image = picture(45, 62)
    found = on_gpu(image.cuda(), scale=scale, dtype="fp32")
    assert found.is_cuda and close(found, chain(image, scale=scale, dtype="fp32"))


@pytest.mark.parametrize("settings", [{"detail": 1.0}, {"detail": 0.5, "steps": 4, "distribution": "correlated"}])
def test_refined_estimates_start_from_the_noise_of_the_cpu(chain, on_gpu, settings):
    image = picture(40, 56, batch=2)
    found = on_gpu(image.cuda(), scale=4, seed=[3, 4], dtype="fp32", **settings)
    assert close(found, chain(image, scale=4, seed=[3, 4], dtype="fp32", **settings), 5 * TF32)
    assert not close(found, on_gpu(image.cuda(), scale=4, seed=[3, 5], dtype="fp32", **settings), 5 * TF32)


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "auto"])
def test_shorter_formats_stay_within_two_levels(on_gpu, dtype):
    image = picture(96, 128).cuda()
    exact, found = (on_gpu(image, scale=4, dtype=name) for name in ("fp32", dtype))
    assert found.dtype is torch.float32
    assert ((found - exact).abs() > 2 / 255).float().mean().item() <= 1e-4


def test_strips_and_tiles_leave_no_seam(on_gpu):
    image = picture(130, 90).cuda()
    whole = on_gpu(image, scale=4, detail=0.5, dtype="fp32", tile=512)
    for tile in (32, 64):
        assert close(on_gpu(image, scale=4, detail=0.5, dtype="fp32", tile=tile), whole, 5 * TF32)


def test_the_same_seed_gives_the_same_picture(on_gpu):
    image = picture(64, 64).cuda()
    assert torch.equal(on_gpu(image, scale=4, detail=1.0, seed=9), on_gpu(image, scale=4, detail=1.0, seed=9))


@pytest.mark.parametrize("name", NETWORKS)
def test_single_networks_give_the_picture_of_the_cpu(name):
    image, network = picture(50, 70), load_upsampler(name)
    size = (50 * network.scale, 70 * network.scale)
    known = upsample(image, size, network, dtype="fp32")
    assert close(upsample(image.cuda(), size, network.to("cuda"), dtype="fp32"), known)


def test_the_denoiser_gives_the_picture_of_the_cpu():
    noisy, sigma = inject_noise(picture(50, 70), 0.1, seed=2), torch.full((1, 1, 50, 70), 0.1)
    model = load_denoiser("denoiser")
    known = denoise(model, noisy, sigma, dtype="fp32")
    assert close(denoise(model.to("cuda"), noisy.cuda(), sigma.cuda(), dtype="fp32"), known)


@pytest.mark.parametrize("kind", ["gaussian", "uniform", "correlated"])
def test_noise_is_that_of_the_cpu(kind):
    image = picture(30, 40)
    assert close(inject_noise(image.cuda(), 0.2, seed=5, kind=kind), inject_noise(image, 0.2, seed=5, kind=kind), 1e-6)


@pytest.mark.parametrize("method", ["bilinear", "bicubic", "lanczos"])
def test_resampling_is_that_of_the_cpu(method):
    image = picture(41, 67)
    for size in ((100, 90), (20, 31)):
        assert close(resample(image.cuda(), size, method), resample(image, size, method), 1e-5)


def test_fusion_and_back_projection_are_those_of_the_cpu():
    small, large = picture(32, 40), picture(64, 80, seed=1)
    for mode in ("weighted", "attention"):
        known = fuse([small, large], mode=mode, structure="laplacian").image
        assert close(fuse([small.cuda(), large.cuda()], mode=mode, structure="laplacian").image, known, 1e-4)
    assert close(back_project(large.cuda(), small.cuda()), back_project(large, small), 1e-4)


@pytest.mark.parametrize("scale", [0.5, 1 / 3, 0.25, 0.125])
def test_reduction_is_bit_for_bit_that_of_the_cpu(scale):
    pixels = torch.randint(0, 256, (3, 3, 104, 208), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(matlab_imresize(pixels.cuda(), scale=scale).cpu(), matlab_imresize(pixels, scale=scale))
