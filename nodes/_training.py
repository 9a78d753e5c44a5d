"""What the training nodes hand to each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from comfy_api.latest import io

from ..core.train.adversarial import AdversarialConfig
from ..core.train.config import LossConfig
from ..core.train.data_config import DataConfig
from ..core.train.picture_sets import open_pictures
from ..core.train.pictures import PictureBatch, Pictures
from ._inputs import CATEGORY

TRAINING = f"{CATEGORY}/training"
Data = io.Custom("PU_TRAINING_DATA")
Losses = io.Custom("PU_TRAINING_LOSSES")

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class TrainingPictures:
    """Where the pictures of a run come from.

    Attributes:
        source: a folder, or images.
        validation: folder of the validation pictures; None holds back a share of the source.
        share: of the source, 0..0.5.
        config: how pictures become crops.
    """

    source: Path | PictureBatch
    validation: Path | None = None
    share: float = 0.0
    config: DataConfig = field(default_factory=DataConfig)

    def open(self, side: int = 0) -> tuple[Pictures, Pictures | None]:
        """Training pictures, and validation pictures if there are any.

        Args:
            side: pixels that the short side of a picture must have to be held back.

        Opened anew each time, so that decoded pictures are given back with the run that they were decoded for.

        Raises:
            ValueError: no readable picture, or none to train on; names the input.
        """
        return open_pictures(
            self.source,
            self.validation,
            share=self.share,
            memory=self.config.memory,
            side=side,
            arguments=("images" if isinstance(self.source, PictureBatch) else "folder", "validation_folder"),
        )


@dataclass(frozen=True)
class LossTerms:
    """What a run minimises; the defaults are those of the node.

    Attributes:
        loss: weights of the terms.
        adversarial: the discriminator.
        vgg: file of VGG19's weights; None takes random ones.
        start: where a discriminator takes part, the part of the steps before it does, 0 up to below 1.
    """

    loss: LossConfig = field(default_factory=LossConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    vgg: str | None = None
    start: float = 0.25


def expect(value: object, kind: type[T], argument: str, node: str) -> T:
    """The value, of that type.

    Raises:
        TypeError: something else is connected.
    """
    if not isinstance(value, kind):
        raise TypeError(f"{argument}: expected the output of {node}, got {type(value).__name__}")
    return value
