"""Looks are taken of files and of runs, by many at once, and by those who leave."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from fastapi import FastAPI
from starlette.testclient import TestClient
from tests.serve.looking import SOURCE, TARGET, floats, kept, stream, take, told
from tests.serve.near import serving, until
from tests.tasks.small import SENTENCES, make_parts, save

import regard
from regard.serve import looks
from regard.serve.app import make_app
from regard.serve.house import Settings


def test_a_file_is_looked_at_as_its_text(client: TestClient) -> None:
    assert (
        client.put("/api/files", params={"name": "a.txt"}, content="\ufeffa dog runs".encode()).status_code
        == 200
    )
    name = take(client, "writer", file="a.txt")
    assert kept(client, name).sides["text"].text == "a dog runs"
    client.put("/api/files", params={"name": "b.txt"}, content=b"\xff\xfea")
    answer = client.post("/api/look", json={"model": "writer", "file": "b.txt"})
    assert answer.status_code == 422 and answer.json()["error"] == "'b.txt' is no text in UTF-8."
    with patch.object(looks, "_CHARACTERS", 5):
        answer = client.post("/api/look", json={"model": "writer", "file": "a.txt"})
    assert answer.status_code == 422 and "more than 5 characters" in answer.json()["error"]


def test_a_look_that_went_gives_404(app: FastAPI, client: TestClient) -> None:
    first = take(client)
    app.state.looks.looks.most = 1
    take(client)
    answer = client.get("/api/looks/meta", params={"id": first})
    assert answer.status_code == 404 and answer.json() == {
        "error": "this look is no longer kept; look again."
    }


def test_every_checkpoint_of_a_run_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\n".join(SENTENCES * 20), encoding="utf-8")
    regard.train(
        "generate", tmp_path / "text.txt", out=tmp_path / "runs" / "one", model="nano", tokenizer="char", steps=6,
        save_every=2, keep=3, batch_tokens=256, context=64, evaluate_every=100,
    )  # fmt: skip
    app = make_app(Settings(runs=tmp_path / "runs", home=tmp_path / "home"))
    with TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False) as client:
        events = stream(client, "/api/run/looks", name="one", text="a dog runs")
        assert [name for name, _ in events] == ["started", "look", "look", "look", "done"]
        found = [data for name, data in events if name == "look"]
        assert [one["step"] for one in found] == [2, 4, 6] and all(one["whole"] for one in found)
        rows = [floats(client, "row", id=one["id"], layer=0, head=0, row=5)[0] for one in found]
        assert not torch.equal(rows[0], rows[2])
        name, data = stream(client, "/api/run/looks", name="one", text="a dog runs", target="x")[-1]
        assert name == "failed" and "a target is for" in data["error"]


def test_many_questions_at_once_get_each_its_own_answer(runs: Path, tmp_path: Path) -> None:
    with serving(Settings(runs=runs, home=tmp_path / "home")) as client:
        asked: list[tuple[str, dict[str, Any]]] = []
        for text in (SOURCE, "two birds sing, a cat sleeps"):
            answer = client.post("/api/look", json={"model": "translator", "text": text, "target": TARGET})
            at = {"id": told(answer.text)[-1][1]["id"], "layer": 3}
            asked += [("row", {**at, "head": head, "row": row}) for head in (0, 1) for row in range(6)]
            region = {"row0": 0, "row1": 99, "column0": 0, "column1": 99}
            asked += [
                ("window", {**at, **region, "head": head, "cell": cell}) for head in (0, 1) for cell in (1, 2)
            ]

        def ask(number: int) -> bytes:
            what, params = asked[number % len(asked)]
            answer = client.get(f"/api/looks/{what}", params=params)
            assert answer.status_code == 200, answer.text
            return answer.content

        wanted = [ask(number) for number in range(len(asked))]
        assert len(set(wanted)) == len(asked)
        with ThreadPoolExecutor(16) as pool:
            found = list(pool.map(ask, range(10 * len(asked))))
        assert found == wanted * 10


def test_a_client_that_leaves_ends_its_look(tmp_path: Path) -> None:
    """The decoder, whose seed was chosen so that it writes no end, would go on for minutes."""
    endless = make_parts("decoder", words="bpe", position="rotary", context=100_000, seed=2)
    save(endless, tmp_path / "runs" / "endless")
    with serving(Settings(runs=tmp_path / "runs", home=tmp_path / "home")) as client:
        asked = {"model": "endless", "text": "a dog", "max_tokens": 90_000}
        with client.stream("POST", "/api/look", json=asked) as answer:
            lines = answer.iter_lines()  # what leaves its loop and is let go of closes the connection
            assert any('"done": 3' in line for line in lines)
            assert client.get("/health").json()["busy"] == 1
        until(lambda: client.get("/health").json()["busy"] == 0, 10)
