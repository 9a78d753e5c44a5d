from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from progressive_upsampling.core.checkpoint import CheckpointError, read_tensors
from progressive_upsampling.core.cli import main
from progressive_upsampling.core.squeezenet import LAYERS, SMALLEST, SqueezeNet, convert_squeezenet, load_squeezenet

from .plain_squeezenet import plain_features, random_arrays
from .tiny import picture

WIDTHS = [96, 128, 128, 256, 256, 384, 384, 512, 512]


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return random_arrays()


@pytest.fixture
def converted(tmp_path, arrays):
    np.savez(tmp_path / "original.npz", **arrays)
    return convert_squeezenet(tmp_path / "original.npz", tmp_path / "squeezenet.safetensors")


# 21: the least; 33x47 and 56x85: maxima whose last windows hang over, at different layers; 39x39: none does
@pytest.mark.parametrize("size", [(21, 21), (33, 47), (39, 39), (56, 85), (60, 23)])
def test_the_converted_trunk_has_the_features_of_the_original_to_the_border(converted, arrays, size):
    image = picture(*size)
    found, expected = converted(image, list(LAYERS)), plain_features(image, arrays)
    assert list(found) == list(expected)
    for layer, value in expected.items():
        assert found[layer].shape == (1, *value.shape)
        assert found[layer].dtype == torch.float32
        assert (found[layer][0].double() - torch.from_numpy(value)).abs().max() < 1e-4 * value.max()


def test_layers_have_the_widths_and_strides_of_the_paper():
    features = SqueezeNet()(torch.rand(2, 3, 224, 224), list(LAYERS))
    assert [value.shape[1] for value in features.values()] == WIDTHS
    assert [value.shape[2] for value in features.values()] == [109, 54, 54, 54, 27, 27, 27, 27, 13]


def test_only_the_layers_asked_for_are_given_and_computed():
    network = SqueezeNet()
    network.features[7].register_forward_hook(lambda *_: pytest.fail("computed"))
    image = picture(33, 47)
    assert list(network(image, ["fire4", "conv1"])) == ["conv1", "fire4"]
    with pytest.raises(ValueError, match=r"layers: expected some of conv1, .*, fire9, got fire10"):
        network(image, ["conv1", "fire10"])


def test_an_image_too_small_for_the_last_layer_is_refused():
    network = SqueezeNet()
    assert network(torch.rand(1, 3, SMALLEST, SMALLEST), ["fire9"])["fire9"].shape == (1, 512, 1, 1)
    with pytest.raises(ValueError, match=r"image: expected at least 21 px a side, got \(1, 3, 20, 40\)"):
        network(torch.rand(1, 3, 20, 40), ["conv1"])


def test_the_file_is_in_torchvisions_layout_without_a_classifier(converted, tmp_path):
    tensors = load_file(tmp_path / "squeezenet.safetensors")
    fires = [f"{k}.{part}" for k in (3, 4, 5, 7, 8, 9, 10, 12) for part in ("squeeze", "expand1x1", "expand3x3")]
    assert tensors.keys() == {f"features.{name}.{p}" for name in ("0", *fires) for p in ("weight", "bias")}
    assert tensors["features.12.expand3x3.weight"].shape == (256, 64, 3, 3)
    assert sum(value.numel() for value in tensors.values()) == 735_424  # torchvision's 1,248,424 less 513,000


def test_a_file_reads_back_as_what_was_converted(converted, tmp_path):
    image = picture(33, 47)
    again = load_squeezenet(tmp_path / "squeezenet.safetensors")
    assert torch.equal(again(image, ["fire9"])["fire9"], converted(image, ["fire9"])["fire9"])
    assert not again.training and not any(parameter.requires_grad for parameter in again.parameters())


def test_a_classifier_is_left_alone(converted, tmp_path):
    path = tmp_path / "squeezenet.safetensors"
    save_file(load_file(path) | {"classifier.1.weight": torch.zeros(1000, 512, 1, 1)}, path)
    image = picture(33, 47)
    assert torch.equal(load_squeezenet(path)(image, ["fire9"])["fire9"], converted(image, ["fire9"])["fire9"])


def test_an_original_without_a_classifier_gives_the_same(tmp_path, converted):
    np.savez(tmp_path / "trunk.npz", **{k: v for k, v in random_arrays().items() if "conv_final" not in k})
    convert_squeezenet(tmp_path / "trunk.npz", tmp_path / "trunk.safetensors")
    a, b = (load_file(tmp_path / f"{name}.safetensors") for name in ("trunk", "squeezenet"))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_gradients_reach_the_image_alone():
    network, image = SqueezeNet(), picture(33, 47).requires_grad_()
    network(image, ["fire9"])["fire9"].sum().backward()
    assert image.grad is not None and image.grad.any()
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("features.12.squeeze.bias"), "features.12.squeeze.bias is missing"),
        (lambda t: t.update({"features.6.squeeze.weight": torch.zeros(3)}), "features.6.squeeze.weight is unexpected"),
        (lambda t: t.update({"features.0.weight": torch.zeros(64, 3, 3, 3)}), r"features.0.weight is \[64, 3, 3, 3\]"),
        (lambda t: t.clear() or t.update({"conv1.weight": torch.zeros(2)}), "features.0.weight is missing"),
        (lambda t: t["features.0.bias"].fill_(torch.nan), "NaN"),
    ],
)
def test_another_network_is_refused_by_what_is_wrong(converted, tmp_path, change, said):
    path = tmp_path / "squeezenet.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=said):
        load_squeezenet(path)


@pytest.mark.parametrize("name", ["none.safetensors", "cut.safetensors", "text.safetensors", "pickle.pth"])
def test_a_file_that_cannot_be_read_is_named(converted, tmp_path, name):
    path = tmp_path / name
    if name == "cut.safetensors":
        path.write_bytes((tmp_path / "squeezenet.safetensors").read_bytes()[:100_000])
    elif name == "text.safetensors":
        path.write_text("no tensors")
    elif name == "pickle.pth":
        path.write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(CheckpointError, match=f"{name}: "):
        load_squeezenet(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a: a.pop("fire5.conv3x3_2.bias"), "fire5.conv3x3_2.bias is missing"),
        (lambda a: a.update({"fire10.conv1x1_1.weight": np.zeros(3)}), "unknown fire10.conv1x1_1.weight"),
        (lambda a: a.update({"features.0.weight": a["conv1.weight"]}), "unknown features.0.weight"),
        (lambda a: a.update({"conv1.weight": np.zeros((7, 7, 3, 96))}), r"conv1.weight is \[7, 7, 3, 96\] in place of"),
        (lambda a: a.update({"conv1.bias": np.full(96, np.inf)}), "NaN or infinite values in conv1.bias"),
        (lambda a: a.update({"conv1.bias": np.full(96, "a")}), "conv1.bias is of <U1, not of numbers"),
        (lambda a: a.update({"conv1.bias": np.array([{}], dtype=object)}), "no readable .npz file"),
        (lambda a: a.clear(), "conv1.weight is missing"),
    ],
)
def test_a_source_that_cannot_be_converted_leaves_what_was_there(tmp_path, arrays, change, said):
    source, target = tmp_path / "original.npz", tmp_path / "squeezenet.safetensors"
    target.write_bytes(b"what was there")
    changed = dict(arrays)
    change(changed)
    np.savez(source, **changed)
    with pytest.raises(CheckpointError, match=said):
        convert_squeezenet(source, target)
    assert target.read_bytes() == b"what was there"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["original.npz", "squeezenet.safetensors"]


@pytest.mark.parametrize("what", ["missing", "text", "array", "suffix", "folder"])
def test_a_source_or_target_that_cannot_be_is_refused_and_leaves_nothing(tmp_path, arrays, what):
    source, target = tmp_path / "original.npz", tmp_path / "squeezenet.safetensors"
    if what == "text":
        source.write_text("no arrays")
    elif what == "array":
        with source.open("wb") as file:
            np.save(file, np.zeros(3))
    elif what != "missing":
        np.savez(source, **arrays)
        target = tmp_path / ("squeezenet.pth" if what == "suffix" else "no/squeezenet.safetensors")
    with pytest.raises(CheckpointError, match="original.npz: " if what in ("missing", "text", "array") else "squeeze"):
        convert_squeezenet(source, target)
    assert list(tmp_path.iterdir()) == ([] if what == "missing" else [source])


def test_the_command_converts_as_the_function_does(tmp_path, arrays, capsys):
    np.savez(tmp_path / "original.npz", **arrays)
    assert main(["squeezenet", str(tmp_path / "original.npz"), str(tmp_path / "a.safetensors")]) == 0
    assert "SqueezeNet 1.0, conv1, fire2" in capsys.readouterr().err
    convert_squeezenet(tmp_path / "original.npz", tmp_path / "b.safetensors")
    (a, said), (b, _) = (read_tensors(tmp_path / f"{name}.safetensors") for name in "ab")
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    assert said == {"layout": "torchvision squeezenet1_0", "converted_from": "original.npz"}
    assert main(["squeezenet", str(tmp_path / "none.npz"), str(tmp_path / "c.safetensors")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
