"""Whole files through a verb: a line in, a line out, in order, and on from where a kill left it."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from regard.checkpoints.files import read_json, write_json_atomic
from regard.data.formats import text_encoding
from regard.errors import ConfigError, DataError

Work = Callable[[Sequence[str]], Sequence[str]]
Check = Callable[[Sequence[str]], Mapping[int, str]]


class Broken(str):
    """Stand for a line that is no text: empty, with what is wrong with it."""

    __slots__ = ("problem",)
    problem: str

    def __new__(cls, problem: str) -> Broken:
        """Make one."""
        line = super().__new__(cls, "")
        line.problem = problem
        return line


@dataclass(frozen=True)
class BulkResult:
    """Hold what a bulk job did: how many lines there are, how many an earlier session had done, how many were bad."""

    lines: int
    resumed: int
    bad: tuple[int, ...]


def run_bulk(
    source: Path,
    target: Path,
    work: Work,
    *,
    check: Check = lambda texts: {},
    settings: Mapping[str, object],
    chunk: int = 512,
    encoding: str = "utf-8",
    skip_bad_rows: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> BulkResult:
    """Turn each line of a file into a line of another, with a few hundred lines in memory at a time.

    Lines are done in chunks whose borders never depend on where a job was stopped, so a job that was killed and
    started again writes the same bytes. Until the end the output is called `NAME.part`, with `NAME.part.json` beside
    it, which says what it belongs to. Only a line feed, or a carriage return and a line feed, end a line; those within
    a result become spaces.

    Args:
        source: text file, one text a line.
        target: what is written, in UTF-8; must not exist yet.
        work: turns texts into as many texts, none of them depending on its neighbours.
        check: finds the texts, by their numbers from 0, that `work` can't do, and says what is wrong with each. Unless
            bad rows are skipped, the whole file is checked before anything is done.
        settings: whatever the output depends on; a job goes on only under the same.
        chunk: lines in one go.
        encoding: of the source.
        skip_bad_rows: write an empty line for a text that can't be done, or for a line that is no text, where else it
            is an error.
        progress: told (lines done, lines in all).

    Raises:
        DataError: the source can't be read or the target can't be written, or a line can't be done (with its number).
        ConfigError: the target exists, or an unfinished one belongs to other settings or is being written.
    """
    check_target(target)
    _look_at(source)
    digest, total = file_digest(source), 0
    for start, texts in _chunks(source, encoding, chunk):
        if not skip_bad_rows:
            _refuse(problems(texts, check), source, start)
        total = start + len(texts)
    if not total:
        raise DataError(f"{source} is empty.")
    mark = {"source": digest, "encoding": encoding, "lines": total, "chunk": chunk, **settings}
    part, note = target.with_name(target.name + ".part"), target.with_name(target.name + ".part.json")
    try:
        with part.open("ab+") as file:
            lock(file, part)
            resumed, bad = _resume(file, part, note, mark)
            progress(resumed, total)
            for start, texts in _chunks(source, encoding, chunk, skip=resumed):
                wrong = problems(texts, check)
                results = iter(work([text for i, text in enumerate(texts) if i not in wrong]))
                lines = ["" if i in wrong else _flat(next(results)) for i in range(len(texts))]
                bad += [start + i + 1 for i in sorted(wrong)]
                write_json_atomic(note, {**mark, "bad": bad})
                file.write("".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))
                file.flush()
                os.fsync(file.fileno())
                progress(start + len(texts), total)
            os.replace(part, target)  # before another process may lock it
            note.unlink(missing_ok=True)
    except OSError as error:
        kept = f"; what is done is kept in {part}" if part.exists() else ""
        raise DataError(f"{target} can't be written: {error.strerror or error}{kept}.") from None
    return BulkResult(total, resumed, tuple(bad))


def check_target(target: Path) -> None:
    """Refuse an output that is there, or can't be a file.

    Raises:
        ConfigError: it says which.
    """
    if target.is_dir() or not target.name:
        raise ConfigError(f"--output {str(target)!r} is a folder; name a file.")
    if target.exists() and not target.is_file():
        raise ConfigError(f"--output {target} is no ordinary file; name one that isn't there yet.")
    if target.exists():
        raise ConfigError(f"{target} exists already; name another --output or remove it.")


def _flat(text: str) -> str:
    return text.replace("\r\n", " ").replace("\n", " ").replace("\r", " ")


def _refuse(wrong: Mapping[int, str], source: Path, start: int) -> None:
    for i in sorted(wrong):
        raise DataError(f"{source}:{start + i + 1}: {wrong[i]} Or leave an empty line with --skip-bad-rows.")


def _resume(file: IO[bytes], part: Path, note: Path, mark: Mapping[str, Any]) -> tuple[int, list[int]]:
    """Find how many whole chunks an earlier session wrote, and cut off what follows them."""
    if os.fstat(file.fileno()).st_size == 0:
        write_json_atomic(note, {**mark, "bad": []})
        return 0, []
    old = read_json(note) if note.exists() else None
    if not isinstance(old, dict) or {k: v for k, v in old.items() if k != "bad"} != json.loads(
        json.dumps(mark)
    ):
        raise ConfigError(
            f"{part} was begun with another model, input or settings; remove it and {note.name} to begin again."
        )
    file.seek(0)
    kept = end = place = 0
    for number, line in enumerate(file, 1):
        place += len(line)
        if line.endswith(b"\n") and (number % mark["chunk"] == 0 or number == mark["lines"]):
            kept, end = number, place
    file.truncate(end)
    return kept, [number for number in old.get("bad", []) if number <= kept]


def lock(file: IO[bytes], part: Path) -> None:
    """Keep a second process away from a file, where the system can; the lock goes with the process.

    Raises:
        ConfigError: another process writes it.
    """
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(f"{part} is being written by another process; wait for it, or stop it.") from None
    except OSError:  # a file system without locks
        return


def _look_at(path: Path) -> None:
    if not path.exists():
        raise DataError(f"there is no file {path}.")
    if not path.is_file():
        raise DataError(f"{path} is no ordinary file; --input takes one text file.")


def problems(texts: Sequence[str], check: Check) -> dict[int, str]:
    """Find the texts that can't be done, lines that are no text among them, and what is wrong with each."""
    broken = {i: text.problem for i, text in enumerate(texts) if isinstance(text, Broken)}
    return {**check(texts), **broken}


def read_lines(path: Path, encoding: str) -> Iterator[str]:
    """Give the lines of a text file; see `lines_from`.

    Raises:
        DataError: it can't be read, or isn't of an encoding with wide characters, such as UTF-16.
        ConfigError: there is no such encoding.
    """
    encoding = text_encoding(encoding)
    try:
        with path.open("rb") as file:
            yield from lines_from(file, encoding)
    except UnicodeError as error:
        raise DataError(f"{path} is no {encoding} text ({error}); name its --encoding.") from None
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror or error}.") from None


def lines_from(file: IO[bytes], encoding: str) -> Iterator[str]:
    r"""Give lines without their ends and without a BOM; one that is no text is `Broken`.

    Only \n and \r\n end a line. Where a line feed is more than that one byte (UTF-16), what is no text can't be told
    from what is, and so is a UnicodeError.
    """
    if "\na".encode(encoding) != b"\na" and encoding != "utf-8-sig":
        reader = io.TextIOWrapper(file, encoding, newline="\n")
        try:
            for number, line in enumerate(reader):
                yield _NUL if "\0" in line else _without_end(line, first=number == 0)
        finally:
            reader.detach()
        return
    plain, place = "utf-8" if encoding == "utf-8-sig" else encoding, 0
    for number, raw in enumerate(file):
        if b"\0" in raw:
            yield _NUL
        else:
            try:
                yield _without_end(raw.decode(plain), first=number == 0)
            except UnicodeDecodeError as error:
                yield Broken(
                    f"byte {place + error.start} is no {encoding} text; is the file binary? If it is text, name its "
                    "--encoding."
                )
        place += len(raw)


_NUL = Broken("a NUL character; this is no text, or of another --encoding.")


def _without_end(line: str, *, first: bool) -> str:
    return (line.removeprefix("\ufeff") if first else line).removesuffix("\n").removesuffix("\r")


def _chunks(path: Path, encoding: str, size: int, *, skip: int = 0) -> Iterator[tuple[int, list[str]]]:
    """Give lists of lines with the number of lines before each."""
    lines = itertools.islice(read_lines(path, encoding), skip, None)
    start = skip
    while texts := list(itertools.islice(lines, size)):
        yield start, texts
        start += len(texts)


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
