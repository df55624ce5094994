"""What the page remembers: history, saved views and settings, in one file of SQLite."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from regard.errors import DataError
from regard.serve.house import Unkept
from regard.serve.work import Busy

__all__ = ["Store"]

_VERSION = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS history (id INTEGER PRIMARY KEY, time REAL NOT NULL, kind TEXT NOT NULL, title TEXT NOT NULL,
                                    place TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS views (id INTEGER PRIMARY KEY, time REAL NOT NULL, title TEXT NOT NULL, place TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_KEPT = 1000  # lines of history, and views
_PATIENCE = 2.0  # seconds to wait for another thread, and for another process that writes
_WHY = {
    "readonly": "its file may only be read; make it writable.",
    "full": "the disk is full; make room.",
    "malformed": "its file is damaged; move it away and start again.",
}
"""What SQLite says, and what is to be done."""


class Store:
    """Keep a file of SQLite, with a journal that readers needn't wait for (WAL).

    Args:
        path: the file; it is made where there is none.

    Every method raises Busy where the file is locked for long, and Unkept where it can't be read or written.

    Raises:
        DataError: it can't be opened, is no such file, or of a newer Regard.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(
                path, check_same_thread=False, isolation_level=None, timeout=_PATIENCE
            )
            self._base.row_factory = sqlite3.Row
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.execute("PRAGMA synchronous=NORMAL")
            version = self._base.execute("PRAGMA user_version").fetchone()[0]
            if version > _VERSION:
                raise DataError(f"{path} was written by a newer Regard; use that, or another --home.")
            self._base.executescript(_TABLES)
            self._base.execute(f"PRAGMA user_version={_VERSION}")
        except (sqlite3.Error, OSError) as error:
            raise DataError(f"{path} can't be used to keep history and settings ({error}).") from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._base.close()

    def add_history(self, kind: str, title: str, place: str) -> int:
        """Note something that was done, and give its number; the same again moves to the top."""
        with self._using(change=True) as base:
            base.execute("DELETE FROM history WHERE kind = ? AND place = ?", (kind, place))
            return _add(base, "history", kind=kind, title=title, place=place)

    def history(self, *, kind: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """List what was done, the newest first."""
        where, values = ("WHERE kind = ?", [kind]) if kind else ("", [])
        fields = "id, time AS 'when', kind, title, place"
        query = f"SELECT {fields} FROM history {where} ORDER BY time DESC, id DESC LIMIT ?"
        with self._using() as base:
            return [dict(row) for row in base.execute(query, [*values, limit])]

    def add_view(self, title: str, place: str) -> int:
        """Save a view, and give its number."""
        with self._using(change=True) as base:
            return _add(base, "views", title=title, place=place)

    def views(self) -> list[dict[str, Any]]:
        """List the saved views, the newest first."""
        query = "SELECT id, time AS 'when', title, place FROM views ORDER BY time DESC, id DESC"
        with self._using() as base:
            return [dict(row) for row in base.execute(query)]

    def remove_history(self, number: int | None = None) -> int:
        """Forget one line of the history, or all; give how many."""
        return self._remove("history", number)

    def remove_view(self, number: int | None = None) -> int:
        """Forget one saved view, or all; give how many."""
        return self._remove("views", number)

    def settings(self) -> dict[str, Any]:
        """Give the settings."""
        with self._using() as base:
            rows = base.execute("SELECT name, value FROM settings").fetchall()
        return {row["name"]: json.loads(row["value"]) for row in rows}

    def set(self, changes: dict[str, Any]) -> dict[str, Any]:
        """Change settings, None forgets one; give all of them."""
        with self._using(change=True) as base:
            for name, value in changes.items():
                if value is None:
                    base.execute("DELETE FROM settings WHERE name = ?", (name,))
                else:
                    base.execute(
                        "INSERT INTO settings VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                        (name, json.dumps(value)),
                    )
        return self.settings()

    def _remove(self, table: str, number: int | None) -> int:
        where, values = ("", ()) if number is None else ("WHERE id = ?", (number,))
        with self._using(change=True) as base:
            return base.execute(f"DELETE FROM {table} {where}", values).rowcount

    @contextmanager
    def _using(self, *, change: bool = False) -> Iterator[sqlite3.Connection]:
        """Lend the file to one thread; what it changes is changed as a whole, or not at all.

        Raises:
            Busy: another has it for long.
            Unkept: it can't be read or written.
        """
        if not self._lock.acquire(timeout=_PATIENCE):
            raise Busy
        try:
            if change:
                self._base.execute("BEGIN IMMEDIATE")
            yield self._base
            if change:
                self._base.execute("COMMIT")
        except sqlite3.Error as error:
            said = str(error)
            if "locked" in said:
                raise Busy from error
            why = next((why for word, why in _WHY.items() if word in said), f"SQLite says: {said}.")
            raise Unkept(f"history, views and settings can't be kept: {why}") from error
        finally:
            try:
                if self._base.in_transaction:
                    self._base.execute("ROLLBACK")
            except sqlite3.Error:  # the file undoes it when it is opened again
                pass
            finally:
                self._lock.release()


def _add(base: sqlite3.Connection, table: str, **values: str) -> int:
    names = ", ".join(values)
    marks = ", ".join("?" for _ in values)
    found = base.execute(
        f"INSERT INTO {table} (time, {names}) VALUES (?, {marks})", (time.time(), *values.values())
    )
    base.execute(
        f"DELETE FROM {table} WHERE id NOT IN (SELECT id FROM {table} ORDER BY time DESC, id DESC LIMIT {_KEPT})"
    )
    assert found.lastrowid is not None
    return found.lastrowid
