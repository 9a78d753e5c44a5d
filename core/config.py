"""Frozen dataclass configs to plain JSON values and back, strictly."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Config = TypeVar("Config")


def to_dict(config: Any) -> dict[str, Any]:
    """Turn a config dataclass into values that JSON can hold.

    Args:
        config: a dataclass instance; its fields may be numbers, strings, booleans, None, tuples, lists,
            mappings with string keys, and further dataclasses.

    Returns:
        A dict by field name; tuples become lists, nested dataclasses become dicts.

    Raises:
        TypeError: `config` is no dataclass instance, or a field holds something JSON cannot.
    """
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise TypeError(f"config: expected a dataclass instance, got {type(config).__name__}")
    return {f.name: _plain(getattr(config, f.name), f.name) for f in dataclasses.fields(config) if f.init}


def from_dict(cls: type[Config], data: Mapping[str, Any]) -> Config:
    """Build a config dataclass from what `to_dict` gave, refusing what does not belong.

    Args:
        cls: the dataclass; its annotations decide the types (nested dataclasses, `tuple[T, ...]`,
            fixed tuples, `list[T]`, `dict[str, T]`, `Literal`, unions and None are understood).
        data: mapping by field name; fields with a default may be missing.

    Returns:
        An instance of `cls`, validated by its own `__post_init__`.

    Raises:
        TypeError: `cls` is no dataclass.
        ValueError: an unknown or missing key, or a value of another type; the message names its path.
    """
    return _build(cls, data, cls.__name__)


def _plain(value: Any, path: str) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (tuple, list)):
        return [_plain(item, f"{path}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{path}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    raise TypeError(f"{path}: expected a value that JSON can hold, got {type(value).__name__}")


def _build(cls: type[Config], data: Any, path: str) -> Config:
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"cls: expected a dataclass, got {cls!r}")
    if not isinstance(data, Mapping):
        raise ValueError(f"{path}: expected an object with named values, got {data!r}")
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    unknown = sorted(str(key) for key in data if key not in fields)
    if unknown:
        raise ValueError(f"{path}: unknown key {', '.join(unknown)}; known are {', '.join(fields)}")
    missing = [
        name
        for name, f in fields.items()
        if name not in data and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"{path}: missing key {', '.join(missing)}")
    hints = get_type_hints(cls)
    return cls(**{key: _value(hints[key], value, f"{path}.{key}") for key, value in data.items()})


def _value(hint: Any, value: Any, path: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _union(args, value, path)
    if origin is Literal:
        if not any(value == choice and type(value) is type(choice) for choice in args):
            raise ValueError(f"{path}: expected one of {', '.join(map(repr, args))}, got {value!r}")
        return value
    if origin is tuple or hint is tuple:
        return _tuple(args, value, path)
    if origin is list or hint is list:
        items = _sequence(value, path)
        return [_value(args[0] if args else Any, item, f"{path}[{i}]") for i, item in enumerate(items)]
    if origin in (dict, Mapping) or hint in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise ValueError(f"{path}: expected an object with named values, got {value!r}")
        item_hint = args[1] if args else Any
        return {str(key): _value(item_hint, item, f"{path}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else _build(hint, value, path)
    return _scalar(hint, value, path)


def _union(args: tuple[Any, ...], value: Any, path: str) -> Any:
    if value is None and type(None) in args:
        return None
    errors: list[ValueError] = []
    for arg in args:
        if arg is type(None):
            continue
        try:
            return _value(arg, value, path)
        except ValueError as error:
            errors.append(error)
    raise errors[0]


def _tuple(args: tuple[Any, ...], value: Any, path: str) -> tuple[Any, ...]:
    items = _sequence(value, path)
    if not args:
        return tuple(items)
    if len(args) == 2 and args[1] is Ellipsis:
        args = (args[0],) * len(items)
    if len(args) != len(items):
        raise ValueError(f"{path}: expected {len(args)} values, got {len(items)}")
    return tuple(_value(arg, item, f"{path}[{i}]") for i, (arg, item) in enumerate(zip(args, items, strict=True)))


def _sequence(value: Any, path: str) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{path}: expected a list, got {value!r}")
    return list(value)


def _scalar(hint: Any, value: Any, path: str) -> Any:
    # JSON writes 1.0 and 1 alike in other tools; a bool is never meant as a number
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise ValueError(f"{path}: expected {getattr(hint, '__name__', hint)}, got {value!r}")
