"""What ComfyUI's own nodes in the workflows compute, for running them without a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def batch(image1: Tensor, image2: Tensor) -> Tensor:
    """ImageBatch, of images of one size."""
    return torch.cat([image1, image2])


def crop(image: Tensor, width: int, height: int, x: int, y: int) -> Tensor:
    """ImageCrop, held inside the image."""
    x, y = min(x, image.shape[2] - 1), min(y, image.shape[1] - 1)
    return image[:, y : y + height, x : x + width]


def solid(value: float, width: int, height: int) -> Tensor:
    """SolidMask."""
    return torch.full((1, height, width), value)


def feather(mask: Tensor, left: int, top: int, right: int, bottom: int) -> Tensor:
    """FeatherMask: linear ramps at the borders."""
    _, H, W = mask.shape
    across = ((torch.arange(W) + 1) / left).clamp(max=1) * ((W - torch.arange(W)) / right).clamp(max=1)
    down = ((torch.arange(H) + 1) / top).clamp(max=1) * ((H - torch.arange(H)) / bottom).clamp(max=1)
    return mask * across * down[:, None]


def add(destination: Tensor, source: Tensor, x: int, y: int, operation: str) -> Tensor:
    """MaskComposite by addition, of a source that lies inside the destination."""
    assert operation == "add"
    result = destination.clone()
    result[:, y : y + source.shape[1], x : x + source.shape[2]] += source
    return result.clamp(0, 1)


def show(**inputs: Any) -> Any:
    """What a preview is given."""
    return next(iter(inputs.values()))


CORE: dict[str, Callable[..., Any]] = {
    "ImageBatch": batch,
    "ImageCrop": crop,
    "SolidMask": solid,
    "FeatherMask": feather,
    "MaskComposite": add,
    "MaskPreview": show,
    "PreviewImage": show,
    "SaveImage": lambda images, filename_prefix: images,
}
