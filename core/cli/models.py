"""A model by name or file, whatever its kind, behind one call."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..chain import Chain
from ..checkpoint import FORMAT, CheckpointError, read_metadata, resolve
from ..cost import CHAIN_SCALE
from ..progress import OnStep
from ..resample import METHODS
from ..upsample import upsample
from ..upsamplers import Upsampler, load_upsampler


@dataclass(frozen=True)
class Model:
    """Something that enlarges pictures.

    Attributes:
        name: as the user gave it, without folder and suffix.
        method: a chain, an upsampler, or the name of an interpolation.
        scale: the factor that it is for.
        device: where it runs.
    """

    name: str
    method: Chain | Upsampler | str
    scale: float
    device: torch.device

    def stages(
        self,
        image: Tensor,
        size: tuple[int, int],
        *,
        tile: int | None = None,
        dtype: str = "auto",
        on_step: OnStep | None = None,
        every: bool = True,
        **settings: Any,
    ) -> list[Tensor]:
        """The image after every stage.

        Args:
            image: `[B, C, H, W]` in 0..1.
            size: (height, width) of the result.
            tile, dtype, on_step: as for `Chain`.
            every: whether the stages before the last are wanted; without them a large picture takes less memory.
            **settings: the other settings of a chain (seed, strength, detail, detail_mask, steps, skip); nothing else
                has them.

        Returns:
            One image a stage on the device of `image`, the last of the target size; the last alone where `every` is
            False, or the model is no chain.
        """
        with torch.inference_mode():
            if isinstance(self.method, Chain):
                settings |= {"size": size, "tile": tile, "dtype": dtype, "on_step": on_step}
                return self.method.stages_of(image, **settings) if every else [self.method(image, **settings)]
            result = upsample(image.to(self.device), size, self.method, tile=tile, dtype=dtype, on_step=on_step)
            return [result.to(image.device)]


def load_model(name_or_path: str, device: torch.device) -> Model:
    """Load a model.

    Args:
        name_or_path: an interpolation, a bundled name, or a file with a chain or an upsampler.
        device: where it is to run.

    Returns:
        The model, ready.

    Raises:
        CheckpointError: no such model, or a file of something else.
    """
    if name_or_path in METHODS:
        return Model(name_or_path, name_or_path, CHAIN_SCALE, device)
    path = resolve(name_or_path)
    kind = kind_of(path)
    if kind == "chain":
        chain = Chain.from_pretrained(path)
        return Model(Path(name_or_path).stem, chain.to(device), CHAIN_SCALE, device)
    if kind != "upsampler":
        raise CheckpointError(f"{path}: expected a chain or an upsampler, got a checkpoint of kind {kind!r}")
    network = load_upsampler(path)
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Model(Path(name_or_path).stem, network, float(network.scale), device)


def kind_of(path: Path) -> str:
    """The kind of a checkpoint; "upsampler" for a foreign file, which can be nothing else here.

    Raises:
        CheckpointError: the file cannot be read.
    """
    metadata = read_metadata(path)
    return metadata.get("kind", "") if metadata.get("format") == FORMAT else "upsampler"


def pick_device(name: str) -> torch.device:
    """The device of a `--device` option.

    Args:
        name: "auto" for CUDA where there is one and else the CPU, or torch's name of a device.

    Returns:
        A device that can be used.

    Raises:
        ValueError: not a device, or not one of this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = str(error).strip().splitlines()[0]
        raise ValueError(f"--device: {name!r} cannot be used here ({first})") from error
    if device.type == "meta":
        raise ValueError("--device: expected auto, cpu, cuda, …, got 'meta'")
    return device
