"""What the page remembers."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from regard.errors import DataError
from regard.serve.house import Unkept
from regard.serve.store import Store
from regard.serve.work import Busy


def test_history_comes_newest_first_and_the_same_again_moves_up(tmp_path: Path) -> None:
    store = Store(tmp_path / "page.sqlite")
    store.add_history("look", "one", "/explore?text=one")
    store.add_history("write", "two", "/translate?text=two")
    store.add_history("look", "one", "/explore?text=one")
    assert [line["title"] for line in store.history()] == ["one", "two"]
    assert [line["title"] for line in store.history(kind="write")] == ["two"]
    assert len(store.history(limit=1)) == 1


def test_what_is_kept_is_there_after_the_server_was_started_again(tmp_path: Path) -> None:
    first = Store(tmp_path / "page.sqlite")
    number = first.add_view("the pronoun <b>", "/explore?text=it")
    first.set({"theme": "dark", "language": "de"})
    first.set({"language": None})
    first.close()
    second = Store(tmp_path / "page.sqlite")
    (view,) = second.views()
    assert (view["id"], view["title"], view["place"]) == (number, "the pronoun <b>", "/explore?text=it")
    assert second.settings() == {"theme": "dark"}
    assert second.remove_view(number) == 1
    assert second.remove_view(number) == 0
    assert second.views() == []


def test_a_server_that_was_killed_leaves_what_was_written(tmp_path: Path) -> None:
    store = Store(tmp_path / "page.sqlite")
    store.add_view("kept", "/explore")
    # Never closed: a second connection must see it, and the journal is one that survives a kill.
    base = sqlite3.connect(tmp_path / "page.sqlite")
    assert base.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert base.execute("SELECT title FROM views").fetchall() == [("kept",)]
    base.close()


def test_many_threads_lose_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "page.sqlite")

    def add(first: int) -> None:
        for k in range(50):
            store.add_history("look", f"{first + k}", f"/explore?text={first + k}")

    threads = [threading.Thread(target=add, args=(100 * k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({line["title"] for line in store.history(limit=1000)}) == 200


def test_history_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regard.serve.store._KEPT", 10)
    store = Store(tmp_path / "page.sqlite")
    for k in range(25):
        store.add_history("look", str(k), f"/{k}")
    assert [line["title"] for line in store.history()] == [str(k) for k in range(24, 14, -1)]


@pytest.mark.parametrize("content", [b"no data base at all, but long enough to look like one" * 20, None])
def test_a_file_that_is_none_of_ours_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "page.sqlite"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"page\.sqlite"):
        Store(path)


def test_a_file_of_a_newer_regard_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "page.sqlite"
    base = sqlite3.connect(path)
    base.execute("PRAGMA user_version=99")
    base.close()
    with pytest.raises(DataError, match="newer Regard"):
        Store(path)


def test_a_file_that_another_has_locked_is_busy_and_nothing_is_half_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regard.serve.store._PATIENCE", 0.05)
    store = Store(tmp_path / "page.sqlite")
    store.add_history("look", "one", "/explore")
    other = sqlite3.connect(tmp_path / "page.sqlite", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(Busy):
        store.add_history("look", "two", "/explore")
    other.execute("ROLLBACK")
    other.close()
    assert [line["title"] for line in store.history()] == ["one"]
    with store._lock, pytest.raises(Busy):  # a thread that has it for long
        store.history()
    assert store.add_history("look", "two", "/explore") > 0


@pytest.mark.parametrize(
    ("pragma", "said"), [("query_only=1", "only be read"), ("max_page_count=1", "disk is full")]
)
def test_what_can_not_be_kept_is_a_sentence_and_nothing_is_lost(
    tmp_path: Path, pragma: str, said: str
) -> None:
    store = Store(tmp_path / "page.sqlite")
    store.add_view("one", "/explore")
    store._base.execute(f"PRAGMA {pragma}")
    with pytest.raises(Unkept, match=said):
        store.add_view("x" * 100_000, "/explore")
    assert [view["title"] for view in store.views()] == ["one"]


def test_a_file_that_is_damaged_later_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "page.sqlite"
    Store(path).close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    with pytest.raises(Unkept, match="damaged"):
        Store(path).views()
