"""The lab's results, as the server tells them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from regard.lab.kept import COMMITTED
from regard.serve.app import make_app
from regard.serve.house import Settings


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(
        make_app(Settings(runs=tmp_path, home=tmp_path / "home")), base_url="http://127.0.0.1:8000"
    ) as found:
        yield found


def test_the_projects_results_are_listed_in_order(client: TestClient) -> None:
    listed = client.get("/api/lab").json()["claims"]
    there = {path.parent.name for path in COMMITTED.glob("L*/result.json")}
    assert there
    assert [one["id"] for one in listed] == sorted(there, key=lambda name: int(name[1:]))
    assert not any(one["own"] for one in listed)


def test_a_result_is_what_stands_in_its_file_without_every_seeds_numbers(client: TestClient) -> None:
    told = client.get("/api/lab/L6").json()
    kept = json.loads((COMMITTED / "L6" / "result.json").read_text(encoding="utf-8"))
    assert told.pop("own") is False
    assert "runs" in kept
    assert "runs" not in told
    assert {name: kept[name] for name in told} == told
    drawn = client.get("/api/lab/L6/figure.svg")
    assert drawn.headers["content-type"] == "image/svg+xml"
    assert drawn.content == (COMMITTED / "L6" / "figure.svg").read_bytes()


def test_what_was_measured_here_comes_first(client: TestClient, tmp_path: Path) -> None:
    result = json.loads((COMMITTED / "L6" / "result.json").read_text(encoding="utf-8"))
    (tmp_path / "lab" / "L6").mkdir(parents=True)
    own = json.dumps({**result, "verdict": "Fails: by me."})
    (tmp_path / "lab" / "L6" / "result.json").write_text(own, encoding="utf-8")
    (one,) = [one for one in client.get("/api/lab").json()["claims"] if one["id"] == "L6"]
    assert one["own"]
    assert one["verdict"] == "Fails: by me."
    assert client.get("/api/lab/L6/figure.svg").status_code == 404  # not the project's beside other numbers


@pytest.mark.parametrize(
    ("path", "status"), [("L99", 422), ("l6", 422), ("..%2FL6", 404), ("L6%00", 422), ("L0", 422)]
)
def test_no_such_claim(client: TestClient, path: str, status: int) -> None:
    answer = client.get(f"/api/lab/{path}")
    assert answer.status_code == status
    assert answer.json()["error"]


def test_a_damaged_result_is_told(client: TestClient, tmp_path: Path) -> None:
    (tmp_path / "lab" / "L6").mkdir(parents=True)
    (tmp_path / "lab" / "L6" / "result.json").write_text("{", encoding="utf-8")
    answer = client.get("/api/lab/L6")
    assert answer.status_code == 422
    assert "result.json" in answer.json()["error"]
