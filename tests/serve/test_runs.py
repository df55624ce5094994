from __future__ import annotations

import fcntl
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.serve.near import events, serving, until
from tests.tiny_data import write_all

import regard
from regard.serve.house import Settings
from regard.serve.process import born, send
from regard.serve.runs_started import Starter, last_lines

TINY: dict[str, Any] = {
    "width": 16, "num_heads": 2, "num_layers": 1, "precision": "fp32", "evaluate_every": 2, "save_every": 2,
    "log_every": 1, "warmup": 2,
}  # fmt: skip
ENDLESS = {
    "task": "translate",
    "data": ["pairs.en", "pairs.fr"],
    **TINY,
    "evaluate_every": 5000,
    "steps": 10**6,
}


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    (tmp_path / "data").mkdir()
    write_all(tmp_path / "data")
    made = Settings(runs=tmp_path / "runs", home=tmp_path / "runs" / ".serve", data=tmp_path / "data")
    yield made
    starter = Starter(made)
    for name in starter.alive():  # only what this test started
        started = starter.known(name)
        assert started is not None
        send(started.pid, started.birth, signal.SIGKILL)


def run(client: httpx2.Client, name: str) -> dict[str, Any]:
    answer = client.get("/api/run", params={"name": name})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def states(told: list[tuple[str, dict[str, Any]]]) -> list[str]:
    return [data["state"] for name, data in told if name == "state"]


def test_a_training_is_started_heard_and_stopped(settings: Settings) -> None:
    with serving(settings) as client:
        assert client.get("/api/runs").json()["runs"] == []
        answer = client.post("/api/runs", json=ENDLESS)
        assert answer.json() == {"name": "translate-1"}
        told = []
        was_stopped = False
        for event in events(client, "/api/run/events", name="translate-1"):
            told.append(event)
            if not was_stopped and sum(name == "stepped" for name, _ in told) == 3:
                one = run(client, "translate-1")
                assert (one["state"], one["stoppable"], one["resumable"]) == ("running", True, False)
                assert "to train on" in one["log"] and one["steps"] == 10**6
                again = client.post("/api/run/resume", json={"name": "translate-1"})
                assert again.status_code == 422 and "at work" in again.json()["error"]
                assert client.post("/api/run/stop", json={"name": "translate-1"}).status_code == 200
                was_stopped = True
        names = [name for name, _ in told]
        assert names.index("started") < names.index("stepped") and names[-1] == "ended"
        assert list(dict.fromkeys(states(told))) == ["preparing", "running", "stopped"]
        assert any(data["stopping"] for name, data in told if name == "state")
        steps = [data["step"] for name, data in told if name == "stepped"]
        assert steps == list(range(1, len(steps) + 1))
        saved = [data["step"] for name, data in told if name == "saved"]
        ended = told[-1][1]
        assert saved[-1] == steps[-1] == ended["step"] == ended["checkpoints"][-1]
        assert ended["resumable"] and ended["problem"] is None and not ended["stoppable"]
        assert run(client, "translate-1")["result"]["reason"] == "interrupted"
        early = client.post("/api/run/resume", json={"name": "translate-1", "steps": 1})
        assert early.status_code == 422 and "done already" in early.json()["error"]


@pytest.mark.slow
def test_a_training_outlives_the_server_and_goes_on_where_it_stopped(settings: Settings) -> None:
    with serving(settings) as client:
        assert client.post("/api/runs", json=ENDLESS).status_code == 200
        until(lambda: run(client, "translate-1")["step"] >= 3)
    started = Starter(settings).known("translate-1")
    assert started is not None and born(started.pid) == started.birth  # the server's end is not its end
    with serving(settings) as client:  # another server, which did not start it
        (one,) = client.get("/api/runs").json()["runs"]
        assert (one["state"], one["stoppable"]) == ("running", True)
        assert client.post("/api/run/stop", json={"name": "translate-1"}).status_code == 200
        told = list(events(client, "/api/run/events", name="translate-1"))
        steps = [data["step"] for name, data in told if name == "stepped"]
        assert steps == list(range(1, len(steps) + 1)) and told[-1][1]["state"] == "stopped"

        last = steps[-1] + 2
        assert client.post("/api/run/resume", json={"name": "translate-1", "steps": last}).status_code == 200
        told = list(events(client, "/api/run/events", name="translate-1"))
        assert [data["step"] for name, data in told if name == "stepped"][-1] == last
        found = run(client, "translate-1")
        assert (found["state"], found["step"], found["resumable"]) == ("finished", last, True)
        assert [one["step"] for one in found["curve"]] == list(range(1, last + 1))
        assert found["evaluations"][-1]["step"] == last and found["evaluations"][-1]["sample"]
        assert set(found["best"]) >= {"bleu"} and found["result"]["reason"] == "steps"
        more = client.post("/api/run/resume", json={"name": "translate-1"})
        assert more.status_code == 422 and "later one" in more.json()["error"]

        # Ended at once, it is as it was when it was saved last.
        assert client.post("/api/run/resume", json={"name": "translate-1", "steps": 10**6}).status_code == 200
        until(lambda: run(client, "translate-1")["step"] > last)
        gone = client.post("/api/run/stop", json={"name": "translate-1", "at_once": True})
        assert gone.status_code == 200
        until(lambda: run(client, "translate-1")["state"] == "stopped")
        assert run(client, "translate-1")["resumable"]


@pytest.mark.slow
def test_two_trainings_at_once_and_no_more(settings: Settings) -> None:
    with serving(settings) as client:
        for name in ("one", "two"):
            assert client.post("/api/runs", json={**ENDLESS, "name": name}).status_code == 200
        full = client.post("/api/runs", json={**ENDLESS, "name": "three"})
        assert full.status_code == 503 and int(full.headers["retry-after"]) > 0
        taken = client.post("/api/runs", json={**ENDLESS, "name": "one"})
        assert taken.status_code == 422
        for name in ("one", "two"):  # in the middle of its preparation, or of its first import
            assert client.post("/api/run/stop", json={"name": name}).status_code == 200
            assert client.post("/api/run/stop", json={"name": name}).status_code in (
                200,
                422,
            )  # it may be gone
        for name in ("one", "two"):
            until(lambda name=name: run(client, name)["state"] == "stopped")  # type: ignore[misc]
        assert client.post("/api/runs", json={**ENDLESS, "name": "one", "steps": 2}).status_code == 200
        until(lambda: run(client, "one")["state"] == "finished")
        there = client.post("/api/runs", json={**ENDLESS, "name": "one"})
        assert there.status_code == 422 and "give another name" in there.json()["error"]
        assert client.post("/api/run/stop", json={"name": "one"}).status_code == 422


def test_a_training_that_fails_says_why(settings: Settings) -> None:
    assert settings.data is not None
    (settings.data / "bad.tsv").write_text("text\tlabel\n" + "only one\tx\nand two\tx\n" * 20)
    with serving(settings) as client:
        asked = {"task": "classify", "data": ["bad.tsv"], "name": "bad", **TINY, "steps": 2}
        assert client.post("/api/runs", json=asked).status_code == 200
        told = list(events(client, "/api/run/events", name="bad"))
        assert told[-1][0] == "ended" and told[-1][1]["state"] == "failed"
        assert "every row has the label 'x'" in told[-1][1]["problem"]
        assert str(settings.data) not in json.dumps([told, run(client, "bad")])
        (one,) = client.get("/api/runs").json()["runs"]
        assert (one["name"], one["state"], one["resumable"]) == ("bad", "failed", False)
        assert client.post("/api/run/resume", json={"name": "bad"}).status_code == 422


def test_what_can_not_be_is_refused_before_anything_is_started(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    wrong: list[tuple[dict[str, Any], int]] = [
        ({"data": []}, 422), ({"data": ["../secret.txt"]}, 404), ({"data": ["/etc/passwd"]}, 404),
        ({"data": ["--json"]}, 404), ({"data": ["no.txt"]}, 404), ({"data": ["a"] * 65}, 422), ({"steps": 0}, 422),
        ({"steps": -1}, 422), ({"minutes": 1e400}, 422), ({"minutes": -1}, 422), ({"lr": 0}, 422),
        ({"name": "../up"}, 422), ({"name": "a/b"}, 422), ({"name": ".serve"}, 422), ({"name": "a\u202eb"}, 422),
        ({"name": "x" * 201}, 422), ({"preset": "gpt3"}, 422), ({"start": "no-such"}, 404), ({"task": "rm"}, 422),
        ({"unknown": 1}, 422), ({"tokenizer": "/etc"}, 422), ({"task": "demo"}, 422),
        ({"columns": ["a\0b"]}, 422), ({"columns": [""]}, 422), ({"label_separator": "\ud800"}, 422),
        ({"label_separator": "\0"}, 422), ({"seed": -1}, 422),
    ]  # fmt: skip
    with serving(settings) as client:
        usual = {"task": "generate", "data": ["text.txt"]}
        for changes, status in wrong:
            text = json.dumps({**usual, **changes})
            answer = client.post("/api/runs", content=text, headers={"content-type": "application/json"})
            assert answer.status_code == status and answer.json()["error"], (changes, answer.text)
        for path in ("/api/run/stop", "/api/run/resume"):
            assert client.post(path, json={"name": "no"}).status_code == 404
            assert client.post(path, json={"name": "../data"}).status_code == 404
        for path in ("/api/run", "/api/run/events"):
            for name in ("no", "../data", "..", ".", ".serve", "/", "a/b/c", "\0"):
                assert client.get(path, params={"name": name}).status_code in (404, 422), (path, name)
    assert not settings.runs.joinpath(".serve", "started").exists()


@pytest.mark.slow
def test_a_value_is_never_taken_for_a_flag(settings: Settings) -> None:
    assert settings.data is not None
    (settings.data / "--json.tsv").write_bytes((settings.data / "labels.tsv").read_bytes())
    with serving(settings) as client:
        asked = {
            "task": "classify", "data": ["--json.tsv"], "name": "--debug", "columns": ["text", "label"], "steps": 2,
            "label_separator": "--resume", **TINY,
        }  # fmt: skip
        assert client.post("/api/runs", json=asked).status_code == 200
        told = list(events(client, "/api/run/events", name="--debug"))
        # It was read as the separator that it is.
        assert "the separator '--resume' stands in no label" in told[-1][1]["problem"]


def test_whatever_lies_in_the_folder_nothing_breaks(settings: Settings, tmp_path: Path) -> None:
    runs = settings.runs
    assert settings.data is not None
    good = regard.train(
        "generate", settings.data / "text.txt", out=runs / "good", steps=4, **{**TINY, "device": "cpu"}
    ).path
    record = (good / "regard.json").read_text()
    broken = {
        "empty": "", "list": "[]", "deep": "[" * 100_000, "null": "null", "cut": record[:100],
        "types": json.dumps({**json.loads(record), "training": {"steps": "many"}, "result": 7}),
        "huge": '{"task": ' + "9" * 5000 + "}", "surrogate": record.replace('"generate"', '"\\ud800"', 1),
    }  # fmt: skip
    for name, text in broken.items():
        (runs / name).mkdir()
        (runs / name / "regard.json").write_text(text)
    (runs / "journal").mkdir()
    (runs / "journal" / "regard.json").write_text(record)
    (runs / "journal" / "metrics.jsonl").write_bytes(
        b'\xff\n[]\n{"kind": "train", "step": true}\n{"kind": "train", "step": 3, "loss": NaN, "lr": "x"}\n'
        b'{"kind": "valid", "step": 4, "nll": Infinity, "improved": true, "sample": 5}\n{"kind": "train", "st'
    )
    (runs / "folder").mkdir()
    (runs / "folder" / "regard.json").mkdir()
    (runs / "pipe").mkdir()
    os.mkfifo(runs / "pipe" / "metrics.jsonl")
    (runs / "killed" / ".preparing").mkdir(parents=True)
    (runs / "world-data").mkdir()
    (runs / "link").symlink_to(tmp_path)
    (runs / "inside").mkdir()
    (runs / "inside" / "regard.json").symlink_to(good / "regard.json")
    (runs / "file.txt").write_text("not a folder")
    (runs / "a\u202egpj").mkdir()
    (runs / "folds" / "fold-1").mkdir(parents=True)
    (runs / "folds" / "fold-1" / "regard.json").write_text(record)
    os.mkdir(os.fsencode(runs) + b"/bytes-\xff")
    with serving(settings) as client:
        answer = client.get("/api/runs")
        assert answer.status_code == 200
        found = {one["name"]: one for one in answer.json()["runs"]}
        assert set(found) == {
            "good", *broken, "journal", "folder", "pipe", "killed", "inside", "folds/fold-1",
        }  # fmt: skip
        failed = {name for name, one in found.items() if one["state"] == "failed"}
        assert failed == set(found) - {"good", "journal", "folds/fold-1", "surrogate", "types"}
        assert all(found[name]["problem"] for name in failed)
        assert found["null"]["problem"].startswith("null/regard.json")
        assert not any(str(tmp_path) in json.dumps([found[name], run(client, name)]) for name in found)
        assert found["good"]["state"] == "finished" and found["good"]["checkpoints"]
        assert found["good"]["metric"] in found["good"]["best"]
        assert "prepared" in found["killed"]["problem"]
        assert found["journal"]["step"] == 4
        for name in (*found, "inside"):
            one = run(client, name)
            assert one["state"] == found[name]["state"]
            told = list(events(client, "/api/run/events", name=name))
            assert told[-1][0] == "ended"
        (line,) = run(client, "journal")["curve"]
        assert line["step"] == 3 and line["loss"] is None and line["lr"] is None
        (line,) = run(client, "journal")["evaluations"]
        assert line["metrics"] == {"nll": None} and line["sample"] is None
        for name in ("link", "file.txt", "a\u202egpj"):
            assert client.get("/api/run", params={"name": name}).status_code == 404


def test_a_client_that_leaves_ends_its_tail_and_too_many_are_refused(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from regard.serve import runs as routes

    assert settings.data is not None
    path = regard.train(
        "generate", settings.data / "text.txt", out=settings.runs / "a", steps=2, **{**TINY, "device": "cpu"}
    ).path
    held = os.open(path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)  # it runs
    monkeypatch.setattr(routes, "_TAILS", 1)
    try:
        with serving(settings) as client:
            told = events(client, "/api/run/events", name="a")
            assert next(told)[0] == "state" and routes._listening == 1
            full = client.get("/api/run/events", params={"name": "a"})
            assert full.status_code == 503 and full.headers["retry-after"]
            told.close()
            until(lambda: routes._listening == 0)
            assert next(events(client, "/api/run/events", name="a"))[0] == "state"
    finally:
        os.close(held)
    until(lambda: routes._listening == 0)


def test_a_run_of_another_process_is_seen_and_left_alone(settings: Settings) -> None:
    assert settings.data is not None
    path = regard.train(
        "generate",
        settings.data / "text.txt",
        out=settings.runs / "other",
        steps=2,
        **{**TINY, "device": "cpu"},
    ).path
    held = os.open(path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        with serving(settings) as client:
            one = run(client, "other")
            assert (one["state"], one["stoppable"]) == ("running", False)
            answer = client.post("/api/run/stop", json={"name": "other"})
            assert answer.status_code == 422 and "not started from this page" in answer.json()["error"]
            assert client.post("/api/run/resume", json={"name": "other", "steps": 9}).status_code == 422
    finally:
        os.close(held)


def test_a_story_begins_anew_where_the_journal_does(settings: Settings) -> None:
    from regard.serve.runs_events import Story
    from regard.training.journal import Journal

    assert settings.data is not None
    path = regard.train(
        "generate", settings.data / "text.txt", out=settings.runs / "a", steps=4, **{**TINY, "device": "cpu"}
    ).path
    held = os.open(path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)  # it runs

    def told(blocks: list[bytes]) -> list[tuple[str, Any]]:
        lines = [block.decode().split("\n") for block in blocks]
        return [(line[0][7:], json.loads(line[1][6:]).get("step")) for line in lines]

    try:
        story = Story("a", lambda: (path, None))
        assert [step for name, step in told(story.look()) if name == "stepped"] == [1, 2, 3, 4]
        assert story.look() == []
        journal = Journal(path / "metrics.jsonl")
        with journal.path.open("a") as file:
            file.write('{"kind": "train", "step"')  # half of a line
        assert story.look() == []
        with journal.path.open("a") as file:
            file.write(': 5, "loss": 1.0}\n')
        assert told(story.look()) == [("stepped", 5)]
        journal.rewind(logged=2, evaluated=2)
        journal.add("train", 3, {"loss": 1.0})
        assert [one for one in told(story.look()) if one[0] != "saved"] == [
            ("started", None), ("stepped", 1), ("stepped", 2), ("evaluated", 2), ("stepped", 3),
        ]  # fmt: skip
        assert not story.has_ended
    finally:
        os.close(held)
    assert told(story.look())[-1][0] == "ended" and story.has_ended


def test_a_long_journal_is_thinned_but_for_its_end(tmp_path: Path) -> None:
    from regard.serve.runs_folder import curve, standing

    with (tmp_path / "metrics.jsonl").open("w") as file:
        for step in range(1, 20_002):
            file.write(json.dumps({"kind": "train", "step": step, "loss": 1.0}) + "\n")
            if step % 10 == 0:
                file.write(json.dumps({"kind": "valid", "step": step, "bleu": step, "improved": True}) + "\n")
    points, evaluations = curve(tmp_path)
    steps = [one["step"] for one in points]
    assert steps[-1] == 20_001 and steps[0] == 1
    assert 4000 <= len(steps) <= 8001 and steps == sorted(set(steps))
    assert [one["step"] for one in evaluations] == list(range(10_010, 20_001, 10))
    assert standing(tmp_path).step == 20_001 and standing(tmp_path).best == {"bleu": 20_000}
    with (tmp_path / "metrics.jsonl").open("a") as file:  # what is new is read
        file.write('{"kind": "train", "step": 30000, "elapsed": 5.5}\n{"kind": "tr')
    assert standing(tmp_path).step == 30_000 and standing(tmp_path).seconds == 5.5
    (tmp_path / "metrics.jsonl").write_text('{"kind": "train", "step": 7}\n')
    assert standing(tmp_path).step == 7 and standing(tmp_path).best == {}


def test_a_process_is_known_by_its_birth() -> None:
    own = born(os.getpid())
    assert own is not None and born(os.getpid()) == own
    assert born(2**22 + 5) is None and born(-1) is None and born(0) is None
    assert not send(os.getpid(), "another birth", signal.SIGKILL)  # we go on


def test_what_a_process_ended_with_is_known_as_soon_as_it_is_gone(settings: Settings) -> None:
    starter = Starter(settings)
    assert starter.start("quick", "generate", ["--no-such-flag"])
    until(lambda: not starter.known("quick").is_alive())  # type: ignore[union-attr]
    started = starter.known("quick")
    assert started is not None and started.code == 2 and starter.alive() == []
    assert "--no-such-flag" in (started.complaint() or "")


def test_a_log_has_nothing_that_a_terminal_obeys(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"old\n" * 10_000 + b"one\r\n\x1b[31mred\x1b[0m \x07<b>two\rthree \xff\n")
    assert last_lines(log).endswith("one\nred <b>two\nthree \ufffd")
    assert len(last_lines(log).split("\n")) <= 60
