"""Training recipes: the JSON files beside this module; the bundled checkpoints were made by those of their names."""

from __future__ import annotations

import json
from pathlib import Path

from ..checks import check_choice
from ..config import from_dict
from .config import TrainConfig

RECIPES = Path(__file__).parent / "recipes"


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package, sorted."""
    return sorted(path.stem for path in RECIPES.glob("*.json"))


def read_recipe(name: str) -> TrainConfig:
    """The recipe of a name.

    Raises:
        ValueError: there is none of that name.
    """
    check_choice(name, "recipe", recipe_names())
    return read_config(RECIPES / f"{name}.json")


def read_config(path: str | Path) -> TrainConfig:
    """The run that a JSON file describes; what it leaves out is as in `TrainConfig`.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no JSON, or no `TrainConfig`; the message names file and key.
    """
    try:
        return from_dict(TrainConfig, json.loads(Path(path).read_text(encoding="utf-8-sig")))
    except (ValueError, TypeError) as error:  # JSON's and Unicode's errors among them
        raise ValueError(f"{path}: {error}") from None
