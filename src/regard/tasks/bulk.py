"""Whole files through a verb: a line in, a line out, in order, and on from where a kill left it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from regard.checkpoints.files import read_json, write_json_atomic
from regard.errors import ConfigError, DataError


@dataclass(frozen=True)
class BulkResult:
    """Hold what a bulk job did: how many lines there are, how many an earlier session had done, how many were bad."""

    lines: int
    resumed: int
    bad: tuple[int, ...]


def run_bulk(
    source: Path,
    target: Path,
    work: Callable[[Sequence[str]], list[str]],
    *,
    settings: dict[str, object],
    chunk: int = 512,
    encoding: str = "utf-8",
    skip_bad_rows: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> BulkResult:
    """Turn each line of a file into a line of another.

    Lines are done in chunks whose borders never depend on where a job was stopped, so a job that was killed and
    started again writes the same bytes. Until the end the output is called `NAME.part`, with `NAME.part.json` beside
    it, which says what it belongs to.

    Args:
        source: text file, one text a line.
        target: what is written; must not exist yet.
        work: turns texts into as many texts of one line each.
        settings: whatever the output depends on; a job goes on only under the same.
        chunk: lines in one go.
        encoding: of the source.
        skip_bad_rows: write an empty line for a text that can't be done, where else it is an error.
        progress: told (lines done, lines in all).

    Raises:
        DataError: the source can't be read, or a line can't be done (with its number).
        ConfigError: the target exists, or an unfinished one belongs to other settings.
    """
    lines = _read_lines(source, encoding)
    if target.exists():
        raise ConfigError(f"{target} exists already; name another --output or remove it.")
    if target.resolve() == source.resolve():
        raise ConfigError("--input and --output are the same file.")
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    mark = {"source": digest, "lines": len(lines), "chunk": chunk, "skip_bad_rows": skip_bad_rows, **settings}
    part, note = target.with_name(target.name + ".part"), target.with_name(target.name + ".part.json")
    resumed, bad = _resume(part, note, mark, chunk)
    try:
        with part.open("r+b" if part.exists() else "wb") as file:
            file.seek(0, os.SEEK_END)
            progress(resumed, len(lines))
            for start in range(resumed, len(lines), chunk):
                results, wrong = _one_by_one(work, lines[start : start + chunk], start, source, skip_bad_rows)
                bad += wrong
                write_json_atomic(note, {**mark, "bad": bad})
                file.write("".join(result.replace("\n", " ") + "\n" for result in results).encode())
                file.flush()
                progress(min(start + chunk, len(lines)), len(lines))
            os.fsync(file.fileno())
    except OSError as error:
        raise DataError(
            f"{target} can't be written: {error.strerror}; what is done is kept in {part}."
        ) from None
    os.replace(part, target)
    note.unlink(missing_ok=True)
    return BulkResult(len(lines), resumed, tuple(bad))


def _one_by_one(
    work: Callable[[Sequence[str]], list[str]], texts: list[str], start: int, source: Path, skip: bool
) -> tuple[list[str], list[int]]:
    """Do a chunk; where it fails, find the texts at fault."""
    try:
        return work(texts), []
    except DataError:
        results, wrong = [], []
        for i, text in enumerate(texts):
            try:
                results += work([text])
            except DataError as error:
                if not skip:
                    said = str(error).removeprefix("text 1 has ")
                    raise DataError(
                        f"{source}:{start + i + 1}: {said} Use --skip-bad-rows to leave an empty line."
                    ) from None
                wrong.append(start + i + 1)
                results.append("")
        return results, wrong


def _resume(part: Path, note: Path, mark: dict[str, object], chunk: int) -> tuple[int, list[int]]:
    """Find how many whole chunks an earlier session wrote, and cut off what follows them."""
    if not part.exists():
        try:
            write_json_atomic(note, {**mark, "bad": []})
        except OSError as error:
            raise ConfigError(f"{part.parent} can't be written to: {error.strerror}.") from None
        return 0, []
    old = read_json(note) if note.exists() else {}
    if {k: v for k, v in old.items() if k != "bad"} != json.loads(json.dumps(mark)):
        raise ConfigError(
            f"{part} was begun with another model, input or settings; remove it and {note.name} to begin again."
        )
    with part.open("rb") as file:
        count = sum(line.endswith(b"\n") for line in file)
    kept = _cut(part, count, chunk)
    return kept, [number for number in old.get("bad", []) if number <= kept]


def _cut(part: Path, whole_lines: int, chunk: int) -> int:
    keep = whole_lines - whole_lines % chunk
    with part.open("r+b") as file:
        for _ in range(keep):
            file.readline()
        file.truncate(file.tell())
    return keep


def _read_lines(path: Path, encoding: str) -> list[str]:
    try:
        text = path.read_bytes().decode(encoding)
    except FileNotFoundError:
        raise DataError(f"there is no file {path}.") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder; --input takes one text file.") from None
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}.") from None
    except (UnicodeDecodeError, LookupError) as error:
        raise DataError(
            f"{path} is not {encoding} text ({error}); name its encoding with --encoding."
        ) from None
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    if not text:
        raise DataError(f"{path} is empty.")
    return text.removesuffix("\n").split("\n")


def file_digest(path: Path) -> str:
    """Give the SHA-256 of a file, which tells one model from another.

    Raises:
        DataError: it can't be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}.") from None
