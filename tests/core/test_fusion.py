from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from progressive_upsampling.core.dynamic_weights import DynamicWeights, DynamicWeightsConfig
from progressive_upsampling.core.fusion import MODES, STRUCTURES, fuse
from progressive_upsampling.core.resample import resample

SIZES = [(33, 47), (1, 1), (257, 129), (3, 700)]


def _model(seed: int = 0) -> DynamicWeights:
    """Weights that are not those of birth, and leave something to every image."""
    model = DynamicWeights(DynamicWeightsConfig(width=4))
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=random))
    return model


def _arguments(mode: str) -> dict:
    return {"model": _model()} if mode == "learned" else {}


def _similar(count: int, *size: int) -> list[torch.Tensor]:
    """Images close enough to each other for attention to mix them."""
    base = torch.rand(2, 3, *size)
    return [(base + 0.03 * torch.randn(2, 3, *size)).clamp(0, 1) for _ in range(count)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("mode", MODES)
def test_fuse_of_equal_images_is_that_image(mode: str, structure: str, size: tuple[int, int]) -> None:
    image = torch.rand(2, 3, *size)
    result = fuse([image] * 3, mode, structure, **_arguments(mode))
    torch.testing.assert_close(result.image, image, atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("mode", MODES)
def test_weights_sum_to_1_everywhere(mode: str, structure: str, size: tuple[int, int]) -> None:
    H, W = size
    images = [torch.rand(2, 3, (H + 3) // 4, (W + 3) // 4), torch.rand(2, 3, (H + 1) // 2, (W + 1) // 2)]
    image, weights = fuse([*images, torch.rand(2, 3, H, W)], mode, structure, **_arguments(mode))
    assert image.shape == (2, 3, H, W) and weights.shape == (2, 3, H, W)
    assert weights.min() >= 0 and image.min() >= 0 and image.max() <= 1
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2, H, W), atol=1e-6, rtol=0)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=2, max_size=4),
    size=st.none() | st.tuples(st.integers(1, 40), st.integers(1, 40)),
    mode=st.sampled_from(MODES),
    structure=st.sampled_from(STRUCTURES),
)
def test_images_of_any_sizes_in_any_order_fuse(
    sizes: list[tuple[int, int]], size: tuple[int, int] | None, mode: str, structure: str
) -> None:
    image, weights = fuse([torch.rand(1, 3, *s) for s in sizes], mode, structure, size=size, **_arguments(mode))
    assert image.isfinite().all() and weights.min() >= 0
    assert size is None or tuple(image.shape[-2:]) == size
    torch.testing.assert_close(weights.sum(dim=1), torch.ones_like(weights[:, 0]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("structure", ["flat", "hierarchical"])
@pytest.mark.parametrize("mode", MODES)
def test_the_result_is_the_weighted_sum_by_the_returned_weights(mode: str, structure: str) -> None:
    images = _similar(4, 33, 47)
    result = fuse(images, mode, structure, **_arguments(mode))
    expected = sum(result.weights[:, i : i + 1] * image for i, image in enumerate(images))
    torch.testing.assert_close(result.image, expected, atol=1e-5, rtol=0)
    assert (result.weights.mean(dim=(0, 2, 3)) > 1e-3).all()  # or the sum would prove nothing


@pytest.mark.parametrize("mode", MODES)
def test_flat_upsamples_by_bicubic_before_it_weighs(mode: str) -> None:
    coarse, fine = torch.rand(1, 3, 17, 24), torch.rand(1, 3, 33, 47)
    scaled = resample(coarse, (33, 47)).clamp(0, 1)
    expected = fuse([scaled, fine], mode, **_arguments(mode))
    result = fuse([coarse, fine], mode, **_arguments(mode))
    torch.testing.assert_close(result.image, expected.image)
    torch.testing.assert_close(result.weights, expected.weights)


def test_given_weights_are_normalised_and_kept_by_flat_and_hierarchical() -> None:
    images = [torch.rand(1, 3, s, s + 1) for s in (9, 17, 33)]
    for structure in ("flat", "hierarchical"):
        weights = fuse(images, "weighted", structure, weights=[1, 3, 4]).weights
        for i, share in enumerate((0.125, 0.375, 0.5)):
            torch.testing.assert_close(weights[:, i], torch.full((1, 33, 34), share), atol=1e-6, rtol=0)


def test_default_weights_are_equal() -> None:
    a, b = torch.rand(2, 1, 3, 5, 6)
    torch.testing.assert_close(fuse([a, b]).image, (a + b) / 2)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("chosen", [0, 1, 2])
def test_all_weight_on_one_image_gives_that_image(structure: str, chosen: int) -> None:
    images = [torch.rand(1, 3, 33, 47) for _ in range(3)]
    weights = [float(i == chosen) for i in range(3)]
    result = fuse(images, "weighted", structure, weights=weights)
    torch.testing.assert_close(result.image, images[chosen], atol=1e-6, rtol=0)


def test_hierarchical_fuses_the_coarse_pair_at_its_own_size_first() -> None:
    a, b, c = torch.rand(1, 3, 9, 12), torch.rand(1, 3, 17, 24), torch.rand(1, 3, 33, 47)
    for mode in MODES:
        first = fuse([a, b], mode, **_arguments(mode))
        last = fuse([first.image, c], mode, weights=[2, 1] if mode == "weighted" else None, **_arguments(mode))
        result = fuse([a, b, c], mode, "hierarchical", **_arguments(mode))
        torch.testing.assert_close(result.image, last.image, atol=1e-6, rtol=0)
        torch.testing.assert_close(result.weights[:, 2], last.weights[:, 1], atol=1e-6, rtol=0)


@pytest.mark.parametrize(("sides", "side"), [((12, 6, 24), 24), ((24, 30, 8), 16)])
def test_hierarchical_takes_an_image_through_no_size_that_loses_or_adds_anything(sides: tuple, side: int) -> None:
    images = [torch.rand(1, 3, s, s) for s in sides]
    result = fuse(images, "weighted", "hierarchical", weights=[1, 0, 0], size=(side, side)).image
    torch.testing.assert_close(result, resample(images[0], (side, side)).clamp(0, 1), atol=1e-6, rtol=0)


def _plain_attention(images: np.ndarray, temperature: float) -> np.ndarray:
    """[N, 3, H, W] to weights [N, H, W], pixel by pixel."""
    N, _, H, W = images.shape
    grey = np.pad(images.mean(axis=1), ((0, 0), (1, 1), (1, 1)), mode="edge")
    sobel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
    features = np.zeros((N, 3, H, W))
    for y in range(H):
        for x in range(W):
            patch = grey[:, y : y + 3, x : x + 3]
            features[:, 0, y, x] = patch[:, 1, 1]
            features[:, 1, y, x] = (patch * sobel).sum(axis=(1, 2))
            features[:, 2, y, x] = (patch * sobel.T).sum(axis=(1, 2))
    squared = (((features - features[-1]) / 0.04) ** 2).sum(axis=1)
    gauss = np.exp(-(np.arange(-3, 4) ** 2) / 2)
    kernel = np.outer(gauss, gauss) / gauss.sum() ** 2
    padded = np.pad(squared, ((0, 0), (3, 3), (3, 3)), mode="edge")
    logits = np.zeros((N, H, W))
    for y in range(H):
        for x in range(W):
            logits[:, y, x] = -(padded[:, y : y + 7, x : x + 7] * kernel).sum(axis=(1, 2)) / temperature
    weights = np.exp(logits)
    return weights / weights.sum(axis=0)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_attention_weights_equal_a_plain_implementation(temperature: float) -> None:
    images = [image[:1].double() for image in _similar(3, 9, 7)]
    result = fuse(images, "attention", temperature=temperature).weights[0].numpy()
    expected = _plain_attention(torch.cat(images).numpy(), temperature)
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_attention_averages_what_agrees_and_leaves_the_rest_to_the_finest() -> None:
    fine = torch.rand(1, 3, 33, 47)
    coarse = fine.clone()
    coarse[..., 24:] = 1.0 - fine[..., 24:].round()
    weights = fuse([coarse, fine], "attention").weights
    torch.testing.assert_close(weights[:, 0, :, :19], torch.full((1, 33, 19), 0.5))
    assert weights[:, 1, :, 28:].min() > 0.95


def test_a_lower_temperature_favours_the_finest() -> None:
    images = _similar(3, 33, 47)
    finest = [fuse(images, "attention", temperature=t).weights[:, -1].mean() for t in (0.1, 1.0, 10.0)]
    assert finest[0] > finest[1] > finest[2] > 1 / 3


@pytest.mark.parametrize("structure", STRUCTURES)
def test_at_the_lowest_temperature_the_finest_alone_counts_and_equals_are_averaged(structure: str) -> None:
    images = _similar(2, 33, 47)
    result = fuse(images, "attention", structure, temperature=1e-50)
    torch.testing.assert_close(result.image, images[-1])
    alike = fuse([images[-1], images[-1]], "attention", structure, temperature=1e-50)
    torch.testing.assert_close(alike.weights, torch.full((2, 2, 33, 47), 0.5))


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("unit", [1e308, 5e-324])
def test_only_the_ratio_of_the_weights_counts_however_large(structure: str, unit: float) -> None:
    images = [torch.rand(1, 3, 33, 47) for _ in range(3)]
    expected = fuse(images, "weighted", structure)
    result = fuse(images, "weighted", structure, weights=[unit] * 3)
    torch.testing.assert_close(result, expected)


def test_laplacian_takes_each_band_from_the_images_that_hold_it() -> None:
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    board = ((x + y) % 2 * 0.2).expand(1, 3, 64, 64) + 0.4
    coarse = torch.full((1, 3, 16, 16), 0.7)
    result = fuse([coarse, board], "weighted", "laplacian")
    inside = result.image[..., 16:-16, 16:-16]
    # The board's fine grain in full, the level half way between the two.
    assert (inside.amax() - inside.amin()).item() == pytest.approx(0.2, abs=0.02)
    assert inside.mean().item() == pytest.approx(0.6, abs=0.01)
    assert torch.equal(result.weights[:, 1], torch.ones(1, 64, 64))


def test_laplacian_of_images_of_one_size_equals_flat_for_constant_weights() -> None:
    images = [torch.rand(1, 3, 33, 47) for _ in range(3)]
    flat, bands = (fuse(images, "weighted", s, weights=[1, 2, 5]) for s in ("flat", "laplacian"))
    torch.testing.assert_close(bands.image, flat.image, atol=1e-6, rtol=0)
    torch.testing.assert_close(bands.weights, flat.weights)


def test_laplacian_weighs_each_band_by_itself() -> None:
    """Against two levels written out, for images of which the coarse one holds the rest only."""
    coarse, fine = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 32, 32)
    up = resample(coarse, (32, 32)).clamp(0, 1)

    def half(image: torch.Tensor) -> torch.Tensor:
        return F.interpolate(image, scale_factor=0.5, mode="bilinear", antialias=True)

    def double(image: torch.Tensor) -> torch.Tensor:
        return F.interpolate(image, scale_factor=2, mode="bilinear")

    rest = 0.25 * half(half(up)) + 0.75 * half(half(fine))
    middle = double(rest) + half(fine) - double(half(half(fine)))
    expected = double(middle) + fine - double(half(fine))
    result = fuse([coarse, fine], "weighted", "laplacian", weights=[1, 3])
    torch.testing.assert_close(result.image, expected.clamp(0, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("coarse", "fine", "share"), [((4, 32), (32, 32), 0.0), ((54, 54), (67, 67), 0.5), ((33, 33), (67, 67), 0.0)]
)
def test_laplacian_takes_the_finest_band_of_images_nearer_to_full_than_to_half_size(
    coarse: tuple[int, int], fine: tuple[int, int], share: float
) -> None:
    weights = fuse([torch.rand(1, 3, *coarse), torch.rand(1, 3, *fine)], "weighted", "laplacian").weights
    assert torch.equal(weights[:, 0], torch.full((1, *fine), share))


def test_laplacian_asks_the_model_for_the_weights_of_each_band() -> None:
    asked, model = [], _model()

    def spy(images: torch.Tensor) -> torch.Tensor:
        asked.append(tuple(images.shape[-2:]))
        return model(images)

    fuse([torch.rand(1, 3, 33, 47) for _ in range(2)], "learned", "laplacian", model=spy)
    assert asked == [(33, 47), (17, 24), (9, 12)]
    asked.clear()
    fuse([torch.rand(1, 3, s, s) for s in (8, 64)], "learned", "laplacian", model=spy)
    assert asked == [(64, 64), (32, 32), (16, 16), (8, 8)]


def test_learned_uses_the_weights_of_the_model() -> None:
    images, model = [torch.rand(2, 3, 33, 47) for _ in range(3)], _model()
    result = fuse(images, "learned", model=model)
    torch.testing.assert_close(result.weights, model(torch.stack(images, dim=1)))


def test_learned_at_birth_is_nearly_the_finest_image() -> None:
    images = [torch.rand(1, 3, s, s) for s in (16, 32, 64)]
    result = fuse(images, "learned", model=DynamicWeights())
    assert (result.image - images[-1]).abs().max() < 0.01


@pytest.mark.parametrize("structure", STRUCTURES)
def test_gradients_reach_the_images_and_the_model(structure: str) -> None:
    images = [torch.rand(1, 3, s, s + 1, requires_grad=True) for s in (5, 9, 17)]
    model = _model()
    (fuse(images, "learned", structure, model=model).image * torch.rand(17, 18)).sum().backward()
    for tensor in (*images, *model.parameters()):
        assert tensor.grad is not None and tensor.grad.isfinite().all() and tensor.grad.abs().max() > 0


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("mode", ["weighted", "attention"])
def test_fuse_is_differentiable(mode: str, structure: str) -> None:
    base = 0.3 + 0.4 * torch.rand(1, 3, 5, 4, dtype=torch.float64)
    images = [(base + 0.02 * torch.randn_like(base)).requires_grad_() for _ in range(2)]
    assert torch.autograd.gradcheck(lambda *x: fuse(x, mode, structure).image, images)


@pytest.mark.parametrize("mode", MODES)
def test_alpha_is_fused_by_the_weights_of_the_colour(mode: str) -> None:
    images = [torch.rand(1, 4, 33, 47) for _ in range(2)]
    for image in images:
        image[:, 3].clamp_(min=0.1)  # what alpha hides is another matter, see test_transparency
    result = fuse(images, mode, **_arguments(mode))
    colour = fuse([image[:, :3] for image in images], mode, **_arguments(mode))
    assert torch.equal(result.image[:, :3], colour.image)
    alpha = sum(result.weights[:, i : i + 1] * image[:, 3:] for i, image in enumerate(images))
    torch.testing.assert_close(result.image[:, 3:], alpha)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("mode", MODES)
def test_grey_images_fuse_as_their_rgb(mode: str, structure: str) -> None:
    images = [torch.rand(1, 1, s, s) for s in (9, 17)]
    grey = fuse(images, mode, structure, **_arguments(mode)).image
    rgb = fuse([image.expand(-1, 3, -1, -1) for image in images], mode, structure, **_arguments(mode)).image
    torch.testing.assert_close(grey, rgb[:, :1])


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("mode", MODES)
def test_an_image_fuses_the_same_in_any_batch(mode: str, structure: str) -> None:
    images = [torch.rand(3, 3, s, s + 2) for s in (9, 17)]
    together = fuse(images, mode, structure, **_arguments(mode))
    alone = fuse([image[1:2] for image in images], mode, structure, **_arguments(mode))
    torch.testing.assert_close(together.image[1:2], alone.image)
    torch.testing.assert_close(together.weights[1:2], alone.weights)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_result_has_the_dtype_of_the_last_image(dtype: torch.dtype) -> None:
    images = [torch.rand(1, 3, 9, 9), torch.rand(1, 3, 17, 17).to(dtype)]
    result = fuse(images, "attention", "laplacian")
    assert result.image.dtype == dtype
    assert result.weights.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_fuse_does_not_change_its_inputs() -> None:
    images = [torch.rand(1, 3, 17, 17) for _ in range(2)]
    copies = [image.clone() for image in images]
    for mode in MODES:
        for structure in STRUCTURES:
            fuse(images, mode, structure, **_arguments(mode)).image.zero_()
    assert all(map(torch.equal, images, copies))


def test_size_sets_the_size_and_defaults_to_that_of_the_largest() -> None:
    images = [torch.rand(1, 3, 30, 40), torch.rand(1, 3, 9, 9)]
    assert fuse(images).image.shape == (1, 3, 30, 40)
    assert fuse(images, size=(70, 3)).image.shape == (1, 3, 70, 3)
    assert fuse([torch.rand(1, 3, 4, 6), torch.rand(1, 3, 6, 4)]).image.shape == (1, 3, 6, 4)  # the last of these


_TWO = [torch.rand(1, 3, 4, 4), torch.rand(1, 3, 8, 8)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": _TWO[:1]}, "images: expected at least 2, got 1"),
        ({"images": [_TWO[0], torch.rand(2, 3, 8, 8)]}, r"images\[1\]: expected \[1, 3, H, W\]"),
        ({"images": [_TWO[0], torch.rand(1, 4, 8, 8)]}, r"images\[1\]"),
        ({"images": [_TWO[0], torch.full((1, 3, 8, 8), float("nan"))]}, r"images\[1\].*NaN"),
        ({"mode": "mean"}, "mode"),
        ({"structure": "tree"}, "structure"),
        ({"weights": [1.0]}, "weights: expected 2, one for each image, got 1"),
        ({"weights": [1.0, -1.0]}, r"weights\[1\]"),
        ({"weights": [0.0, 0.0]}, "weights: expected at least one above 0"),
        ({"weights": [1.0, float("inf")]}, r"weights\[1\]"),
        ({"mode": "attention", "weights": [1.0, 1.0]}, "weights"),
        ({"mode": "learned"}, "model: expected a DynamicWeights"),
        ({"mode": "learned", "model": lambda x: x[:, 0, 0]}, "model: expected weights"),
        ({"size": (0, 4)}, "size"),
        ({"temperature": 0.0}, "temperature"),
    ],
)
def test_fuse_names_the_wrong_argument(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fuse(**{"images": _TWO, **arguments})


def test_a_batch_is_not_taken_for_a_list_of_images() -> None:
    with pytest.raises(TypeError, match="images"):
        fuse(torch.rand(2, 3, 4, 4))
