"""Read the files that tokenizers are published in: bounded, checked, each fault named with its file.

A vocabulary of others is input like any other. Its size is known before it is read, its ids are exactly 0 to
n - 1, and whatever does not hold is one CheckpointError that says which file, where, and what to do.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regard.errors import CheckpointError

__all__ = ["Folder", "check_ids", "read_bytes", "read_json", "read_lines", "read_text", "read_vocabulary"]

MOST_BYTES = 256 * 2**20  # the largest published tokenizer.json has some 35 MB
MOST_IDS = 4_000_000  # the largest published vocabularies have some 260,000 ids


def read_bytes(path: Path) -> bytes:
    """Read a whole file. Raises CheckpointError if it is missing, far too large, or a git-lfs pointer."""
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise CheckpointError(
                f"{path}: {size:,} bytes are too many for a tokenizer's file, at most {MOST_BYTES:,}; "
                "get the file again"
            )
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read: {error.strerror or error}") from error
    if content.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path}: this is a git-lfs pointer, not the tokenizer; download the file itself"
        )
    if not content:
        raise CheckpointError(f"{path}: the file is empty; download it again")
    return content


def read_text(path: Path) -> str:
    """Read a file as UTF-8, a byte order mark left out. Raises CheckpointError."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CheckpointError(
            f"{path}: can't be read: it is not UTF-8 text (byte {error.start}); download the file again"
        ) from error


def read_lines(path: Path) -> list[str]:
    """Read the lines of a file, cut at line feeds alone: pieces may hold any other separator."""
    lines = [line.removesuffix("\r") for line in read_text(path).split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    if len(lines) > MOST_IDS:
        raise CheckpointError(f"{path}: {len(lines):,} lines are too many, at most {MOST_IDS:,}")
    return lines


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object in which no key comes twice. Raises CheckpointError."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise CheckpointError(f"{path}: {twice[:60]!r} stands twice; remove one of the two")
        return found

    text = read_text(path)
    try:
        content = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a JSON {type(content).__name__}; it must be an object")
    return content


def read_vocabulary(path: Path) -> dict[str, int]:
    """Read a JSON table of pieces to ids, which must be 0 to n - 1. Raises CheckpointError."""
    table = read_json(path)
    for piece, index in table.items():
        if type(index) is not int:
            raise CheckpointError(
                f"{path}: the id of {piece[:60]!r} is {str(index)[:60]!r}; it must be a whole number"
            )
    check_ids(path, table)
    return table


def check_ids(path: Path, table: Mapping[str, int]) -> None:
    """Refuse a table whose ids are not exactly 0 to n - 1, each once. Raises CheckpointError."""
    if not table:
        raise CheckpointError(f"{path}: the vocabulary is empty; download the file again")
    if len(table) > MOST_IDS:
        raise CheckpointError(f"{path}: {len(table):,} ids are too many, at most {MOST_IDS:,}")
    owner: dict[int, str] = {}
    for piece, index in table.items():
        if not 0 <= index < MOST_IDS:
            raise CheckpointError(
                f"{path}: the id of {piece[:60]!r} is {str(index)[:40]}; ids run from 0 to {MOST_IDS - 1:,} at most"
            )
        if index in owner:
            raise CheckpointError(
                f"{path}: {owner[index][:60]!r} and {piece[:60]!r} both have the id {index}; ids must differ"
            )
        owner[index] = piece
    if len(owner) != max(owner) + 1:
        gap = next(k for k in range(len(owner)) if k not in owner)
        raise CheckpointError(
            f"{path}: no piece has the id {gap}, though ids go up to {max(owner)}; there must be no gap"
        )


@dataclass(frozen=True)
class Folder:
    """Hold what the small files beside a vocabulary say.

    path
        The directory.
    config
        config.json, or empty.
    settings
        special_tokens_map.json with tokenizer_config.json over it, or empty.
    """

    path: Path
    config: Mapping[str, Any]
    settings: Mapping[str, Any]

    @staticmethod
    def read(path: Path) -> Folder:
        """Read the small files of a directory; each may be missing. Raises CheckpointError for broken ones."""
        merged: dict[str, Any] = {}
        for name in ("special_tokens_map.json", "tokenizer_config.json"):
            if (path / name).is_file():
                merged |= read_json(path / name)
        config = read_json(path / "config.json") if (path / "config.json").is_file() else {}
        return Folder(path, config, merged)

    @property
    def family(self) -> str | None:
        """Whose tokenizer it says this is, such as `mbart50` or `gpt2`; None where nothing says so.

        The tokenizer's class comes before the model's type, because models share tokenizers.
        """
        for value in (
            self.settings.get("tokenizer_class"),
            self.config.get("tokenizer_class"),
            self.config.get("model_type"),
        ):
            if isinstance(value, str) and value:
                short = value.lower().removesuffix("fast").removesuffix("tokenizer")
                short = short.replace("_", "").replace("-", "")
                if short and short != "pretrained":
                    return short
        return None

    def flag(self, name: str, default: bool) -> bool:
        """Give a setting that is true or false; null is as good as missing. Raises CheckpointError."""
        value = self.settings.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise CheckpointError(
                f"{self.path / 'tokenizer_config.json'}: {name}={value!r} must be true or false"
            )
        return value

    def refuse(self, layout: str, known: Iterable[str]) -> CheckpointError:
        """Make the error for a family whose own rules for a layout are not known here."""
        return CheckpointError(
            f"{self.path}: the tokenizer of {self.family!r} in the layout {layout} is not known, only that of "
            f"{', '.join(sorted(known))}; give a tokenizer.json, or put the right tokenizer_class into "
            "tokenizer_config.json"
        )
