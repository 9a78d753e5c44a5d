"""Stand-in for the previews a node can show."""

from __future__ import annotations

import os
import uuid
from typing import Any

import folder_paths
import numpy as np
from PIL import Image
from torch import Tensor


class PreviewImage:
    """Saves a batch of pictures for the front end to show on the node."""

    def __init__(self, image: Tensor, animated: bool = False, cls: Any = None) -> None:
        self.values: list[dict[str, str]] = []
        for picture in image:
            name = f"preview_{uuid.uuid4().hex}.png"
            pixels = (picture.cpu().numpy() * 255.0).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(os.path.join(folder_paths.get_temp_directory(), name))
            self.values.append({"filename": name, "subfolder": "", "type": "temp"})
        self.animated = animated

    def as_dict(self) -> dict[str, Any]:
        """What is sent to the front end."""
        return {"images": self.values, "animated": (self.animated,)}


class PreviewMask(PreviewImage):
    """The same for a MASK."""

    def __init__(self, mask: Tensor, animated: bool = False, cls: Any = None) -> None:
        picture = mask.reshape(-1, mask.shape[-2], mask.shape[-1], 1).expand(-1, -1, -1, 3)
        super().__init__(picture, animated, cls)


class PreviewText:
    """Text for the front end to show on the node."""

    def __init__(self, value: str) -> None:
        self.value = value

    def as_dict(self) -> dict[str, Any]:
        """What is sent to the front end."""
        return {"text": (self.value,)}
