"""The application as a whole: what every route has in common."""

from __future__ import annotations

import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.testclient import TestClient

from regard.errors import ConfigError
from regard.model import load
from regard.serve.app import make_app
from regard.serve.house import Missing, Settings, Unkept
from regard.serve.work import Busy


def routes(app: FastAPI) -> list[tuple[str, str]]:
    """List method and path of every route, from the OpenAPI document."""
    return [(method.upper(), path) for path, methods in app.openapi()["paths"].items() for method in methods]


def test_health_says_that_the_server_is_there(client: TestClient) -> None:
    answer = client.get("/health").json()
    assert answer["ok"] is True
    assert re.match(r"\d+\.\d+", answer["version"])


def test_the_models_are_listed_with_what_they_can_do(client: TestClient) -> None:
    answer = client.get("/api/models").json()
    models = {one["name"]: one for one in answer["models"]}
    assert set(models) == {"translator", "writer", "talker", "classifier"}
    assert answer["default"] in models
    assert "chat" in models["talker"]["verbs"]
    assert "chat" not in models["writer"]["verbs"]
    assert models["classifier"]["labels"] == ["good", "bad"]
    assert models["translator"]["layers"] == [
        "encoder.0", "encoder.1", "decoder.0", "cross.0", "decoder.1", "cross.1",
    ]  # fmt: skip


def test_names_of_layers_are_those_of_looks(app: FastAPI) -> None:
    for info in app.state.house.models.names():
        model = app.state.house.models.open(info.name)
        target = "a dog" if info.kind == "encoder-decoder" else None
        assert set(model.look("a dog runs", target).layers) == set(info.layers), info.name


def test_a_model_that_is_being_loaded_holds_up_nobody_who_wants_another(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, release, asked = app.state.house.models, threading.Event(), list[str]()

    def slow(place: Path, **settings: Any) -> Any:
        asked.append(place.name)
        if place.name == "writer":
            release.wait(20)
        return load(place, **settings)

    monkeypatch.setattr("regard.serve.models.load", slow)
    with ThreadPoolExecutor(3) as pool:
        twice = [pool.submit(models.open, "writer") for _ in range(2)]
        try:
            assert pool.submit(models.open, "classifier").result(20).config.kind == "encoder"
            assert not any(one.done() for one in twice)
        finally:
            release.set()
        assert twice[0].result(20) is twice[1].result(20)
    assert sorted(asked) == ["classifier", "writer"]


@pytest.mark.parametrize(
    "name", ["../models/writer", "/etc", "writer/", "./writer", "writer/..", "", "no", "wri\0ter"]
)
def test_a_model_is_found_by_its_name_and_never_by_a_path(app: FastAPI, name: str) -> None:
    with pytest.raises(Missing):
        app.state.house.models.open(name)


def test_a_link_among_the_runs_is_not_followed(tmp_path: Path, runs: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "link").symlink_to(runs / "writer")
    app = make_app(Settings(runs=tmp_path / "runs", home=tmp_path / "home"))
    assert app.state.house.models.names() == []


def test_a_folder_that_is_broken_is_not_offered(tmp_path: Path) -> None:
    broken = tmp_path / "runs" / "broken"
    broken.mkdir(parents=True)
    (broken / "config.json").write_text("{")
    (broken / "model.safetensors").write_bytes(b"nothing")
    (tmp_path / "runs" / "half" / "config.json").mkdir(parents=True)
    with TestClient(
        make_app(Settings(runs=tmp_path / "runs", home=tmp_path / "home")), base_url="http://localhost"
    ) as client:
        assert client.get("/api/models").json() == {"models": [], "default": None}


def test_a_model_is_kept_and_the_least_used_goes_first(runs: Path, tmp_path: Path) -> None:
    models = make_app(Settings(runs=runs, home=tmp_path / "home", most_models=1)).state.house.models
    writer = models.open("writer")
    assert models.open("writer") is writer
    models.open("talker")
    assert models.open("writer") is not writer


@pytest.mark.parametrize(
    ("headers", "said"),
    [({"host": "evil.example"}, "own name"), ({"origin": "http://evil.example"}, "other pages")],
)
def test_a_foreign_host_or_origin_gets_403_on_every_route(
    client: TestClient, headers: dict[str, str], said: str
) -> None:
    asked = [
        *routes(client.app),
        ("GET", "/"),
        ("GET", "/openapi.json"),
        ("GET", "/assets/x.js"),
        ("POST", "/nope"),
    ]  # type: ignore[arg-type]
    assert len(asked) > 12
    for method, path in asked:
        answer = client.request(method, path, headers=headers)
        assert answer.status_code == 403, (method, path)
        assert said in answer.json()["error"]


def test_every_route_is_in_the_document_and_every_body_forbids_what_it_does_not_know(app: FastAPI) -> None:
    document = app.openapi()
    listed = {
        (route.path, method)
        for route in app.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    }
    assert {(path, method) for method, path in routes(app)} >= listed
    for path, methods in document["paths"].items():
        for method, one in methods.items():
            body = one.get("requestBody", {}).get("content", {}).get("application/json")
            if body:
                name = body["schema"]["$ref"].rsplit("/", 1)[1]
                assert document["components"]["schemas"][name]["additionalProperties"] is False, (
                    method,
                    path,
                )


def test_what_is_wrong_with_a_body_is_said_in_one_sentence_without_the_body(client: TestClient) -> None:
    answer = client.post("/api/views", json={"title": "t", "place": "p", "secret": "hunter2"})
    assert answer.status_code == 422
    assert answer.json() == {"error": "secret: Extra inputs are not permitted"}
    assert (
        client.post("/api/views", content=b"{", headers={"content-type": "application/json"}).status_code
        == 422
    )
    assert client.post("/api/views", content=b"\xff").status_code == 422
    assert client.put("/api/settings", content=b'{"alternatives": NaN}').status_code == 422
    assert client.post("/api/views", json={"title": "", "place": "p"}).status_code == 422
    assert client.post("/api/views", json={"title": "x" * 3000, "place": "p"}).status_code == 422


def test_a_body_of_100_mb_is_refused_before_it_is_read(client: TestClient) -> None:
    answer = client.post("/api/views", content=b"", headers={"content-length": str(100 * 2**20)})
    assert answer.status_code == 413


def test_history_views_and_settings_are_kept(client: TestClient) -> None:
    number = client.post("/api/history", json={"kind": "look", "title": "<b>", "place": "/explore"}).json()[
        "id"
    ]
    (line,) = client.get("/api/history", params={"kind": "look"}).json()["items"]
    assert (line["id"], line["title"]) == (number, "<b>")
    assert client.delete("/api/history", params={"id": number}).json() == {"removed": 1}
    assert client.delete("/api/history", params={"id": number}).status_code == 404
    assert client.delete("/api/history").json() == {"removed": 0}
    assert client.put("/api/settings", json={"language": "de"}).json() == {"language": "de"}
    assert client.put("/api/settings", json={"theme": "dark"}).json() == {"language": "de", "theme": "dark"}
    assert client.put("/api/settings", json={"language": None}).json() == {"theme": "dark"}
    client.post("/api/views", json={"title": "one", "place": "/a"})
    assert [one["title"] for one in client.get("/api/views").json()["items"]] == ["one"]


def test_what_fails_inside_is_told_without_its_insides(app: FastAPI) -> None:
    async def broken() -> Any:
        raise RuntimeError("/home/secret/path")

    async def refused() -> Any:
        raise ConfigError("there is no\nlayer 9.")

    app.router.routes.insert(0, APIRoute("/broken", broken))
    app.router.routes.insert(0, APIRoute("/refused", refused))
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        answer = client.get("/broken")
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert client.get("/refused").json() == {"error": "there is no layer 9."}


def test_a_page_that_was_not_built_says_how(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("regard.serve.app.page_folder", lambda: tmp_path)
    with TestClient(make_app(client.app.state.house.settings), base_url="http://localhost") as other:  # type: ignore[attr-defined]
        answer = other.get("/")
        assert answer.status_code == 503
        assert "make web" in answer.json()["error"]
        (tmp_path / "index.html").write_text("<!doctype html>ok")
        assert other.get("/").text == "<!doctype html>ok"
        assert other.get("/../secret").status_code == 404
        assert other.get("/%2e%2e/secret").status_code == 404


def test_the_document_can_be_read_by_programs(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert document["info"]["title"] == "Regard"
    assert json.dumps(document).isascii()
    assert client.get("/docs").status_code in (404, 503)  # whose scripts would come from elsewhere


def test_while_the_store_is_held_up_others_are_answered(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regard.serve.store._PATIENCE", 20.0)
    store = client.app.state.house.store  # type: ignore[attr-defined]
    with ThreadPoolExecutor(1) as pool:
        with store._lock:
            waiting = pool.submit(client.get, "/api/history")
            time.sleep(0.1)
            assert client.get("/health").status_code == 200
            assert not waiting.done()
        assert waiting.result(20).json() == {"items": []}


@pytest.mark.parametrize(("error", "status"), [(Busy(), 503), (Unkept("the disk is full."), 507)])
def test_what_the_store_can_not_do_is_told(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    def fails(*given: Any, **named: Any) -> Any:
        raise error

    monkeypatch.setattr("regard.serve.store.Store.views", fails)
    answer = client.get("/api/views")
    assert answer.status_code == status
    assert ("retry-after" in answer.headers) is (status == 503)
    assert answer.json()["error"].endswith(".")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"[" * 200_000, "too deep"),
        (b'{"title": ' + b"9" * 5000 + b"}", "too many digits"),
        (b'{"title": "\xff"}', "UTF-8"),
    ],
)
def test_a_body_that_python_can_not_read_is_a_sentence(client: TestClient, body: bytes, said: str) -> None:
    answer = client.post("/api/views", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, said in answer.json()["error"]) == (422, True)


def test_a_body_that_turns_out_too_large_is_413(runs: Path, tmp_path: Path) -> None:
    app = make_app(Settings(runs=runs, home=tmp_path / "home"))
    for one in app.user_middleware:
        one.kwargs["most_body"] = 100
    with TestClient(app, base_url="http://localhost") as client:
        parts = iter([b'{"title": "', b"x" * 200, b'"}'])
        answer = client.post("/api/views", content=parts, headers={"content-type": "application/json"})
        assert answer.status_code == 413
        assert "larger than 100 bytes" in answer.json()["error"]
