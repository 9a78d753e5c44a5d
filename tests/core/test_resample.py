from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from progressive_upsampling.core.metrics import psnr
from progressive_upsampling.core.resample import METHODS, resample
from progressive_upsampling.core.separable import Axis, _blocks, _product_dtype
from progressive_upsampling.core.train.degrade import matlab_imresize

SIZES = [(33, 47), (1, 1), (257, 129), (3, 700)]
TARGETS = [(66, 94), (20, 13), (130, 13), (99, 141), (1, 1), (5, 1401)]
PIL_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
LINEAR = tuple(PIL_FILTERS)


def keys_cubic(x: float) -> float:
    """Keys 1981, equation 15: the cubic kernel with a = -1/2."""
    x = abs(x)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def lanczos3(x: float) -> float:
    return float(np.sinc(x) * np.sinc(x / 3)) if abs(x) < 3 else 0.0


def triangle(x: float) -> float:
    return max(0.0, 1 - abs(x))


PLAIN: dict[str, Callable[[float], float]] = {
    "bilinear": triangle,
    "bicubic": keys_cubic,
    "lanczos": lanczos3,
}


def plain_matrix(length: int, target: int, kernel: Callable[[float], float]) -> torch.Tensor:
    """Interpolation without antialiasing, weight by weight."""
    matrix = torch.zeros(target, length, dtype=torch.float64)
    for i in range(target):
        for j in range(length):
            matrix[i, j] = kernel(j - ((i + 0.5) * length / target - 0.5))
        matrix[i] /= matrix[i].sum()
    return matrix


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("method", LINEAR)
def test_resample_is_that_of_pil(size: tuple[int, int], method: str) -> None:
    image = torch.rand(1, 1, *size)
    for height, width in TARGETS:
        picture = Image.fromarray(image[0, 0].numpy())
        expected = np.asarray(picture.resize((width, height), PIL_FILTERS[method]))
        result = resample(image, (height, width), method)[0, 0].numpy()
        assert np.abs(result - expected).max() < 1e-5


@pytest.mark.parametrize("size", SIZES)
def test_nearest_takes_the_pixel_that_covers_the_centre(size: tuple[int, int]) -> None:
    image = torch.rand(2, 3, *size)
    for height, width in TARGETS:
        result = resample(image, (height, width), "nearest")
        rows = [(2 * i + 1) * size[0] // (2 * height) for i in range(height)]
        columns = [(2 * i + 1) * size[1] // (2 * width) for i in range(width)]
        assert torch.equal(result, image[:, :, rows][:, :, :, columns])


@pytest.mark.parametrize("method", LINEAR)
@pytest.mark.parametrize("target", [(66, 94), (13, 20), (20, 99)])
def test_without_antialias_the_plain_kernel_is_used(method: str, target: tuple[int, int]) -> None:
    image = torch.rand(1, 1, 33, 47, dtype=torch.float64)
    rows, columns = (plain_matrix(n, m, PLAIN[method]) for n, m in zip((33, 47), target, strict=True))
    expected = rows @ image[0, 0] @ columns.T
    assert torch.allclose(resample(image, target, method, antialias=False)[0, 0], expected, atol=1e-12)


@pytest.mark.parametrize("method", LINEAR)
def test_antialias_makes_no_difference_to_enlarging(method: str) -> None:
    image = torch.rand(1, 3, 33, 47)
    assert torch.equal(resample(image, (99, 94), method), resample(image, (99, 94), method, antialias=False))


@pytest.mark.parametrize("method", LINEAR)
@pytest.mark.parametrize("width", [24576, 12288, 5000])
def test_coordinates_are_exact_at_the_far_end_of_a_wide_image(method: str, width: int) -> None:
    image = torch.rand(1, 1, 1, 8192)
    picture = Image.fromarray(image[0, 0].numpy())
    expected = np.asarray(picture.resize((width, 1), PIL_FILTERS[method]))
    assert np.abs(resample(image, (1, width), method)[0, 0].numpy() - expected).max() < 1e-5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("size", SIZES)
def test_own_size_gives_an_exact_copy(method: str, dtype: torch.dtype, size: tuple[int, int]) -> None:
    image = torch.rand(2, 3, *size).to(dtype)
    result = resample(image, size, method)
    assert torch.equal(result, image)
    assert result.data_ptr() != image.data_ptr()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once_at_the_end(method: str, dtype: torch.dtype) -> None:
    image = torch.rand(1, 3, 33, 47).to(dtype)
    result = resample(image, (66, 50), method)
    assert result.dtype == dtype
    assert torch.equal(result, resample(image.float(), (66, 50), method).to(dtype))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", SIZES)
def test_flat_image_stays_flat(method: str, size: tuple[int, int]) -> None:
    image = torch.full((1, 3, *size), 0.7)
    for target in TARGETS:
        assert torch.allclose(resample(image, target, method), torch.tensor(0.7), atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [2, 3])
def test_resampled_crop_is_the_crop_of_the_resampled(method: str, scale: int) -> None:
    image = torch.rand(1, 3, 257, 129)
    top, left, height, width, border = 101, 37, 60, 55, 4
    whole = resample(image, (257 * scale, 129 * scale), method)
    crop = resample(image[..., top : top + height, left : left + width], (height * scale, width * scale), method)
    expected = whole[..., top * scale : (top + height) * scale, left * scale : (left + width) * scale]
    inside = slice(border * scale, -border * scale)
    assert torch.allclose(crop[..., inside, inside], expected[..., inside, inside], atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_batch_and_channels_do_not_mix(method: str) -> None:
    image = torch.rand(3, 5, 33, 47)
    result = resample(image, (20, 94), method)
    for b in range(3):
        for c in range(5):
            alone = resample(image[b : b + 1, c : c + 1], (20, 94), method)
            assert torch.allclose(result[b, c], alone[0, 0], atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_memory_layout_makes_no_difference_and_the_input_is_left_alone(method: str) -> None:
    image = torch.rand(2, 3, 33, 47)
    before = image.clone()
    strided = image.transpose(2, 3).contiguous().transpose(2, 3).contiguous(memory_format=torch.channels_last)
    assert torch.equal(resample(strided, (66, 20), method), resample(image, (66, 20), method))
    assert torch.equal(image, before)


@pytest.mark.parametrize("method", METHODS)
def test_turned_image_gives_the_turned_result(method: str) -> None:
    image = torch.rand(1, 3, 33, 47)
    result = resample(image, (50, 94), method).transpose(2, 3)
    assert torch.allclose(resample(image.transpose(2, 3), (94, 50), method), result, atol=1e-6)


@pytest.mark.parametrize("method", LINEAR)
@pytest.mark.parametrize("antialias", [True, False])
def test_gradient_is_right(method: str, antialias: bool) -> None:
    image = torch.rand(1, 2, 5, 7, dtype=torch.float64, requires_grad=True)
    for target in ((9, 4), (1, 14)):
        assert torch.autograd.gradcheck(lambda x, t=target: resample(x, t, method, antialias), (image,))


def test_weights_made_under_inference_mode_serve_training() -> None:
    _blocks.cache_clear()
    with torch.inference_mode():
        resample(torch.rand(1, 3, 33, 47), (66, 94))
    image = torch.rand(1, 3, 33, 47, requires_grad=True)
    resample(image, (66, 94)).sum().backward()
    assert image.grad is not None


@pytest.fixture
def short_products() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision(before)


def error_in_float32(method: str) -> float:
    image = torch.rand(1, 3, 257, 129)
    return float((resample(image, (300, 258), method) - resample(image.double(), (300, 258), method)).abs().max())


@pytest.mark.parametrize("method", LINEAR)
def test_short_products_make_no_difference(method: str, short_products: None) -> None:
    assert error_in_float32(method) < 2e-6


@pytest.mark.parametrize("method", LINEAR)
def test_autocast_makes_no_difference(method: str) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert error_in_float32(method) < 2e-6


@pytest.mark.parametrize(("setting", "dtype"), [("highest", torch.float32), ("medium", torch.float64)])
def test_products_are_in_float64_where_float32_would_be_shortened(
    setting: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: setting)
    assert _product_dtype(torch.rand(1, 3, 4, 4)) is dtype


def test_products_are_in_float64_where_torch_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def mixed() -> str:
        raise RuntimeError("mixed settings")

    monkeypatch.setattr(torch, "get_float32_matmul_precision", mixed)
    assert _product_dtype(torch.rand(1, 3, 4, 4)) is torch.float64


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 90), st.integers(1, 90), st.sampled_from(METHODS))
def test_every_size_reaches_every_size(H: int, W: int, height: int, width: int, method: str) -> None:
    image = torch.rand(1, 1, H, W)
    result = resample(image, (height, width), method)
    assert result.shape == (1, 1, height, width)
    overshoot = 0.0 if method in ("nearest", "bilinear") else 0.6
    assert result.min() >= image.min() - overshoot - 1e-6
    assert result.max() <= image.max() + overshoot + 1e-6


def test_weights_grow_with_the_side_not_with_its_square() -> None:
    for length, target in ((4096, 8192), (8192, 1000)):
        axis = Axis(length, target, target / length, "lanczos")
        blocks = _blocks(axis, torch.device("cpu"), torch.float32)
        assert sum(block.matrix.numel() for block in blocks) < 80 * max(length, target)


@pytest.mark.parametrize("photo", ["astronaut", "chelsea", "coffee"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_scores_as_the_published_baseline_does(photo: str, scale: int) -> None:
    picture = torch.from_numpy(getattr(skimage.data, photo)()).permute(2, 0, 1)[None]
    H, W = (side - side % scale for side in picture.shape[-2:])
    truth = picture[..., :H, :W]
    reduced = matlab_imresize(truth, scale=1 / scale)
    baseline = matlab_imresize(reduced, size=(H, W)) / 255.0
    result = resample(reduced / 255.0, (H, W))
    reference = truth / 255.0
    difference = psnr(result, reference, crop=scale) - psnr(baseline, reference, crop=scale)
    assert abs(float(difference)) < 0.03


@pytest.mark.parametrize("size", [(0, 4), (4, -1), (10**9, 10**9), (4,)])
def test_impossible_size_is_named(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=re.escape("size: expected (height, width)")):
        resample(torch.rand(1, 3, 4, 4), size)


def test_bad_image_and_method_are_named() -> None:
    with pytest.raises(ValueError, match=re.escape("image: expected [B, C, H, W], got (4, 4)")):
        resample(torch.rand(4, 4), (4, 4))
    with pytest.raises(ValueError, match="image: expected finite values, got NaN"):
        resample(torch.full((1, 3, 4, 4), math.nan), (8, 8))
    with pytest.raises(ValueError, match="method: expected one of 'nearest', 'bilinear', 'bicubic', 'lanczos'"):
        resample(torch.rand(1, 3, 4, 4), (8, 8), "cubic")
