"""A look as a file: the same weights in every format, nothing that a spreadsheet or a browser would run."""

from __future__ import annotations

import csv
import io
import json
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import torch
from fastapi import FastAPI
from starlette.testclient import TestClient
from tests.look.pictures import hostile_look, look_at

from regard.errors import ConfigError, DependencyError
from regard.look.draw.html import component
from regard.look.reading import Look
from regard.look.sides import Side
from regard.serve import looks_export
from regard.serve.house import Missing
from regard.serve.looks_export import Export, check_table, csv_parts, drawn, file_name, json_parts, safe_cell
from regard.serve.looks_store import Kept, Room

FORMULAS = ("=1+1", "+cmd|' /C calc'!A0", "-2", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1", 'a"b,c', "plain")


def kept(kind: Any = "decoder") -> Kept:
    return Kept(look_at(kind), whole=True)


def named(look: Look, names: tuple[str, ...]) -> Look:
    """Give the tokens of a look other names."""
    from dataclasses import replace

    def other(side: Side) -> Side:
        tokens = tuple(replace(token, text=names[k % len(names)]) for k, token in enumerate(side.tokens))
        return replace(side, tokens=tokens)

    return Look({name: other(side) for name, side in look.sides.items()}, look.layers, "=model")


@pytest.mark.parametrize(("kind", "name"), [("decoder", "decoder.1"), ("encoder-decoder", "cross.0")])
def test_a_table_has_a_line_for_every_weight_that_may_be(
    kind: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks_export, "_AT_ONCE", 20)
    look = look_at(kind)
    layer = look.layers[name]
    parts = list(csv_parts(look, layer, 1))
    assert len(parts) > 2
    lines = list(csv.DictReader(io.StringIO(b"".join(parts).decode(), newline="")))
    assert len(lines) == int((layer.spans[:, 1] - layer.spans[:, 0]).sum())
    found = torch.zeros(layer.shape)
    for line in lines:
        assert (line["layer"], line["head"]) == (name, "1")
        found[int(line["row"]), int(line["column"])] = float(line["weight"])
        assert line["row token"] == safe_cell(look.rows_of(name).tokens[int(line["row"])].text)
    torch.testing.assert_close(found, layer.weights(1, slice(None), slice(None)))


def test_no_cell_is_a_formula() -> None:
    look = named(look_at("decoder"), FORMULAS)
    text = b"".join(csv_parts(look, look.layers["decoder.0"], 0)).decode()
    cells = [cell for line in csv.reader(io.StringIO(text, newline="")) for cell in line]
    assert not [cell for cell in cells if cell.lstrip()[:1] in ("=", "+", "-", "@", "＝")]
    assert {safe_cell(name) for name in FORMULAS} <= set(cells)
    assert safe_cell("plain") == "plain" and safe_cell('a"b,c') == 'a"b,c' and safe_cell("") == ""


@pytest.mark.parametrize("kind", ["encoder", "decoder", "encoder-decoder"])
def test_json_has_layers_tokens_and_the_weights_of_a_head(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks_export, "_AT_ONCE", 20)
    look = look_at(kind)
    layer = list(look.layers.values())[-1]
    found = json.loads(b"".join(json_parts(look, layer, 0)))
    assert [one["name"] for one in found["layers"]] == list(look.layers)
    assert [one["text"] for one in found["sides"][look.rows_of(layer.name).name]["tokens"]] == [
        token.text for token in look.rows_of(layer.name).tokens
    ]
    assert (found["layer"], found["head"]) == (layer.name, 0) and found["error"] < 1e-5
    weights = layer.weights(0, slice(None), slice(None))
    torch.testing.assert_close(torch.tensor(found["weights"]), weights)
    assert "weights" not in json.loads(b"".join(json_parts(look, None, None)))


def test_hostile_words_are_written_whole_in_json_and_csv() -> None:
    look = hostile_look()
    layer = look.layers["encoder.0"]
    found = json.loads(b"".join(json_parts(look, layer, 0)))
    assert [one["text"] for one in found["sides"]["source"]["tokens"]] == [
        token.text for token in look.sides["source"].tokens
    ]
    text = b"".join(csv_parts(look, layer, 0)).decode()  # half of a character becomes a question mark
    assert "<script>alert(1)</script>" in text and "?" in text


def test_a_table_that_would_be_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks_export, "_MOST_ROWS", 10)
    with pytest.raises(ConfigError, match="a file holds 10 at most"):
        check_table(look_at("decoder").layers["decoder.0"])


VIEWS: list[dict[str, Any]] = [
    {}, {"view": "overview", "words": True, "hide": ("special",)}, {"layer": 1}, {"layer": 1, "view": "heads"},
    {"layer": 0, "head": 1}, {"layer": 0, "view": "matrix", "renormalise": True, "hide": ("first",)},
    {"layer": 0, "head": 1, "view": "arcs", "row": 3}, {"layer": 0, "view": "arcs"},
    {"layer": 1, "head": 0, "view": "alignment", "row": 2, "words": True},
    {"layer": 0, "head": 1, "view": "numbers", "row": 3, "column": 1}, {"layer": 0, "head": 1, "view": "map"},
]  # fmt: skip


@pytest.mark.parametrize("asked", VIEWS)
def test_every_view_is_drawn_as_svg(asked: dict[str, Any]) -> None:
    light, dark = (drawn(kept(), Export("svg", dark=dark, **asked)) for dark in (False, True))
    assert light != dark
    for made in (light, dark):
        assert ET.fromstring(made).tag == "{http://www.w3.org/2000/svg}svg"


def test_the_other_formats_are_what_they_say() -> None:
    assert drawn(kept(), Export("png", 0, 1)).startswith(b"\x89PNG\r\n\x1a\n")
    hostile = drawn(Kept(hostile_look(), whole=True), Export("svg", 0, 0))
    assert b"<script" not in hostile
    assert file_name(kept(), Export("csv", 1, 0)) == "attention-decoder.1-0.csv"
    assert file_name(kept(), Export("svg")) == "attention.svg"


def test_a_page_holds_the_whole_or_what_was_chosen() -> None:
    try:
        component()
    except DependencyError:
        pytest.skip("needs the component: make web")
    whole = drawn(kept("encoder-decoder"), Export("html")).decode()
    part = drawn(kept("encoder-decoder"), Export("html", 3, 1)).decode()
    assert '"name":"cross.1"' in whole and len(part) < len(whole)
    assert '"name":"cross.0"' in part and '"heads":[1]' in part and '"name":"cross.1"' not in part


def test_a_long_text_is_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks_export, "_MOST_DRAWN", 100)
    monkeypatch.setattr(looks_export, "_MOST_PAGE", 100)
    for asked, match in (
        (Export("svg"), "choose a layer"), (Export("svg", 0), "choose a head"), (Export("html"), "choose a layer"),
        (Export("html", 0), "choose a head"), (Export("html", 0, 0), "shorter text"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=match):
            drawn(kept(), asked)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"format": "svg", "head": 0}, "give the layer"), ({"format": "csv"}, "of one head"),
    ({"format": "json", "layer": 0}, "of one head"), ({"format": "csv", "layer": 0, "head": 0, "dark": True}, "dark"),
    ({"format": "html", "view": "arcs"}, "view is for svg"), ({"format": "svg", "layer": 0, "row": 1}, "a row is for"),
    ({"format": "svg", "layer": 0, "view": "arcs", "column": 1}, "a column is for"),
    ({"format": "svg", "layer": 0, "view": "overview"}, "overview is of every layer"),
    ({"format": "svg", "layer": 0, "head": 0, "view": "heads"}, "heads side by side"),
    ({"format": "svg", "view": "arcs"}, "of one layer"), ({"format": "svg", "layer": 0, "view": "map"}, "of one head"),
    ({"format": "svg", "layer": 0, "head": 0, "view": "numbers", "words": True}, "every weight as it is"),
    ({"format": "svg", "layer": 0, "head": 0, "view": "numbers", "row": 999}, "no row 999"),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "match"), WRONG)
def test_what_would_be_ignored_is_refused(asked: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        drawn(kept(), Export(**asked))
    with pytest.raises(Missing):
        drawn(kept(), Export("svg", 9))


def test_files_come_over_the_wire(app: FastAPI, client: TestClient) -> None:
    app.state.looks = Room()
    look = look_at("encoder-decoder")
    name = app.state.looks.looks.add(look)
    kinds = {
        "svg": "image/svg+xml", "png": "image/png", "json": "application/json", "csv": "text/csv; charset=utf-8",
    }  # fmt: skip
    for kind, media in kinds.items():
        answer = client.get("/api/looks/export", params={"id": name, "format": kind, "layer": 3, "head": 1})
        assert answer.status_code == 200 and answer.headers["content-type"] == media
        said = answer.headers["content-disposition"]
        assert said == f'attachment; filename="attention-cross.0-1.{kind}"'
        if kind == "csv":
            assert answer.content == b"".join(csv_parts(look, look.layers["cross.0"], 1))
        if kind == "json":
            assert answer.json()["layer"] == "cross.0"
    picture = {
        "id": name,
        "format": "svg",
        "layer": 3,
        "view": "alignment",
        "words": 1,
        "hide_special": 1,
        "dark": 1,
    }
    answer = client.get("/api/looks/export", params=picture)
    wanted = Export("svg", 3, None, "alignment", words=True, hide=("special",), dark=True)
    assert answer.content == drawn(Kept(look, whole=True), wanted)
    for wrong, status in (
        ({"format": "pdf"}, 422), ({"format": "csv"}, 422), ({"format": "csv", "layer": 99, "head": 0}, 404),
        ({"format": "svg", "layer": -1}, 422), ({"format": "svg", "view": "pie"}, 422), ({"id": "gone"}, 404),
    ):  # fmt: skip
        params = {"id": name, "format": "svg", **wrong}
        answer = client.get("/api/looks/export", params=params)  # type: ignore[arg-type]
        assert answer.status_code == status and list(answer.json()) == ["error"], (wrong, answer.text)


def test_a_table_that_is_too_long_is_refused_before_it_begins(
    app: FastAPI, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks_export, "_MOST_ROWS", 10)
    app.state.looks = Room()
    name = app.state.looks.looks.add(look_at("decoder"))
    answer = client.get("/api/looks/export", params={"id": name, "format": "csv", "layer": 0, "head": 1})
    assert answer.status_code == 422 and "shorter text" in answer.json()["error"]
