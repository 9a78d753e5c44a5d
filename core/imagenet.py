"""What the trunks of ImageNet share: the scale of their input, and the way of their weights into a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from .tensor_file import SUFFIX, CheckpointError, write_whole

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB in 0..1


class Normalise(nn.Module):
    """RGB in 0..1, `[B, 3, H, W]`, less ImageNet's mean and over its standard deviation."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        return (image - self.mean) / self.std


def fill(
    weights: Mapping[str, Tensor], found: Mapping[str, Tensor], context: str, names: Mapping[str, str] | None = None
) -> None:
    """Copies the tensors of a file into a trunk, all of them; a classifier's are left out.

    Args:
        weights: the trunk's own, by torchvision's names, to be written to.
        found: the file's, by the same names.
        context: how messages begin: the file, and what was expected of it.
        names: those of the file for the message, by torchvision's; None where they are the same.

    Raises:
        CheckpointError: the first of the tensors that is missing, unexpected or of another shape.
    """
    names = names or {}
    found = {name: value for name, value in found.items() if not name.startswith("classifier.")}
    problems = [f"{names.get(name, name)} is missing" for name in weights if name not in found]
    problems += [f"{names.get(name, name)} is unexpected" for name in found if name not in weights]
    problems += [
        f"{names.get(name, name)} is {list(found[name].shape)} in place of {list(value.shape)}"
        for name, value in weights.items()
        if name in found and found[name].shape != value.shape
    ]
    if problems or not weights:
        raise CheckpointError(f"{context}; {problems[0] if problems else 'it is empty'}")
    with torch.no_grad():
        for name, value in weights.items():
            value.copy_(found[name])


def read_arrays(path: Path, names: Mapping[str, str], context: str) -> dict[str, Tensor]:
    """The weights in a `.npz` file.

    Args:
        path: the file.
        names: torchvision's by those of the arrays; no others may be in the file.
        context: how messages begin: the file, and what was expected of it.

    Returns:
        float32 by torchvision's names.

    Raises:
        CheckpointError: unreadable, an array of another name, or one that is not of finite numbers.
    """
    tensors = {}
    for name, array in read_npz(path).items():
        if name not in names:
            raise CheckpointError(f"{context}; unknown {name}")
        if array.dtype.kind not in "fiu":
            raise CheckpointError(f"{context}; {name} is of {array.dtype}, not of numbers")
        tensors[names[name]] = torch.from_numpy(array.astype(np.float32))
        if not torch.isfinite(tensors[names[name]]).all():
            raise CheckpointError(f"{path}: NaN or infinite values in {name}")
    return tensors


@torch.no_grad()
def fold_input(weight: Tensor, bias: Tensor, taken: tuple[float, float, float]) -> None:
    """Turns a first convolution of 255·RGB − `taken` into one of what `Normalise` gives, in place.

    Its weights are multiplied by 255·std, and its bias takes up what they make of 255·mean − `taken`. The output is
    the same wherever the convolution pads nothing.

    Args:
        weight: `[N, 3, k, k]`.
        bias: `[N]`.
        taken: what the original network takes off RGB in 0..255.
    """
    mean, std, shift = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in (MEAN, STD, taken))
    bias.copy_(bias.double() + (weight.double() * (255 * mean - shift)).sum((1, 2, 3)))
    weight.copy_(weight.double() * 255 * std)


def write_trunk(target: Path, weights: Mapping[str, Tensor], layout: str, source: Path) -> None:
    """Writes weights whole or not at all.

    Args:
        target: the file, ending in .safetensors.
        weights: by torchvision's names.
        layout: what they are, for the metadata.
        source: the file that they are from; its name goes into the metadata.

    Raises:
        CheckpointError: another suffix, or the file cannot be written.
    """
    if target.suffix != SUFFIX:
        raise CheckpointError(f"{target}: expected a name ending in {SUFFIX}")
    metadata = {"layout": layout, "converted_from": source.name}
    write_whole(target, save({name: value.detach().contiguous() for name, value in weights.items()}, metadata))


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name; nothing that is pickled is opened.

    Raises:
        CheckpointError: it cannot be read, or is something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise CheckpointError(f"{path}: expected a .npz file of arrays, got a single array")
            return {name: file[name] for name in file.files}
    except CheckpointError:
        raise
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except Exception as error:  # NumPy and zipfile raise nearly everything on what is no .npz
        raise CheckpointError(f"{path}: no readable .npz file ({type(error).__name__})") from None
