from __future__ import annotations

import inspect

import pytest

from progressive_upsampling import core


@pytest.mark.parametrize("name", core.__all__)
def test_every_public_name_exists_and_is_described(name: str) -> None:
    value = getattr(core, name)
    assert callable(value)
    assert value.__module__.startswith(f"{core.__name__}.")
    own = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    # A dataclass without a docstring gets its signature for one.
    assert own and not own.startswith(f"{name}(")


def test_every_public_name_is_given_once() -> None:
    assert len(set(core.__all__)) == len(core.__all__)


def test_public_methods_of_public_classes_are_described() -> None:
    missing = [
        f"{name}.{method}"
        for name in core.__all__
        if inspect.isclass(value := getattr(core, name))
        for method, function in vars(value).items()
        if inspect.isfunction(function) and not method.startswith("_") and method != "forward" and not function.__doc__
    ]
    assert missing == []
