"""A model's card: what its provenance says of data, training, hardware, metrics, limits and licence, in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Card = list[tuple[str, str]]


def model_card(provenance: Mapping[str, Any]) -> tuple[Card, dict[str, Any]]:
    """Turn a provenance into a card.

    Args:
        provenance: of a checkpoint, as `core.train` writes it, or written by hand: any JSON.

    Returns:
        (label, text) in the order of a card, without what is not told; and what the card does not show.
    """
    card: Card = []
    used: set[str] = set()
    for label, tell, keys in _ROWS:
        text = tell(provenance)
        if text:
            card.append((label, text))
            used.update(keys)
    return card, {key: value for key, value in provenance.items() if key not in used}


def _plain(key: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda provenance: _words(provenance.get(key))


def _words(value: Any) -> str:
    """Any JSON value in one line."""
    if value is None or value == "":
        return ""
    if isinstance(value, Mapping):
        return "; ".join(
            f"{key}: {_words(entry)}" if _nested(entry) else f"{key} {_words(entry)}" for key, entry in value.items()
        )
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_words(entry) for entry in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _nested(value: Any) -> bool:
    return isinstance(value, Mapping)


def _data(provenance: Mapping[str, Any]) -> str:
    folders, count = provenance.get("folders"), provenance.get("pictures")
    if isinstance(folders, Mapping) and folders:
        return ", ".join(f"{name} ({number} pictures)" for name, number in folders.items())
    named = _words(provenance.get("data"))
    return f"{named} ({count} pictures)" if named and isinstance(count, int) else named


def _validation(provenance: Mapping[str, Any]) -> str:
    told = provenance.get("validation")
    if isinstance(told, Mapping) and {"name", "pictures"} <= told.keys():
        return f"{told['name']} ({told['pictures']} pictures)"
    return _words(told)


def _recipe(provenance: Mapping[str, Any]) -> str:
    recipe, init = _words(provenance.get("recipe")), _words(provenance.get("init"))
    return f"{recipe}, from {init}" if recipe and init else recipe


def _steps(provenance: Mapping[str, Any]) -> str:
    steps = provenance.get("steps")
    if not isinstance(steps, int):
        return _words(steps)
    run = provenance.get("training") or provenance.get("config")
    phases = run.get("phases") if isinstance(run, Mapping) else None
    phases = phases if isinstance(phases, (list, tuple)) else ()
    parts = [phase["steps"] for phase in phases if isinstance(phase, Mapping) and isinstance(phase.get("steps"), int)]
    told = " + ".join(str(part) for part in parts)
    return f"{steps} ({told})" if len(parts) == len(phases) > 1 and sum(parts) == steps else str(steps)


def _time(provenance: Mapping[str, Any]) -> str:
    hours, seconds = provenance.get("hours"), provenance.get("seconds")
    if isinstance(hours, (int, float)):
        seconds = hours * 3600
    if not isinstance(seconds, (int, float)) or not math.isfinite(seconds):
        return _words(seconds)
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _validated(provenance: Mapping[str, Any]) -> str:
    told = provenance.get("validated")
    if not isinstance(told, Mapping):
        return _words(told)
    measure, score, steps = told.get("measure"), told.get("score"), told.get("steps")
    if measure is None or steps is None or not isinstance(score, (int, float)):
        return _words(told)
    return f"{measure} {score:.2f} on the validation pictures after {steps} steps"


# (label, how it is told, the keys that it tells)
_ROWS: tuple[tuple[str, Callable[[Mapping[str, Any]], str], tuple[str, ...]], ...] = (
    ("name", _plain("name"), ("name",)),
    ("description", _plain("description"), ("description",)),
    ("data", _data, ("data", "pictures", "folders")),
    ("licence of the data", _plain("data_licence"), ("data_licence",)),
    ("validation data", _validation, ("validation",)),
    ("recipe", _recipe, ("recipe", "init")),
    ("command", _plain("command"), ("command",)),
    ("seed", _plain("seed"), ("seed",)),
    ("steps", _steps, ("steps",)),
    ("time", _time, ("hours", "seconds")),
    ("hardware", _plain("hardware"), ("hardware",)),
    ("number format", _plain("dtype"), ("dtype",)),
    ("torch", _plain("torch"), ("torch",)),
    ("date", _plain("date"), ("date",)),
    ("validated", _validated, ("validated",)),
    ("metrics", _plain("metrics"), ("metrics",)),
    ("notes", _plain("notes"), ("notes",)),
    ("limits", _plain("limits"), ("limits",)),
    ("licence", _plain("licence"), ("licence",)),
)
