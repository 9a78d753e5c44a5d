from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from progressive_upsampling.core.checkpoint import CheckpointError
from progressive_upsampling.core.cli import main
from progressive_upsampling.core.imagenet import MEAN, STD
from progressive_upsampling.core.train.perceptual import (
    PerceptualConfig,
    PerceptualLoss,
    _reference,
    perceptual_loss,
    same_trunk,
)
from progressive_upsampling.core.train.vgg import (
    CAFFE_MEAN,
    LAYERS,
    VGG19,
    convert_npz,
    load_vgg,
    random_vgg,
)

INDICES = [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34]
PLAN = [64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512, 512, 512, 0]


def plain_vgg(depth: int, pool: type[nn.Module] = nn.MaxPool2d) -> nn.Sequential:
    """`features` of VGG19 as its paper draws it, 0 standing for a pooling, to its convolution number `depth`."""
    layers, width, count = [], 3, 0
    for entry in PLAN:
        if entry == 0:
            layers.append(pool(2))
            continue
        layers += [nn.Conv2d(width, entry, 3, padding=1), nn.ReLU()]
        width, count = entry, count + 1
        if count == depth:
            break
    return nn.Sequential(*layers)


def file_of(network: nn.Sequential, path) -> dict[str, torch.Tensor]:
    tensors = {f"features.{name}": value for name, value in network.state_dict().items()}
    save_file(tensors, path)
    return tensors


@pytest.fixture
def picture() -> torch.Tensor:
    return torch.rand(2, 3, 33, 47, generator=torch.Generator().manual_seed(0))


def test_layers_lie_where_torchvision_has_them():
    assert list(LAYERS.values()) == INDICES
    assert list(LAYERS)[:5] == ["conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1"] and list(LAYERS)[-1] == "conv5_4"


@pytest.mark.parametrize(("pool", "pooling"), [("max", nn.MaxPool2d), ("average", nn.AvgPool2d)])
@pytest.mark.parametrize("depth", [1, 5, 16])
def test_features_are_those_of_the_plain_network(tmp_path, picture, depth, pool, pooling):
    with torch.random.fork_rng():
        torch.manual_seed(depth)
        plain = plain_vgg(depth, pooling)
    file_of(plain, tmp_path / "vgg.safetensors")
    network = load_vgg(tmp_path / "vgg.safetensors", pool)
    layers = list(LAYERS)[:depth]
    assert network.layers == tuple(layers)
    found = network(picture, layers)
    x = (picture - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    expected = {}
    for index, layer in enumerate(plain):
        x = layer(x)
        expected[index] = x
    for layer in layers:
        assert torch.allclose(found[layer], expected[LAYERS[layer]].detach(), atol=1e-5)


def test_only_the_layers_asked_for_are_given_and_computed(picture):
    network = random_vgg(depth=8)
    network.convolutions[3].register_forward_hook(lambda *_: pytest.fail("computed"))
    assert list(network(picture, ["conv2_1", "conv1_1"])) == ["conv1_1", "conv2_1"]
    with pytest.raises(ValueError, match="conv4_1"):
        network(picture, ["conv4_1"])


def test_an_image_too_small_for_the_maxima_is_refused():
    network = random_vgg(depth=16)
    assert network(torch.rand(1, 3, 16, 16), ["conv5_4"])["conv5_4"].shape == (1, 512, 1, 1)
    with pytest.raises(ValueError, match="at least 16 px"):
        network(torch.rand(1, 3, 15, 40), ["conv5_1"])


def test_a_random_trunk_is_a_function_of_its_seed(picture):
    a, b, c = random_vgg(3, 8), random_vgg(3, 16), random_vgg(4, 8)
    for layer in ("conv1_1", "conv3_4"):
        assert torch.equal(a(picture, [layer])[layer], b(picture, [layer])[layer])
        assert not torch.equal(a(picture, [layer])[layer], c(picture, [layer])[layer])


def test_a_random_trunk_neither_fades_nor_explodes(picture):
    features = random_vgg()(picture, list(LAYERS))
    assert all(0.3 < value.std() < 4 for value in features.values())


def test_the_classifier_is_left_alone(tmp_path):
    tensors = file_of(plain_vgg(2), tmp_path / "vgg.safetensors")
    save_file(tensors | {"classifier.0.weight": torch.zeros(3, 3)}, tmp_path / "vgg.safetensors")
    assert load_vgg(tmp_path / "vgg.safetensors").layers == ("conv1_1", "conv1_2")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("features.2.bias"), "features.2.bias is missing"),
        (lambda t: t.pop("features.2.weight"), "is missing|is unexpected"),
        (lambda t: t.update({"features.1.weight": torch.zeros(64)}), "features.1.weight is unexpected"),
        (lambda t: t.update({"features.5.weight": torch.zeros(64, 64, 3, 3)}), r"features.5.weight is \[64, 64"),
        (lambda t: t.clear() or t.update({"conv1.weight": torch.zeros(2)}), "it is empty|unexpected"),
    ],
)
def test_another_network_is_refused_by_what_is_wrong(tmp_path, change, said):
    tensors = file_of(plain_vgg(4), tmp_path / "vgg.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "vgg.safetensors")
    with pytest.raises(CheckpointError, match=said):
        load_vgg(tmp_path / "vgg.safetensors")


def original(depth: int) -> dict[str, np.ndarray]:
    generator, arrays = np.random.default_rng(depth), {}
    width = 3
    for layer, wide in list(zip(LAYERS, [w for w in PLAN if w], strict=True))[:depth]:
        scale = 0.01 if width == 3 else (2 / (9 * width)) ** 0.5
        arrays[f"{layer}.weight"] = (scale * generator.standard_normal((wide, width, 3, 3))).astype(np.float32)
        arrays[f"{layer}.bias"] = generator.standard_normal(wide).astype(np.float32)
        width = wide
    return arrays


def test_the_converted_trunk_has_the_features_of_the_original(tmp_path, picture):
    arrays = original(3)
    np.savez(tmp_path / "vgg.npz", **arrays)
    network = convert_npz(tmp_path / "vgg.npz", tmp_path / "vgg.safetensors")
    assert load_file(tmp_path / "vgg.safetensors").keys() == {
        f"features.{n}.{part}" for n in INDICES[:3] for part in ("weight", "bias")
    }
    x = 255 * picture - torch.tensor(CAFFE_MEAN).view(3, 1, 1)
    found = network(picture, ["conv1_1", "conv1_2", "conv2_1"])
    for layer in found:
        if layer == "conv2_1":
            x = F.max_pool2d(x, 2)
        x = F.conv2d(x, *(torch.from_numpy(arrays[f"{layer}.{part}"]) for part in ("weight", "bias")), padding=1)
        inside = (..., slice(3, -3), slice(3, -3))
        assert torch.allclose(found[layer][inside], x[inside], atol=1e-3 * x.std().item())
        assert (found[layer] - x).abs().max() < 0.05 * x.std()  # at the border, where the grey of padding counts
        x = x.relu()


def test_the_command_converts_as_the_function_does(tmp_path, capsys):
    np.savez(tmp_path / "vgg.npz", **original(1))
    assert main(["vgg", str(tmp_path / "vgg.npz"), str(tmp_path / "a.safetensors")]) == 0
    assert "1 convolutions, conv1_1 to conv1_1" in capsys.readouterr().err
    convert_npz(tmp_path / "vgg.npz", tmp_path / "b.safetensors")
    a, b = (load_file(tmp_path / f"{name}.safetensors") for name in "ab")
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    assert main(["vgg", str(tmp_path / "none.npz"), str(tmp_path / "c.safetensors")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("what", ["text", "other", "gap", "shape", "array", "pickle", "suffix"])
def test_a_source_that_cannot_be_converted_is_refused_and_leaves_nothing(tmp_path, what):
    path, target, arrays = tmp_path / "vgg.npz", tmp_path / "vgg.safetensors", original(3)
    if what == "text":
        path.write_text("no arrays")
    elif what == "array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif what == "pickle":
        np.savez(path, **{"conv1_1.weight": np.array([{}], dtype=object)})
    else:
        if what == "other":
            arrays["fc6.weight"] = np.zeros(3)
        elif what == "gap":
            del arrays["conv1_2.bias"]
        elif what == "shape":
            arrays["conv1_1.weight"] = np.zeros((3, 3, 3, 64), np.float32)
        else:
            target = tmp_path / "vgg.pth"
        np.savez(path, **arrays)
    with pytest.raises(CheckpointError):
        convert_npz(path, target)
    assert list(tmp_path.iterdir()) == [path]


def test_the_loss_is_the_weighted_l1_of_the_features(picture):
    trunk = random_vgg(depth=4)
    target = picture.flip(3)
    a, b = (trunk(x, ["conv1_2", "conv2_2"]) for x in (picture, target))
    expected = sum(w * (a[layer] - b[layer]).abs().mean() for layer, w in (("conv1_2", 0.1), ("conv2_2", 2.0)))
    loss = PerceptualLoss(trunk, {"conv1_2": 0.1, "conv2_2": 2.0, "conv1_1": 0.0}, "test", relative=False)
    assert torch.allclose(loss(picture, target), expected, rtol=1e-5) and loss.label == "test"
    assert loss(picture, picture) == 0


def scaled_trunk(factor: float) -> VGG19:
    """Features `factor` times as large at every layer, by the homogeneity of convolution and ReLU."""
    trunk = random_vgg(depth=4)
    for number, conv in enumerate(trunk.convolutions):
        conv.bias.copy_(factor * torch.linspace(-0.1, 0.1, conv.bias.numel()))
        if number == 0:
            conv.weight.mul_(factor)
    return trunk


def test_the_relative_loss_is_the_same_for_trunks_of_any_scale(picture):
    layers = {"conv1_2": 0.1, "conv2_2": 2.0}
    for relative in (True, False):
        small, large = (PerceptualLoss(scaled_trunk(f), layers, "", relative) for f in (1.0, 300.0))
        ratio = large(picture, picture.flip(3)) / small(picture, picture.flip(3))
        assert ratio.item() == pytest.approx(1.0 if relative else 300.0, rel=1e-3)


def test_units_are_the_features_of_a_picture_like_a_photograph():
    reference = _reference()
    assert reference.shape == (1, 3, 64, 64) and 0 <= reference.min() < 0.1 and 0.9 < reference.max() <= 1
    assert torch.equal(reference, _reference())
    power = torch.fft.fft2(reference - reference.mean()).abs().square().mean((0, 1))
    assert power[1, 1] > 50 * power[16, 16]  # 1 / f² would be 256
    trunk = random_vgg(depth=2)
    loss = PerceptualLoss(trunk, {"conv1_2": 1.0}, "")
    assert loss.units == {"conv1_2": pytest.approx(trunk(reference, ["conv1_2"])["conv1_2"].abs().mean().item())}


@pytest.mark.parametrize("trained", [False, True])
def test_the_pooling_is_that_of_the_config(tmp_path, picture, trained):
    file_of(plain_vgg(3), tmp_path / "vgg.safetensors")
    path = tmp_path / "vgg.safetensors" if trained else None
    found = {}
    for pool in ("max", "average"):
        loss = perceptual_loss(PerceptualConfig({"conv2_1": 1.0}, pool=pool), path)
        assert loss.trunk.pool == pool
        found[pool] = loss(picture, picture.flip(2)).item()
    assert found["max"] != found["average"]
    with pytest.raises(ValueError, match="pool: expected one of 'max', 'average', got str 'mean'"):
        PerceptualConfig(pool="mean")


@pytest.mark.parametrize("smooth", [False, True])
def test_averages_see_no_grid_of_two_pixels_where_maxima_do(smooth):
    """Behind the first pooling."""
    trunk = random_vgg(depth=3, pool="average" if smooth else "max")
    for convolution in trunk.convolutions[:2]:  # the picture itself, as it is
        weight = torch.zeros_like(convolution.weight)
        weight[:, :, 1, 1] = 1.0 / weight.shape[1]
        convolution.weight.copy_(weight)
    grey = torch.full((1, 3, 32, 32), 0.8)
    lines = grey.clone()
    lines[..., ::2] += 0.1
    lines[..., 1::2] -= 0.1
    before, after = (trunk(image, ["conv2_1"])["conv2_1"][..., 1:-1, 1:-1] for image in (grey, lines))
    assert torch.allclose(before, after, atol=1e-5) == smooth


def test_gradients_reach_the_image_alone(picture):
    loss = PerceptualLoss(random_vgg(depth=2), {"conv1_2": 1.0}, "test")
    image, target = picture.clone().requires_grad_(), picture.flip(2).requires_grad_()
    loss(image, target).backward()
    assert image.grad.any() and target.grad is None
    assert not any(parameter.requires_grad for parameter in loss.parameters())
    assert not loss.train().trunk.convolutions[0].weight.requires_grad


def test_nothing_is_lost_to_half_precision_around(picture):
    loss = PerceptualLoss(random_vgg(depth=2), {"conv1_2": 1.0}, "test")
    expected = loss(picture, picture.flip(2))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(picture, picture.flip(2)), expected)


def test_the_passes_are_in_the_format_of_the_config_and_the_distance_in_float32(picture):
    exact, half = (perceptual_loss(PerceptualConfig({"conv2_2": 1.0}, dtype=dtype)) for dtype in ("fp32", "bf16"))
    assert half.units == exact.units
    a, b = (loss(picture, picture.flip(2)) for loss in (exact, half))
    assert b.dtype == torch.float32 and not torch.equal(a, b) and torch.allclose(a, b, rtol=0.02)
    with pytest.raises(ValueError, match=r"dtype: expected one of .*'bf16', .* got str 'half'"):
        PerceptualConfig(dtype="half")


def test_a_partial_trunk_works_as_far_as_it_reaches_and_says_so(tmp_path, picture, caplog):
    file_of(plain_vgg(8), tmp_path / "part.safetensors")
    with caplog.at_level(logging.WARNING):
        loss = perceptual_loss(PerceptualConfig(), tmp_path / "part.safetensors")
    assert loss.layers == {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0}
    for said in (loss.label, caplog.text):
        assert "part.safetensors" in said and "to conv3_4; without conv4_4, conv5_4" in said
    assert torch.isfinite(loss(picture, picture.flip(3)))
    with pytest.raises(ValueError, match=r"conv1_1\.\.conv3_4, where the trunk ends, got conv5_4"):
        perceptual_loss(PerceptualConfig({"conv5_4": 1.0}), tmp_path / "part.safetensors")


def test_a_whole_trunk_is_named_without_a_warning(tmp_path, caplog):
    file_of(plain_vgg(5), tmp_path / "whole.safetensors")
    loss = perceptual_loss(PerceptualConfig({"conv2_2": 1.0}), tmp_path / "whole.safetensors")
    assert "whole.safetensors" in loss.label and "random" not in loss.label and not caplog.text
    assert str(tmp_path) not in loss.label


def test_without_a_file_the_trunk_is_random_and_called_so(caplog):
    with caplog.at_level(logging.WARNING):
        loss = perceptual_loss(PerceptualConfig({"conv2_2": 1.0}, seed=5))
    assert loss.label == "random VGG19, seed 5, not trained" and loss.label in caplog.text
    assert len(loss.trunk.layers) == 4  # no deeper than needed


def test_labels_are_alike_where_the_weights_and_layers_are_and_not_by_the_file(tmp_path):
    labels = {}
    for name, seed, depth in [("a", 5, 5), ("b (12345678), to x", 5, 5), ("c", 6, 5), ("d", 5, 3), ("e", 5, 8)]:
        torch.manual_seed(seed)
        file_of(plain_vgg(depth), tmp_path / f"{name}.safetensors")
        config = PerceptualConfig({"conv1_2": 1.0, "conv2_2": 0.1})
        labels[name[0]] = perceptual_loss(config, tmp_path / f"{name}.safetensors").label
    labels["random"] = perceptual_loss(PerceptualConfig({"conv1_2": 1.0})).label
    assert labels["a"] != labels["b"] and same_trunk(labels["a"], labels["b"])
    others = ["a", "c", "d", "e", "random"]
    assert all(same_trunk(labels[i], labels[j]) is (i == j) for i in others for j in others)
    assert not same_trunk(labels["a"], "") and same_trunk("", "")


@pytest.mark.parametrize("seed", [-1, 2**32, 10**25, 1.0])
def test_a_seed_of_the_random_trunk_that_cannot_be_is_refused(seed):
    with pytest.raises((TypeError, ValueError), match=r"^seed: expected an integer in 0\.\."):
        PerceptualConfig(seed=seed)
    assert len(perceptual_loss(PerceptualConfig({"conv1_1": 1.0}, seed=2**32 - 1)).layers) == 1


@pytest.mark.parametrize("layers", [{}, {"conv1_1": 0.0}, {"conv6_1": 1.0}, {"conv1_1": -1.0}])
def test_layers_that_cannot_be_are_refused(layers):
    with pytest.raises(ValueError, match="layers"):
        PerceptualConfig(layers)


def test_a_trunk_has_no_parameters_to_train():
    assert not any(parameter.requires_grad for parameter in VGG19(3).parameters())
