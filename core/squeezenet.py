"""The features of SqueezeNet 1.0 (Iandola 2016, arXiv 1602.07360) in plain torch, from a local file.

No weights come with the package. A file holds them in torchvision's layout of `squeezenet1_0`, `features.0.weight`,
`features.3.squeeze.weight`, `features.3.expand1x1.weight`, `features.3.expand3x3.weight`, their biases and so on, for
RGB in 0..1 normalised by ImageNet's mean and standard deviation; `convert_squeezenet` makes one from the original
weights. A classifier in the file is left out.

The original network and torchvision's are the same up to the classifier: conv1 pads nothing, and the maxima, over 3 in
steps of 2, round their size up. That is how Caffe did it, for which the original was made; the arrays do not tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checkpoint import read_tensors
from .imagenet import Normalise, fill, fold_input, read_arrays, write_trunk

CAFFE_MEAN = (123.0, 117.0, 104.0)  # taken off RGB in 0..255 by the original network
SMALLEST = 21  # px a side: conv1 leaves 8, the maxima over 3 in steps of 2 then 4, 2 and 1

# Where the features lie in torchvision's `features`: after the ReLU, at strides 2, 4 (fire2), 8 (fire5), 16 (fire9).
LAYERS = {"conv1": 1} | {f"fire{k}": place for k, place in enumerate((3, 4, 5, 7, 8, 9, 10, 12), 2)}


class SqueezeNet(nn.Module):
    """SqueezeNet 1.0 without its classifier. Takes no gradient itself; lets it through to the image."""

    def __init__(self) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.features = nn.Sequential(
            nn.Conv2d(3, 96, 7, stride=2),
            nn.ReLU(),
            _maximum(),
            Fire(96, 16, 64),
            Fire(128, 16, 64),
            Fire(128, 32, 128),
            _maximum(),
            Fire(256, 32, 128),
            Fire(256, 48, 192),
            Fire(384, 48, 192),
            Fire(384, 64, 256),
            _maximum(),
            Fire(512, 64, 256),
        )
        self.requires_grad_(False)

    def forward(self, image: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Features of an image.

        Args:
            image: `[B, 3, H, W]`, RGB in 0..1.
            layers: names of LAYERS, conv1 and fire2..fire9.

        Returns:
            by name, the output after the ReLU: `[B, width, h, w]`, width 96 for conv1, then 128, 128, 256, 256, 384,
            384, 512, 512.

        Raises:
            ValueError: a layer that there is not; an image of less than SMALLEST pixels a side.
        """
        unknown = [layer for layer in layers if layer not in LAYERS]
        if unknown:
            raise ValueError(f"layers: expected some of {', '.join(LAYERS)}, got {', '.join(unknown)}")
        if min(image.shape[-2:]) < SMALLEST:
            raise ValueError(f"image: expected at least {SMALLEST} px a side, got {tuple(image.shape)}")
        wanted = {LAYERS[layer]: layer for layer in layers}
        x, features = self.normalise(image), {}
        for place, module in enumerate(self.features):
            x = module(x)
            if place in wanted:
                features[wanted[place]] = x
            if len(features) == len(wanted):
                break
        return features


class Fire(nn.Module):
    """Section 3.1 of the paper: a 1×1 convolution to few channels, then 1×1 and 3×3 ones side by side.

    Args:
        inputs: channels that come in.
        squeezed: channels between.
        expanded: channels of each of the two; twice as many go out.
    """

    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return F.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1))


def load_squeezenet(path: str | Path) -> SqueezeNet:
    """The trunk of a file, in torchvision's layout (see above).

    Raises:
        CheckpointError: unreadable, or not SqueezeNet 1.0 in torchvision's layout; names what is wrong.
    """
    tensors, _ = read_tensors(path)
    network = SqueezeNet()
    context = f"{path}: expected SqueezeNet 1.0 as torchvision names it, features.0.weight, features.3.squeeze.weight"
    fill(dict(network.named_parameters()), tensors, f"{context} and on")
    return network.eval()


def convert_squeezenet(source: str | Path, target: str | Path) -> SqueezeNet:
    """Turns the original weights, as NumPy arrays, into a file that `load_squeezenet` reads.

    The original network takes 255·RGB − (123, 117, 104), torchvision's (RGB − mean) / std. The first convolution takes
    up the difference (see `imagenet.fold_input`); since it pads nothing, the features are those of the original.

    Args:
        source: `.npz` with `conv1.weight` `[96, 3, 7, 7]` (output, RGB input, row, column), `conv1.bias` `[96]`,
            `fire2.conv1x1_1.weight` (squeeze), `fire2.conv1x1_2.weight` and `fire2.conv3x3_2.weight` (expand), their
            biases and so on to `fire9`; `conv_final`, the classifier, may be there and is dropped.
        target: the `.safetensors` file to write.

    Returns:
        the trunk, as it reads back from the file.

    Raises:
        CheckpointError: the source is no such file, or the target cannot be written; nothing is written then.
    """
    source, target = Path(source), Path(target)
    weights, names = dict(SqueezeNet().named_parameters()), _original_names()
    context = f"{source}: expected SqueezeNet 1.0's conv1.weight [96, 3, 7, 7], fire2.conv1x1_1.weight and on"
    fill(weights, read_arrays(source, names, context), context, {name: array for array, name in names.items()})
    fold_input(weights["features.0.weight"], weights["features.0.bias"], CAFFE_MEAN)
    write_trunk(target, weights, "torchvision squeezenet1_0", source)
    return load_squeezenet(target)


def _original_names() -> dict[str, str]:
    """Torchvision's names by the original ones."""
    layers = {"conv1": "features.0", "conv_final": "classifier.1"}
    parts = {"conv1x1_1": "squeeze", "conv1x1_2": "expand1x1", "conv3x3_2": "expand3x3"}
    for fire, place in LAYERS.items():
        if fire != "conv1":
            layers |= {f"{fire}.{array}": f"features.{place}.{name}" for array, name in parts.items()}
    return {f"{array}.{part}": f"{name}.{part}" for array, name in layers.items() for part in ("weight", "bias")}


def _maximum() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)
