"""What the page remembers: history, saved views and settings, in one file of SQLite."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

from regard.errors import DataError

__all__ = ["Store"]

_VERSION = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS history (id INTEGER PRIMARY KEY, time REAL NOT NULL, kind TEXT NOT NULL, title TEXT NOT NULL,
                                    place TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS views (id INTEGER PRIMARY KEY, time REAL NOT NULL, title TEXT NOT NULL, place TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_KEPT = 1000  # lines of history, and views


class Store:
    """Keep a file of SQLite, with a journal that readers needn't wait for (WAL).

    Args:
        path: the file; it is made where there is none.

    Raises:
        DataError: it can't be opened, is no such file, or of a newer Regard.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=10)
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
        with self._lock:
            self._base.execute("DELETE FROM history WHERE kind = ? AND place = ?", (kind, place))
            return self._add("history", kind=kind, title=title, place=place)

    def history(self, *, kind: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """List what was done, the newest first."""
        where, values = ("WHERE kind = ?", [kind]) if kind else ("", [])
        fields = "id, time AS 'when', kind, title, place"
        query = f"SELECT {fields} FROM history {where} ORDER BY time DESC, id DESC LIMIT ?"
        with self._lock:
            return [dict(row) for row in self._base.execute(query, [*values, limit])]

    def add_view(self, title: str, place: str) -> int:
        """Save a view, and give its number."""
        with self._lock:
            return self._add("views", title=title, place=place)

    def views(self) -> list[dict[str, Any]]:
        """List the saved views, the newest first."""
        query = "SELECT id, time AS 'when', title, place FROM views ORDER BY time DESC, id DESC"
        with self._lock:
            return [dict(row) for row in self._base.execute(query)]

    def remove_history(self, number: int | None = None) -> int:
        """Forget one line of the history, or all; give how many."""
        return self._remove("history", number)

    def remove_view(self, number: int | None = None) -> int:
        """Forget one saved view, or all; give how many."""
        return self._remove("views", number)

    def settings(self) -> dict[str, Any]:
        """Give the settings."""
        with self._lock:
            rows = self._base.execute("SELECT name, value FROM settings").fetchall()
        return {row["name"]: json.loads(row["value"]) for row in rows}

    def set(self, changes: dict[str, Any]) -> dict[str, Any]:
        """Change settings, None forgets one; give all of them."""
        with self._lock:
            for name, value in changes.items():
                if value is None:
                    self._base.execute("DELETE FROM settings WHERE name = ?", (name,))
                else:
                    self._base.execute(
                        "INSERT INTO settings VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                        (name, json.dumps(value)),
                    )
        return self.settings()

    def _add(self, table: str, **values: str) -> int:
        names = ", ".join(values)
        marks = ", ".join("?" for _ in values)
        found = self._base.execute(
            f"INSERT INTO {table} (time, {names}) VALUES (?, {marks})", (time.time(), *values.values())
        )
        self._base.execute(
            f"DELETE FROM {table} WHERE id NOT IN (SELECT id FROM {table} ORDER BY time DESC, id DESC LIMIT {_KEPT})"
        )
        assert found.lastrowid is not None
        return found.lastrowid

    def _remove(self, table: str, number: int | None) -> int:
        where, values = ("", ()) if number is None else ("WHERE id = ?", (number,))
        with self._lock:
            return self._base.execute(f"DELETE FROM {table} {where}", values).rowcount
