"""core.config: configs survive JSON unchanged, and nothing slips in."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Literal

import pytest

from progressive_upsampling.core.config import from_dict, to_dict


@dataclass(frozen=True)
class Inner:
    widths: tuple[int, ...] = (32, 64)
    rate: float = 0.5

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise ValueError(f"rate: expected at least 0, got {self.rate}")


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = field(default_factory=Inner)
    stages: tuple[Inner, ...] = ()
    pair: tuple[int, str] = (1, "a")
    maybe: int | None = None
    either: Inner | None = None
    mode: Literal["flat", "deep"] = "flat"
    flag: bool = False
    table: dict[str, float] = field(default_factory=dict)


FULL = Outer("x", Inner((1,), 2.0), (Inner(), Inner((), 0.0)), (7, "b"), 3, Inner((9, 9)), "deep", True, {"a": 1.5})


@pytest.mark.parametrize("config", [FULL, Outer("only required")])
def test_config_through_json_is_the_same_config(config: Outer) -> None:
    assert from_dict(Outer, json.loads(json.dumps(to_dict(config)))) == config


def test_rebuilt_config_is_hashable_where_the_original_is() -> None:
    inner = Inner((3, 4))
    assert hash(from_dict(Inner, json.loads(json.dumps(to_dict(inner))))) == hash(inner)


def test_whole_number_is_taken_as_float_and_back() -> None:
    assert from_dict(Inner, {"rate": 1}).rate == 1.0
    assert isinstance(from_dict(Inner, {"rate": 1}).rate, float)
    assert from_dict(Inner, {"widths": [2.0]}).widths == (2,)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"name": "x", "nmae": 1}, r"Outer: unknown key nmae; known are name"),
        ({}, r"Outer: missing key name"),
        ({"name": 3}, r"Outer\.name: expected str, got 3"),
        ({"name": "x", "flag": 1}, r"Outer\.flag: expected bool, got 1"),
        ({"name": "x", "maybe": True}, r"Outer\.maybe: expected int, got True"),
        ({"name": "x", "maybe": 1.5}, r"Outer\.maybe: expected int, got 1\.5"),
        ({"name": "x", "mode": "round"}, r"Outer\.mode: expected one of 'flat', 'deep', got 'round'"),
        ({"name": "x", "inner": {"rats": 1}}, r"Outer\.inner: unknown key rats"),
        ({"name": "x", "inner": 3}, r"Outer\.inner: expected an object"),
        ({"name": "x", "stages": [{}, {"rate": "a"}]}, r"Outer\.stages\[1\]\.rate: expected float, got 'a'"),
        ({"name": "x", "stages": "ab"}, r"Outer\.stages: expected a list, got 'ab'"),
        ({"name": "x", "pair": [1]}, r"Outer\.pair: expected 2 values, got 1"),
        ({"name": "x", "table": {"a": "b"}}, r"Outer\.table\.a: expected float"),
        ({"name": "x", "inner": {"rate": -1}}, r"rate: expected at least 0, got -1"),
        ([1], r"Outer: expected an object"),
    ],
)
def test_what_does_not_belong_is_refused_by_name(data: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_dict(Outer, data)


def test_only_dataclasses_and_json_values_are_taken() -> None:
    @dataclass
    class Odd:
        value: object = object()

    with pytest.raises(TypeError, match="dataclass instance"):
        to_dict({"a": 1})
    with pytest.raises(TypeError, match="value: expected a value that JSON can hold"):
        to_dict(Odd())
    with pytest.raises(TypeError, match="expected a dataclass"):
        from_dict(dict, {})
