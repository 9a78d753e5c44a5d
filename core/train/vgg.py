"""The convolutions of VGG19 (Simonyan 2014, arXiv 1409.1556) in plain torch, from a local file or at random.

No weights come with the package. A file holds them in torchvision's layout, `features.N.weight` and
`features.N.bias`, for RGB in 0..1 normalised by ImageNet's mean and standard deviation; `convert_npz` makes one from
the original weights. It may end early: the trunk then reaches as far as the file does.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoint import read_tensors
from ..checks import check_choice
from ..imagenet import Normalise, fill, fold_input, read_arrays, write_trunk

# Convolutions a block; the maximum over 2x2 pixels ends each block.
_BLOCKS = (2, 2, 4, 4, 4)
_WIDTHS = (64, 128, 256, 512, 512)
POOLS: dict[str, Callable[[Tensor, int], Tensor]] = {"max": F.max_pool2d, "average": F.avg_pool2d}
CAFFE_MEAN = (123.68, 116.779, 103.939)  # taken off RGB in 0..255 by the original network


def _indices() -> dict[str, int]:
    """Names of the convolutions, in order, and their places in torchvision's `features`."""
    indices, place = {}, 0
    for block, count in enumerate(_BLOCKS, 1):
        for number in range(1, count + 1):
            indices[f"conv{block}_{number}"] = place
            place += 2  # a ReLU follows
        place += 1  # and the maximum the last
    return indices


LAYERS = _indices()  # conv1_1: 0, conv1_2: 2, conv2_1: 5, …, conv5_4: 34


class VGG19(nn.Module):
    """The first convolutions of VGG19. Takes no gradient itself; lets it through to the image.

    Args:
        depth: convolutions, 1..16.
        pool: what ends a block, "max" as it was trained, or "average" (Gatys 2015, arXiv 1505.07376), which does not
            mistake a grid of two pixels for texture.

    Attributes:
        layers: their names, "conv1_1" and on.
    """

    def __init__(self, depth: int = len(LAYERS), pool: str = "max") -> None:
        super().__init__()
        check_choice(pool, "pool", list(POOLS))
        self.layers = tuple(LAYERS)[:depth]
        self.pool = pool
        widths = [width for width, count in zip(_WIDTHS, _BLOCKS, strict=True) for _ in range(count)]
        inputs = [3, *widths]
        self.convolutions = nn.ModuleList(nn.Conv2d(inputs[i], widths[i], 3, padding=1) for i in range(depth))
        self.normalise = Normalise()
        self.requires_grad_(False)

    def forward(self, image: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Features of an image.

        Args:
            image: `[B, 3, H, W]`, RGB in 0..1.
            layers: names of convolutions that the trunk has.

        Returns:
            by name, the output of the convolution before its ReLU: `[B, width, H / 2^b, W / 2^b]` in block b + 1.

        Raises:
            ValueError: a layer that the trunk does not have; an image too small for the deepest one.
        """
        unknown = [layer for layer in layers if layer not in self.layers]
        if unknown:
            raise ValueError(f"layers: expected some of {self.layers[0]}..{self.layers[-1]}, got {', '.join(unknown)}")
        last = max(self.layers.index(layer) for layer in layers)
        smallest = 2 ** (_block(self.layers[last]) - 1)
        if min(image.shape[-2:]) < smallest:
            raise ValueError(f"image: expected at least {smallest} px a side, got {tuple(image.shape)}")
        x, features = self.normalise(image), {}
        for index in range(last + 1):
            name = self.layers[index]
            if index > 0:
                x = F.relu(x)
                if _block(name) > _block(self.layers[index - 1]):
                    x = POOLS[self.pool](x, 2)
            x = self.convolutions[index](x)
            if name in layers:
                features[name] = x
        return features


def load_vgg(path: str | Path, pool: str = "max") -> VGG19:
    """The trunk of a file.

    Args:
        path: the file.
        pool: see `VGG19`.

    Raises:
        CheckpointError: unreadable, or not VGG19 in torchvision's layout; names what is wrong.
    """
    tensors, _ = read_tensors(path)
    network = VGG19(_depth(tensors), pool)
    fill(_weights(network), tensors, f"{path}: expected VGG19 as torchvision names it, features.0.weight and on")
    return network.eval()


def random_vgg(seed: int = 0, depth: int = len(LAYERS), pool: str = "max") -> VGG19:
    """A trunk with random weights, which is still a useful measure of texture (arXiv 2103.10571).

    Args:
        seed: same seed, same trunk, also for another depth.
        depth: convolutions, 1..16.
        pool: see `VGG19`.
    """
    network, generator = VGG19(depth, pool), torch.Generator().manual_seed(seed)
    for conv in network.convolutions:
        weight, bias = conv.get_parameter("weight"), conv.get_parameter("bias")
        # He 2015: features keep their size from layer to layer
        weight.copy_(torch.randn(weight.shape, generator=generator) * math.sqrt(2.0 / weight[0].numel()))
        bias.zero_()
    return network.eval()


def fingerprint(network: VGG19) -> str:
    """Eight digits that tell trunks apart."""
    digest = hashlib.sha256()
    for value in network.state_dict().values():
        digest.update(value.contiguous().numpy().data)
    return digest.hexdigest()[:8]


def convert_npz(source: str | Path, target: str | Path) -> VGG19:
    """Turns the original weights, as NumPy arrays, into a file that `load_vgg` reads.

    The original network takes 255·RGB − (123.68, 116.779, 103.939), torchvision's (RGB − mean) / std. The first
    convolution takes up the difference: its weights times 255·std, its bias plus what its weights make of
    255·mean − (123.68, 116.779, 103.939). The features are those of the original, but for the pixels at the border
    of conv1_1, which are padded with one of two greys 0.5 of 255 apart.

    Args:
        source: `.npz` with `conv1_1.weight` `[64, 3, 3, 3]` (output, RGB input, row, column), `conv1_1.bias`
            `[64]`, `conv1_2.weight` and so on; it may end with any convolution.
        target: the `.safetensors` file to write.

    Returns:
        the trunk, as it reads back from the file.

    Raises:
        CheckpointError: the source is no such file, or the target cannot be written.
    """
    source, target = Path(source), Path(target)
    names = {f"{layer}.{part}": f"features.{LAYERS[layer]}.{part}" for layer in LAYERS for part in ("weight", "bias")}
    context = f"{source}: expected VGG19's conv1_1.weight [64, 3, 3, 3], conv1_1.bias and on"
    tensors = read_arrays(source, names, context)
    weights = _weights(VGG19(_depth(tensors)))
    fill(weights, tensors, context, {name: array for array, name in names.items()})
    fold_input(weights["features.0.weight"], weights["features.0.bias"], CAFFE_MEAN)
    write_trunk(target, weights, "torchvision vgg19", source)
    return load_vgg(target)


def _depth(tensors: Mapping[str, Tensor]) -> int:
    return sum(f"features.{place}.weight" in tensors for place in LAYERS.values())


def _weights(network: VGG19) -> dict[str, Tensor]:
    """The trunk's parameters by torchvision's names."""
    return {
        f"features.{LAYERS[layer]}.{part}": value
        for layer, convolution in zip(network.layers, network.convolutions, strict=True)
        for part, value in convolution.named_parameters()
    }


def _block(layer: str) -> int:
    return int(layer[4])
