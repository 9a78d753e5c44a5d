"""Help pages and translations: complete, in both languages, and in step with the schemas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import progressive_upsampling
from progressive_upsampling.nodes import NODES

LANGUAGES = ("en", "zh")


@pytest.fixture(params=NODES, ids=lambda node: node.__name__)
def schema(request: pytest.FixtureRequest) -> Any:
    return request.param.GET_SCHEMA()


def texts(root: Path, language: str, file: str) -> dict[str, Any]:
    return json.loads((root / "locales" / language / file).read_text(encoding="utf-8"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_node_has_a_help_page_that_explains_every_port(root: Path, schema: Any, language: str) -> None:
    page = root / progressive_upsampling.WEB_DIRECTORY / "docs" / schema.node_id / f"{language}.md"
    text = page.read_text(encoding="utf-8")
    names = texts(root, language, "nodeDefs.json")[schema.node_id]
    assert text.startswith(f"# {names['display_name']}\n\n{names['description']}\n")
    for port in schema.inputs:
        assert f"| `{port.id}`" in text
        assert names["inputs"][port.id]["tooltip"] in text
    for name in names["outputs"].values():
        assert f"| {name['name']} |" in text
        assert name["tooltip"] in text


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_port_is_translated_and_nothing_is_left_over(root: Path, schema: Any, language: str) -> None:
    names = texts(root, language, "nodeDefs.json")[schema.node_id]
    assert list(names["inputs"]) == [port.id for port in schema.inputs]
    assert list(names["outputs"]) == [str(i) for i in range(len(schema.outputs))]
    for name in (*names["inputs"].values(), *names["outputs"].values()):
        assert name["name"].strip()
        assert name["tooltip"].strip()


def test_english_texts_are_those_of_the_schema(root: Path, schema: Any) -> None:
    names = texts(root, "en", "nodeDefs.json")[schema.node_id]
    assert names["display_name"] == schema.display_name
    assert names["description"] == schema.description
    for port in schema.inputs:
        expected = {"name": port.display_name or port.id, "tooltip": port.tooltip}
        assert names["inputs"][port.id] == expected
    for i, port in enumerate(schema.outputs):
        assert names["outputs"][str(i)] == {"name": port.display_name, "tooltip": port.tooltip}


def test_chinese_texts_are_chinese(root: Path, schema: Any) -> None:
    names = texts(root, "zh", "nodeDefs.json")[schema.node_id]
    tooltips = [port["tooltip"] for port in (*names["inputs"].values(), *names["outputs"].values())]
    for text in (names["display_name"], names["description"], *tooltips):
        assert any("\u4e00" <= letter <= "\u9fff" for letter in text), text


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_node_is_translated_that_does_not_exist(root: Path, language: str) -> None:
    ids = {node.GET_SCHEMA().node_id for node in NODES}
    assert set(texts(root, language, "nodeDefs.json")) == ids
    help_ = root / progressive_upsampling.WEB_DIRECTORY / "docs"
    assert {path.name for path in help_.iterdir()} == ids


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_menu_is_translated(root: Path, language: str) -> None:
    known = texts(root, language, "main.json")["nodeCategories"]
    words = {word for node in NODES for word in node.GET_SCHEMA().category.split("/")}
    assert words == set(known)
