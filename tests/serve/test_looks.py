"""Looks over the wire: taken with progress, read piece by piece as the library gives them, refused in sentences."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient
from tests.serve.looking import SOURCE, TARGET, floats, kept, stream, take

import regard
from regard.serve import looks_reading
from regard.serve.house import Settings

LONG = "the animal didn't cross the street because it was too tired. " * 4


@pytest.fixture(scope="module")
def served(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Give a client whose looks are shared between tests."""
    from regard.serve.app import make_app

    app = make_app(Settings(runs=runs, home=tmp_path_factory.mktemp("home")))
    with TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def both(served: TestClient) -> str:
    return take(served)


def test_a_look_tells_how_far_it_is(served: TestClient) -> None:
    events = stream(served, "/api/look", model="translator", text=SOURCE, target=TARGET)
    assert events[0][0] == "started"
    reading = [data for name, data in events if name == "progress"]
    assert [one["done"] for one in reading] == list(range(7))  # two layers of each of three attentions
    assert {(one["total"], one["what"]) for one in reading} == {(6, "reading")}
    name, done = events[-1]
    assert name == "done" and done["whole"] and set(done["tokens"]) == {"source", "target"}
    assert done["tokens"]["source"] == len(kept(served, done["id"]).sides["source"].tokens)


def test_what_is_written_first_is_told_token_by_token(served: TestClient) -> None:
    events = stream(served, "/api/look", model="writer", text="a dog", max_tokens=5)
    writing = [data for name, data in events if name == "progress" and data["what"] == "writing"]
    assert 1 <= len(writing) <= 5 and {one["total"] for one in writing} == {5}
    translated = stream(served, "/api/look", model="translator", text=SOURCE)
    kinds = [data["what"] for name, data in translated if name == "progress"]
    assert kinds == sorted(kinds, reverse=True) and set(kinds) == {"writing", "reading"}
    assert translated[-1][1]["tokens"]["target"] >= 1


def test_a_long_layer_is_told_about_in_parts(served: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regard.nn.streaming._LONG", 16)
    events = stream(served, "/api/look", model="translator", text=SOURCE, target=TARGET)
    done = [data["done"] for name, data in events if name == "progress"]
    assert done == sorted(done) and set(range(7)) <= set(done) and len(set(done)) > 7


def test_a_whole_look_is_the_payload_of_the_library(served: TestClient, both: str) -> None:
    from regard.look.draw.payload import payload

    sent = served.get("/api/looks/payload", params={"id": both}).json()
    assert sent == json.loads(json.dumps(payload(kept(served, both), pyramids=False)))
    meta = served.get("/api/looks/meta", params={"id": both}).json()
    assert meta["sides"] == sent["sides"] and meta["title"] == SOURCE and meta["model"] == "translator"
    assert [one["name"] for one in meta["layers"]] == [one["name"] for one in sent["layers"]]
    first = meta["layers"][0]
    assert set(first) == {
        "name", "rows", "columns", "numRows", "numColumns", "heads", "hasNumbers", "error"
    }  # fmt: skip
    assert first["heads"] == [0, 1] and 0 <= first["error"] < 1e-5


def test_rows_columns_and_windows_are_the_weights(served: TestClient, both: str) -> None:
    look = kept(served, both)
    for place, layer in enumerate(look.layers.values()):
        whole = layer.weights(1, slice(None), slice(None))
        asked = {"id": both, "layer": place, "head": 1}
        row, _ = floats(served, "row", row=2, **asked)
        torch.testing.assert_close(row, whole[2])
        column, _ = floats(served, "column", column=1, **asked)
        torch.testing.assert_close(column, whole[:, 1])
        region = {"row0": 0, "row1": 10**6, "column0": 0, "column1": 10**6}
        values, headers = floats(served, "window", **region, **asked)
        assert (int(headers["x-rows"]), int(headers["x-columns"])) == layer.shape and headers[
            "x-exact"
        ] == "1"
        torch.testing.assert_close(values.view(layer.shape), whole)
        part = {"row0": 2, "row1": 6, "column0": 4, "column1": 8, "cell": 2, "kind": "max"}
        values, headers = floats(served, "window", **part, **asked)
        wanted = torch.nn.functional.max_pool2d(whole[None, 2:6, 4:8], 2)[0]
        torch.testing.assert_close(values.view(wanted.shape), wanted)


def test_the_numbers_of_a_weight_make_it(served: TestClient, both: str) -> None:
    layer = list(kept(served, both).layers.values())[3]
    asked = {"id": both, "layer": 3, "head": 1, "row": 3, "column": 2}
    found = served.get("/api/looks/numbers", params=asked).json()
    score = found["scale"] * float(torch.tensor(found["query"]) @ torch.tensor(found["key"]))
    score += found["bias"] or 0.0
    assert found["visible"] and found["softcap"] is None
    weight = float(torch.tensor(score - found["normaliser"]).exp())
    assert weight == pytest.approx(float(layer.weights(1, [3], [2])), abs=1e-5)


def test_long_windows_are_sampled_until_the_pyramid_is_there(
    served: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks_reading, "_SAMPLED", 64)
    monkeypatch.setattr(looks_reading, "_EXACT", 512)
    name = take(served, "writer", text=LONG[:230])
    layer = next(iter(kept(served, name).layers.values()))
    size = layer.shape[0]
    assert size > 32
    asked = {
        "id": name,
        "layer": 0,
        "head": 0,
        "row0": 0,
        "row1": size,
        "column0": 0,
        "column1": size,
        "cell": 8,
    }
    cells = -(-size // 8)
    for sampled in (1, 0):
        values, headers = floats(served, "window", sampled=sampled, **asked)
        assert headers["x-exact"] == "0" and len(values) == cells * cells
    events = stream(served, "/api/looks/pyramid", id=name, layer=0, head=0)
    assert [one for one, _ in events if one != "progress"] == ["started", "done"]
    assert events[-2][1] == {"done": size, "total": size}
    values, headers = floats(served, "window", sampled=0, **asked)
    assert headers["x-exact"] == "1"
    exact = layer.weights(0, slice(None), slice(None))
    wanted = torch.tensor(
        [[float(exact[i : i + 8, j : j + 8].mean()) for j in range(0, size, 8)] for i in range(0, size, 8)]
    )
    torch.testing.assert_close(values.view(wanted.shape), wanted)


def test_a_window_has_a_bounded_number_of_cells(
    served: TestClient, both: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks_reading, "WHOLE", 12)
    monkeypatch.setattr(looks_reading, "CELLS", 3)
    asked = {"id": both, "layer": 0, "head": 0, "row0": 0, "row1": 10, "column0": 0, "column1": 4}
    values, headers = floats(served, "window", **asked)
    assert (headers["x-rows"], headers["x-columns"], len(values)) == ("3", "4", 12)
    values, headers = floats(served, "window", cell=2, **asked)
    assert (headers["x-rows"], headers["x-columns"], len(values)) == ("1", "2", 2)


@pytest.mark.parametrize("cell", [2**16, 2**24])
def test_a_cell_beyond_the_matrix_costs_no_more_than_the_matrix(
    served: TestClient, both: str, cell: int
) -> None:
    kept_look = served.app.state.looks.looks.get(both)  # type: ignore[attr-defined]
    tiles = kept_look.tiles(0, 0)
    span = looks_reading.Span(tiles, (0, 10**6), (0, 10**6), cell, sampled=False)
    assert span.cost == tiles.shape[0] * tiles.shape[1] and span.cell < 2 * max(tiles.shape)
    region = {"row0": 0, "row1": 10**6, "column0": 0, "column1": 10**6, "cell": cell}
    values, headers = floats(served, "window", id=both, layer=0, head=0, **region)
    assert headers["x-exact"] == "1"
    mean = next(iter(kept(served, both).layers.values())).weights(0, slice(None), slice(None)).mean()
    torch.testing.assert_close(values, mean.view(1))


def test_who_attends_to_a_word(served: TestClient, both: str) -> None:
    look = kept(served, both)
    links = served.get("/api/looks/to", params={"id": both, "word": "animal", "top": 7}).json()["links"]
    wanted = look.to("animal", top=7)
    assert [(one["layer"], one["head"], one["from"]) for one in links] == [
        (one.layer, one.head, one.word.text) for one in wanted
    ]
    assert links[0]["weight"] == pytest.approx(wanted[0].value)
    assert links[0]["column"] == look.sides["source"].find("animal").start
    target = served.get("/api/looks/to", params={"id": both, "word": "0", "side": "target"}).json()["links"]
    assert target and {one["column"] for one in target} == {0}
    for asked in ({"word": "horse"}, {"word": "99"}, {"word": "animal", "side": "text"}, {"word": "9" * 30}):
        answer = served.get("/api/looks/to", params={"id": both, **asked})
        assert answer.status_code == 422 and answer.json()["error"].endswith((".", "?", "target"))


def test_a_word_as_long_as_a_long_text_is_refused(
    served: TestClient, both: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks_reading, "_ASKED", 10)
    answer = served.get("/api/looks/to", params={"id": both, "word": "animal"})
    assert answer.status_code == 422 and "too many for so long a text" in answer.json()["error"]


def test_roles_and_measures_are_those_of_the_library(
    served: TestClient, both: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from regard.look.measures import measure
    from regard.look.roles import roles

    found = served.get("/api/looks/roles", params={"id": both}).json()
    assert not found["sampled"]
    measured = measure(kept(served, both))
    told_roles = roles(measured)
    for one, wanted in zip(found["heads"], measured, strict=True):
        assert (one["layer"], one["head"]) == (wanted.layer, wanted.head)
        assert one["measures"]["entropy"]["value"] == wanted.values["entropy"].value
        assert [role["name"] for role in one["roles"]] == [
            role.name for role in told_roles[wanted.layer, wanted.head]
        ]
        assert all(set(role) == {"name", "score", "why", "value", "baseline", "n"} for role in one["roles"])
    monkeypatch.setattr(looks_reading, "_MEASURED", 10)
    long = take(served, "writer", text=LONG[:230])
    found = served.get("/api/looks/roles", params={"id": long}).json()
    assert found["sampled"] and {one["measures"]["entropy"]["n"] for one in found["heads"]} <= {31, 32}


@pytest.mark.parametrize("how", ["zero", "mean"])
def test_an_effect_is_that_of_the_library(served: TestClient, runs: Path, how: str) -> None:
    from regard.look.intervene import off
    from regard.look.places import mean_values
    from regard.tasks.looking import read
    from regard.tasks.looking_effects import effect

    heads = ["cross.1.0", "encoder.0.1"]
    asked = {"model": "translator", "text": SOURCE, "target": TARGET, "heads": heads, "how": how}
    found = served.post("/api/effect", json=asked | {"max_tokens": 4}).json()
    model = regard.load(runs / "translator")
    reading = read(model.parts, SOURCE, TARGET)
    means = mean_values(model, [reading], heads) if how == "mean" else None
    wanted = effect(model.parts, [reading], [off(*heads, how=how, means=means)], max_tokens=4)  # type: ignore[arg-type]
    assert found["kl"] == pytest.approx(wanted.kl) and found["kl"] > 0
    assert found["loss_after"] == pytest.approx(wanted.loss_after) and found["how"] == wanted.how
    assert found["changes"] == list(wanted.changes) and found["texts"] == [
        list(pair) for pair in wanted.texts
    ]
    assert [one["text"] for one in found["tokens"]] == [one.text for one in wanted.tokens]
    assert found["tokens"][0]["before"][0] == wanted.tokens[0].before[0]


def test_a_run_without_checkpoints_is_told_by_its_name(served: TestClient) -> None:
    told = stream(served, "/api/run/looks", name="classifier", text="a dog")
    assert told[-1] == ("failed", {"error": "classifier has kept no checkpoints."})


def test_bad_questions_get_a_sentence(served: TestClient, both: str) -> None:
    head = {"id": both, "layer": 0, "head": 0}
    region = {**head, "row0": 0, "row1": 4, "column0": 0, "column1": 4}
    asked: list[tuple[str, dict[str, Any], int]] = [
        ("meta", {"id": "unknown"}, 404),
        ("meta", {"id": "../etc"}, 422),
        ("meta", {}, 422),
        ("meta", {"id": both, "more": "1"}, 422),
        ("row", {**head, "row": -1}, 422),
        ("row", {**head, "row": 10**9}, 422),
        ("row", {**head, "row": 10**30}, 422),
        ("row", {**head, "row": "NaN"}, 422),
        ("row", {**head, "layer": 6, "row": 0}, 404),
        ("row", {**head, "head": 2, "row": 0}, 404),
        ("column", {**head, "column": 10**6}, 422),
        ("numbers", {**head, "row": 0, "column": 10**6}, 422),
        ("window", {**region, "cell": 3}, 422),
        ("window", {**region, "cell": 0}, 422),
        ("window", {**region, "cell": 2**40}, 422),
        ("window", {**region, "cell": 4, "row0": 2}, 422),
        ("window", {**region, "row1": 0}, 422),
        ("window", {**region, "column0": 10**6, "column1": 10**7}, 422),
        ("window", {**region, "kind": "sum"}, 422),
        ("window", {**region, "sampled": "perhaps"}, 422),
        ("window", {**region, "row1": "1e400"}, 422),
        ("to", {"id": both, "word": ""}, 422),
        ("to", {"id": both, "word": "animal", "top": 0}, 422),
        ("to", {"id": both, "word": "animal", "side": "above"}, 422),
        ("roles", {"id": "unknown"}, 404),
    ]
    for path, params, status in asked:
        answer = served.get(f"/api/looks/{path}", params=params)
        assert answer.status_code == status, (path, params, answer.text)
        assert list(answer.json()) == ["error"] and len(answer.json()["error"]) > 10


def test_bad_work_gets_a_sentence(served: TestClient) -> None:
    text = {"text": SOURCE}
    bodies: list[tuple[str, dict[str, Any], int]] = [
        ("look", {"model": "nobody", **text}, 404),
        ("look", {"model": "../writer", **text}, 404),
        ("look", {"model": "writer", **text, "max_tokens": 0}, 422),
        ("look", {"model": "writer", **text, "max_tokens": 1e99}, 422),
        ("look", {"model": "writer", "text": 5}, 422),
        ("look", {"model": "writer"}, 422),
        ("look", {"model": "writer", "text": ""}, 422),
        ("look", {"model": "writer", **text, "file": "a.txt"}, 422),
        ("look", {"model": "writer", "file": "a.txt"}, 404),
        ("look", {"model": "writer", "file": "../a.txt"}, 404),
        ("look", {"model": "writer", **text, "extra": 1}, 422),
        ("looks/pyramid", {"id": "unknown", "layer": 0, "head": 0}, 404),
        ("effect", {"model": "nobody", **text, "heads": ["decoder.0.0"]}, 404),
        ("effect", {"model": "writer", **text, "heads": []}, 422),
        ("effect", {"model": "writer", **text, "heads": ["decoder.9.0"]}, 422),
        ("effect", {"model": "writer", **text, "heads": ["<script>"]}, 422),
        ("effect", {"model": "writer", **text, "heads": ["decoder.0.0"], "how": "skip"}, 422),
        ("effect", {"model": "writer", "text": "", "heads": ["decoder.0.0"]}, 422),
        ("effect", {"model": "writer", **text, "target": "x", "heads": ["decoder.0.0"]}, 422),
        ("run/looks", {"name": "nobody", **text}, 404),
    ]
    for path, body, status in bodies:
        answer = served.post(f"/api/{path}", json=body)
        assert answer.status_code == status, (path, body, answer.text)
        assert list(answer.json()) == ["error"]
    failed = [
        {"model": "writer", "text": LONG * 9},
        {"model": "writer", **text, "target": "x"},
        {"model": "translator", **text, "max_tokens": 4},
        {"model": "writer", **text, "pair": "x"},
    ]
    for body in failed:
        name, data = stream(served, "/api/look", **body)[-1]
        assert name == "failed" and data["error"].endswith(".") and "\n" not in data["error"]
    name, data = stream(served, "/api/run/looks", name="writer", text=SOURCE)[-1]
    assert name == "failed" and "kept no checkpoints" in data["error"]
    nan = served.post(
        "/api/look", content=b'{"model": "writer", "text": "a", "max_tokens": NaN}',
        headers={"content-type": "application/json"},
    )  # fmt: skip
    assert nan.status_code == 422


def test_hostile_text_is_text(served: TestClient) -> None:
    hostile = "<script>alert(1)</script> \u202e & \x1b[2J"
    name = take(served, "writer", text=hostile)
    meta = served.get("/api/looks/meta", params={"id": name})
    assert meta.json()["title"] == hostile and meta.headers["content-type"] == "application/json"
    answer = served.get("/api/looks/to", params={"id": name, "word": "<b>"})
    assert answer.status_code in (200, 422) and answer.headers["content-type"] == "application/json"
