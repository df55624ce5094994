"""The lines that a run writes down: metrics.jsonl."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from regard.checkpoints.files import sync

__all__ = ["Journal"]

_MOST_TEXT = 4000  # characters


class Journal:
    """Keep the lines of metrics.jsonl: one JSON object a line, `kind` train or valid, `step`, and what was measured."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Append a line; a value that isn't finite becomes null, and of a long text the beginning is kept.

        Raises:
            OSError: it can't be written; then no part of it stays.
        """
        line = {"kind": kind, "step": step, **{k: _kept(v) for k, v in values.items()}}
        before = self.path.stat().st_size if self.path.exists() else 0
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
        except OSError:
            with suppress(OSError):
                os.truncate(self.path, before)
            raise

    def read(self) -> list[dict[str, Any]]:
        """Give the lines; one that was cut in the middle, which can be the last only, is left out."""
        if not self.path.exists():
            return []
        lines = []
        for text in self.path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and isinstance(line.get("step"), int):
                lines.append(line)
        return lines

    def rewind(self, *, logged: int, evaluated: int) -> None:
        """Take back the lines of steps that will be done again."""
        upto = {"train": logged, "valid": evaluated}
        kept = [line for line in self.read() if line["step"] <= upto.get(line.get("kind", ""), -1)]
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        temporary.write_text(
            "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept), encoding="utf-8"
        )
        sync(temporary)
        os.replace(temporary, self.path)


def _kept(value: Any) -> Any:
    if isinstance(value, str):
        return value[:_MOST_TEXT].encode(errors="replace").decode()
    return None if isinstance(value, float) and value - value != 0 else value
