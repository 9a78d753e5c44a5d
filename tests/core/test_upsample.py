from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from progressive_upsampling.core.progress import OnStep
from progressive_upsampling.core.resample import METHODS, resample
from progressive_upsampling.core.upsample import bytes_per_pixel, upsample
from progressive_upsampling.core.upsamplers import build_upsampler

from .tiny import UPSAMPLER, largest_difference, picture, randomised

Calls = list[tuple[float, float]]


def network(scale: int = 2) -> nn.Module:
    return randomised(build_upsampler(UPSAMPLER | {"scale": scale}), 0.1)


def espcn() -> nn.Module:
    return build_upsampler({"kind": "espcn"})


def triple(rgb: Tensor, on_step: OnStep | None) -> Tensor:
    return resample(rgb, (3 * rgb.shape[2], 3 * rgb.shape[3]), "nearest")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [(66, 94), (10, 20), (1, 1), (40, 21)])
def test_a_named_method_goes_to_the_size_at_once(method: str, size: tuple[int, int]) -> None:
    image = picture(channels=4)
    assert torch.equal(upsample(image, size, method), resample(image, size, method).clamp(0, 1))


@pytest.mark.parametrize(
    ("size", "passes"), [((66, 94), 1), ((34, 47), 1), ((67, 94), 2), ((33, 189), 3), ((132, 188), 2)]
)
def test_a_network_runs_until_the_image_is_large_enough(size: tuple[int, int], passes: int) -> None:
    net, image = network(), picture()
    expected = image
    with torch.no_grad():
        for _ in range(passes):
            expected = net(expected).clamp(0, 1)
    expected = resample(expected, size).clamp(0, 1)
    assert largest_difference(upsample(image, size, net, dtype="fp32"), expected) < 1e-5


@pytest.mark.parametrize("size", [(33, 47), (10, 47), (1, 1)])
@pytest.mark.parametrize("method", [network(), triple])
def test_an_image_that_is_large_enough_is_only_resampled(method: object, size: tuple[int, int]) -> None:
    image = picture()
    assert torch.equal(upsample(image, size, method), resample(image, size).clamp(0, 1))


def test_an_untrained_network_is_bicubic() -> None:
    net, image = build_upsampler(UPSAMPLER), picture()
    expected = resample(image, (66, 94)).clamp(0, 1)
    assert largest_difference(upsample(image, (66, 94), net, dtype="fp32"), expected) < 1e-5


def test_a_function_of_another_factor_is_reduced_to_the_size() -> None:
    image = picture(10, 12)
    assert torch.equal(upsample(image, (30, 36), triple), triple(image, None))
    expected = resample(triple(image, None), (20, 24)).clamp(0, 1)
    assert torch.equal(upsample(image, (20, 24), triple), expected)


def test_the_result_does_not_depend_on_the_tile() -> None:
    net, image = network(), picture(90, 130, batch=2)
    whole = upsample(image, (180, 260), net, tile=10**6, dtype="fp32")
    for tile in (64, 97):
        assert largest_difference(upsample(image, (180, 260), net, tile=tile, dtype="fp32"), whole) < 1e-5


@pytest.mark.parametrize("method", [network(), triple, "lanczos"])
def test_alpha_is_resampled_and_colour_does_not_see_it(method: object) -> None:
    image = picture(channels=4)
    out = upsample(image, (66, 94), method)
    assert out.shape == (1, 4, 66, 94)
    assert torch.equal(out[:, :3], upsample(image[:, :3], (66, 94), method))
    alpha = resample(image[:, 3:], (66, 94), method if isinstance(method, str) else "bicubic").clamp(0, 1)
    assert torch.equal(out[:, 3:], alpha)


def test_grey_is_the_mean_of_what_the_network_makes_of_it() -> None:
    net, image = network(), picture(channels=1)
    rgb = upsample(image.expand(-1, 3, -1, -1), (66, 94), net, dtype="fp32")
    assert largest_difference(upsample(image, (66, 94), net, dtype="fp32"), rgb.mean(1, keepdim=True)) < 1e-6


def test_the_input_is_not_changed() -> None:
    for method in ("bicubic", network(), triple):
        for size in ((66, 94), (33, 47)):
            image = picture()
            before = image.clone()
            out = upsample(image, size, method)
            out.zero_()
            assert torch.equal(image, before)


def test_the_result_is_float32_in_range_whatever_comes_in() -> None:
    def loud(rgb: Tensor, on_step: OnStep | None) -> Tensor:
        return (triple(rgb, on_step) * 3 - 1).half()

    for method in ("bicubic", network(), loud):
        for dtype in (torch.float16, torch.bfloat16, torch.float64):
            out = upsample(picture().to(dtype), (66, 94), method)
            assert out.dtype is torch.float32
            assert out.min() >= 0 and out.max() <= 1


def listened(image: Tensor, size: tuple[int, int], method: object, tile: int | None = None) -> Calls:
    calls: Calls = []
    upsample(image, size, method, tile=tile, on_step=lambda done, total, preview: calls.append((done, total)))
    return calls


def test_progress_reaches_the_total_for_every_kind_of_method() -> None:
    def twice(rgb: Tensor, on_step: OnStep | None) -> Tensor:
        assert on_step is not None
        on_step(1, 2, None)
        on_step(2, 2, None)
        return resample(rgb, (2 * rgb.shape[2], 2 * rgb.shape[3]))

    image = picture(70, 90)
    for method in ("bicubic", network(), triple, twice):
        for size in ((280, 360), (140, 180), (70, 90), (10, 10)):
            calls = listened(image, size, method)
            done = [work for work, _ in calls]
            assert done == sorted(done)
            assert calls[-1][0] == calls[-1][1] > 0
    assert listened(image, (140, 180), espcn(), 64) == [(i / 4, 1) for i in (1, 2, 3, 4)]
    assert listened(image, (140, 180), network(), 45) == [(i / 70, 1) for i in (22, 44, 66, 70)]  # 45² / 90 rows
    assert listened(image, (280, 360), twice) == [(0.5, 2), (1, 2), (1.5, 2), (2, 2)]


def test_what_the_callback_raises_stops_the_run() -> None:
    def cancel(done: float, total: float, preview: Tensor | None) -> None:
        raise KeyboardInterrupt

    for method in ("bicubic", network(), triple):
        with pytest.raises(KeyboardInterrupt):
            upsample(picture(), (66, 94), method, on_step=cancel)


class Still(nn.Module):
    scale, halo = 1, 0

    def forward(self, rgb: Tensor) -> Tensor:
        return rgb


def test_a_method_whose_result_is_no_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="method: expected finite values, got NaN"):
        upsample(picture(), (66, 94), lambda image, _: triple(image, None) * math.nan)
    broken = randomised(build_upsampler({"kind": "fsrcnn", "scale": 2}))
    next(broken.parameters()).data.fill_(math.nan)
    with pytest.raises(ValueError, match="method: expected finite values, got NaN"):
        upsample(picture(), (66, 94), broken, dtype="fp32")


@pytest.mark.parametrize(
    "method",
    [
        lambda rgb, on_step: rgb,
        Still(),
        lambda rgb, on_step: triple(rgb, None)[:, :1],
        lambda rgb, on_step: rgb[..., 1:],
    ],
)
def test_a_method_that_does_not_enlarge_is_refused(method: object) -> None:
    with pytest.raises(ValueError, match=r"method: expected an image larger than \(1, 3, 33, 47\), got \("):
        upsample(picture(), (66, 94), method)


def test_wrong_arguments_are_named() -> None:
    image = picture()
    with pytest.raises(ValueError, match="method: expected one of 'nearest'"):
        upsample(image, (66, 94), "cubic")
    with pytest.raises(TypeError, match="method: expected a name, a network or a function, got int"):
        upsample(image, (66, 94), 3)
    words = "method: expected a network with the integers scale and halo, as those of core.upsamplers, .* got Upsample"
    with pytest.raises(TypeError, match=words):
        upsample(image, (66, 94), nn.Upsample(scale_factor=2))
    with pytest.raises(ValueError, match="size: expected"):
        upsample(image, (0, 94))
    with pytest.raises(ValueError, match=r"image: expected \[B, 1\|3\|4, H, W\], got \(3, 33, 47\)"):
        upsample(image[0], (66, 94))
    with pytest.raises(ValueError, match="image: expected finite values, got NaN"):
        upsample(image * math.nan, (66, 94))
    with pytest.raises(ValueError, match="tile: expected an integer >= 1, got 0"):
        upsample(image, (66, 94), network(), tile=0)
    with pytest.raises(ValueError, match="dtype: expected one of"):
        upsample(image, (66, 94), network(), dtype="int8")


def test_half_the_bytes_take_less_memory() -> None:
    net = network()
    assert bytes_per_pixel(net, torch.bfloat16) < bytes_per_pixel(net, torch.float32)
