"""Open files, folders, standard input or a data set of the hub as rows, whatever their format.

The format is told from a file's suffix, or from its content where the suffix says nothing. What is wrong with
the data is said in one sentence with the path and the line.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO

from regard.data import formats, hub, tables
from regard.data.formats import File, Item
from regard.data.rows import Fault, Row, check_columns
from regard.errors import ConfigError, DataError, suggest

__all__ = ["Fault", "Row", "Source", "label_names", "open_source"]

DOCUMENT_MODES = ("file", "line", "blank")
BY_SUFFIX = {
    ".tsv": "tsv",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".conll": "conll",
}
TABULAR = {"tsv", "csv", "jsonl", "json", "parquet"}
SNIPS: dict[tuple[str, ...], tuple[str, str]] = {
    ("words", "tags"): ("seq.in", "seq.out"),
    ("text", "label"): ("seq.in", "label"),
}
REMEMBERED_FAULTS = 5

Reader = Callable[[], Iterator[Item]]


class Source:
    """Iterate over the rows of data as often as wished; each pass reads the files again.

    A pass raises DataError at a row that can't be used, unless `skip_bad_rows` was asked for: then such rows
    are left out, counted in `skipped` (of the latest pass), and the first few said in `faults`.
    """

    def __init__(
        self, readers: Sequence[Reader], *, names: Sequence[str], skip_bad_rows: bool = False
    ) -> None:
        """Join readers; `open_source` is the usual way here."""
        self._readers = list(readers)
        self._skip = skip_bad_rows
        self.names = list(names)
        self.skipped = 0
        self.faults: list[str] = []

    def __iter__(self) -> Iterator[Row]:
        self.skipped, self.faults = 0, []
        found = False
        for reader in self._readers:
            for item in reader():
                if isinstance(item, Row):
                    found = True
                    yield item
                elif not self._skip:
                    raise DataError(f"{item}; use --skip-bad-rows to leave such rows out")
                else:
                    self.skipped += 1
                    if len(self.faults) < REMEMBERED_FAULTS:
                        self.faults.append(str(item))
        if not found:
            reason = f": {self.skipped} were left out, first {self.faults[0]}" if self.faults else ""
            raise DataError(f"{', '.join(self.names)}: there are no rows to use{reason}")

    def __repr__(self) -> str:
        return f"Source({', '.join(self.names)})"


def open_source(
    paths: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    *,
    fields: Sequence[str],
    columns: Sequence[str] | None = None,
    skip_bad_rows: bool = False,
    split: str | None = None,
    documents: str | None = None,
    encoding: str = "utf-8",
) -> Source:
    """Open data as rows with the given fields.

    paths
        Files, folders, `-` for standard input, or `hub:owner/name[/config][:split]`. Plain, TSV, CSV, JSON
        lines, JSON, Parquet, CoNLL; each may be gzipped. Two plain files for two fields are parallel, line by
        line.
    fields
        ("source", "target"), ("text",), ("text", "label") or ("words", "tags").
    columns
        The column of a table for each field, by name (`translation.en` reaches inside) or number from 1.
    skip_bad_rows
        Leave out and count rows that can't be used.
    split
        The split of a hub data set.
    documents
        What a document is in plain text, for fields ("text",): each `file` (as set), each `line`, or what
        stands between `blank` lines.
    encoding
        Of text files.

    Raises DataError for what is wrong with the data, ConfigError for settings that contradict each other.
    """
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not given:
        raise DataError("no data was given: name a file, a folder, - for standard input or hub:owner/name")
    check_columns(columns, fields)
    _check_settings(documents, fields)
    opener = _Opener(tuple(fields), columns, documents or "file", formats.text_encoding(encoding), split)
    source = Source(opener.readers(given), names=[_name(p) for p in given], skip_bad_rows=skip_bad_rows)
    for ignored, used, why in (
        (columns, opener.tabular, "--columns names columns of tables, and none of these files is one"),
        (split, opener.hub, "--split chooses a part of a hub: data set, and none was given"),
        (documents, opener.plain, "--documents is for plain text, and none of these files is"),
    ):
        if ignored is not None and not used:
            raise ConfigError(f"{why}: {', '.join(source.names)}")
    for path in opener.temporary:
        weakref.finalize(source, _remove, path)
    return source


def label_names(source: Source, field: str = "label") -> list[str]:
    """List the different labels (for field `tags`, tags), sorted; raises DataError if there is only one."""
    found: set[str] = set()
    for row in source:
        value = row.values[field]
        if isinstance(value, list):
            found.update(value)
        else:
            found.add(str(value))
    if len(found) < 2:
        raise DataError(
            f"{', '.join(source.names)}: every {field.removesuffix('s')} is {found.pop()!r}; "
            "there must be at least two to learn a difference"
        )
    return sorted(found)


def _check_settings(documents: str | None, fields: Sequence[str]) -> None:
    if documents is not None and documents not in DOCUMENT_MODES:
        hint = suggest(documents, DOCUMENT_MODES)
        raise ConfigError(
            f"--documents {documents!r} is not one of {', '.join(DOCUMENT_MODES)}. {hint}".strip()
        )
    if documents is not None and tuple(fields) != ("text",):
        raise ConfigError(f"--documents has no effect on rows of {' and '.join(fields)}; leave it out")


class _Opener:
    """Decide how each path is read."""

    def __init__(
        self,
        fields: tuple[str, ...],
        columns: Sequence[str] | None,
        documents: str,
        encoding: str,
        split: str | None,
    ) -> None:
        self.fields, self.columns, self.documents = fields, columns, documents
        self.encoding, self.split = encoding, split
        self.tabular = self.hub = self.plain = False
        self.temporary: list[str] = []

    def readers(self, given: Sequence[str | os.PathLike[str]]) -> list[Reader]:
        parts: list[Reader | File] = []
        for path in [os.fspath(p) for p in given]:
            if path.startswith("hub:"):
                self.tabular = self.hub = True
                hub.parse(path, self.split)  # what is wrong with the name is said now
                parts.append(partial(hub.rows, path, self.fields, self.columns, self.split))
            elif path != "-" and Path(path).is_dir():
                parts += self._folder(Path(path))
            else:
                parts.append(self._file(path))
        files = [part for part in parts if isinstance(part, File)]
        if len(self.fields) == 2 and len(parts) == 2 and len(files) == 2 and self._parallel(files):
            return [partial(formats.parallel, files, self.fields)]
        return [self._reader(part) if isinstance(part, File) else part for part in parts]

    def _file(self, path: str) -> File:
        if path == "-":
            file = File(self._spool(sys.stdin.buffer), "standard input", self.encoding)
        else:
            _check_exists(path)
            file = File(path, path, self.encoding)
            if Path(path).is_fifo():  # it can be read once, and data is read several times
                with open(path, "rb") as pipe:
                    file = File(self._spool(pipe), path, self.encoding)
            elif not os.path.isfile(path):
                raise DataError(f"{path}: this is no ordinary file; name a file, or - for standard input")
        if os.path.isfile(file.path) and os.path.getsize(file.path) == 0:
            raise DataError(f"{file.name}: the file is empty")
        return file

    def _spool(self, stream: IO[bytes]) -> str:
        """Copy what can be read once to a temporary file; give its path."""
        handle, spooled = tempfile.mkstemp(prefix="regard-stdin-")
        self.temporary.append(spooled)
        with os.fdopen(handle, "wb") as out:
            shutil.copyfileobj(stream, out)
        return spooled

    def _folder(self, folder: Path) -> list[Reader | File]:
        together = SNIPS.get(self.fields, ())
        if together and all((folder / name).is_file() for name in together):
            parallel = [self._file(str(folder / name)) for name in together]
            return [partial(formats.parallel, parallel, self.fields)]
        found = [p for p in sorted(folder.rglob("*")) if p.is_file() and not _hidden(p.relative_to(folder))]
        if not found:
            raise DataError(f"{folder}: there are no files in this folder")
        if self.fields == ("text", "label"):
            classes = [p for p in found if p.name.removesuffix(".gz").endswith(".txt") and p.parent != folder]
            if classes and not any(p.parent == folder for p in found):
                return [
                    partial(
                        formats.whole, File(str(p), str(p), self.encoding), p.relative_to(folder).parts[0]
                    )
                    for p in classes
                ]
        files = [File(str(p), str(p), self.encoding) for p in found]
        readable = [f for f in files if "\0" not in f.beginning(1024) or _suffix(f.name) in BY_SUFFIX]
        if self.fields != ("text",):
            readable = [f for f in readable if _suffix(f.name) in BY_SUFFIX or self._pairs(f) is not None]
        if not readable:
            raise DataError(
                f"{folder}: none of the {len(files)} files in this folder holds {' and '.join(self.fields)}"
            )
        return [self._reader(f) for f in readable]

    def _parallel(self, files: Sequence[File]) -> bool:
        """Tell whether two files are plain and belong together line by line."""
        if any(self._format(f) != "plain" for f in files):
            return False
        first, second = map(_sample, files)
        if self.fields == ("source", "target"):
            return self._pairs(files[0]) is None
        if self.fields == ("text", "label"):
            return all(len(line.split()) == 1 for line in second)
        return all(line.strip() for line in first)

    def _format(self, file: File) -> str:
        """Name the format of a file, `plain` where it is lines of text."""
        head = file.head()
        if head.startswith(b"PAR1"):
            return "parquet"
        kind = BY_SUFFIX.get(_suffix(file.name))
        sample = _sample(file)
        first = next((line.strip() for line in sample if line.strip()), "")
        if kind in ("tsv", "csv") and self.fields == ("words", "tags") and _is_conll(sample):
            return "conll"
        if kind == "json" or (kind is None and not _suffix(file.name)):
            if first.startswith("{") and (kind == "json" or _is_object(first)):
                return "jsonl"
            if kind is None and re.match(r"\[\s*\{", "".join(sample).lstrip()):
                return "json"
        return kind or "plain"

    def _pairs(self, file: File) -> Reader | None:
        """Find how a plain file holds two fields on a line, if it does."""
        sample = [line for line in _sample(file) if line.strip()]
        if self.fields == ("words", "tags"):
            return partial(formats.conll, file) if _is_conll(sample) else None
        if self.fields == ("source", "target"):
            if sample and all(line.startswith("IN: ") and " OUT: " in line for line in sample):
                return partial(formats.commands, file, " OUT: ", "IN: ")
            if sample and all(" ||| " in line for line in sample):
                return partial(formats.commands, file, " ||| ")
        if sample and all("\t" in line for line in sample):
            self.tabular = True
            return partial(tables.table, file, self.fields, self.columns, comma=False)
        if self.fields == ("text", "label"):
            labels = {line.split()[0] for line in sample}
            marked = sample and all(line.startswith("__label__") for line in sample)
            # In running text nearly every line begins with another word; labels come again and again.
            if marked or len(sample) < 20 or len(labels) < 0.9 * len(sample):
                return partial(formats.labelled, file)
        return None

    def _reader(self, file: File) -> Reader:
        kind = self._format(file)
        self.tabular = self.tabular or kind in TABULAR
        if kind in ("tsv", "csv"):
            return partial(tables.table, file, self.fields, self.columns, comma=kind == "csv")
        if kind in ("jsonl", "json", "parquet"):
            read = {"jsonl": tables.json_lines, "json": tables.json_array, "parquet": tables.parquet}[kind]
            return partial(read, file, self.fields, self.columns)
        if kind == "conll" and self.fields == ("words", "tags"):
            return partial(formats.conll, file)
        if self.fields == ("text",):
            self.plain = True
            return partial(formats.documents, file, self.documents)
        pairs = self._pairs(file)
        if pairs is None:
            raise DataError(
                f"{file.name}: {_WANTED.get(self.fields, 'plain text does not hold these fields')}"
            )
        return pairs


_WANTED: dict[tuple[str, ...], str] = {
    ("messages",): 'conversations are lines of JSON: {"messages": [{"role": "user", "content": "…"}, …]}',
    (
        "source",
        "target",
    ): "plain text alone has no source and target; give two parallel files, or lines with a tab "
    "between the two, or a table",
    (
        "text",
        "label",
    ): "the lines do not begin with a label; give lines 'LABEL text', or a table with columns text and "
    "label, or a folder for each label",
    (
        "words",
        "tags",
    ): "the lines are not 'token tag' with blank lines between sentences; give such a file, or two "
    "parallel files of words and tags",
}


def _sample(file: File) -> list[str]:
    """Give the first lines as well as they can be read, the last of them whole."""
    head, text = file.head(), file.beginning()
    found = [line.removesuffix("\r") for line in text.split("\n")]
    if len(head) == 1 << 16 and len(found) > 1:
        found.pop()
    while found and not found[-1].strip():
        found.pop()
    return found[:200]


def _is_conll(sample: Sequence[str]) -> bool:
    """Tell whether lines are tokens with tags: as many columns in each, and no spaces within a tag."""
    parts = [line.split("\t") if "\t" in line else line.split() for line in sample if line.strip()]
    rows = [p for p in parts if p[0] != "-DOCSTART-" and not (p[0] == "#" and len(p) != 2)]
    separate = any("\t" in line or not line.strip() for line in sample) or any(p[-1] == "O" for p in rows)
    good = sum(len(p) >= 2 and " " not in p[-1].strip() and " " not in p[0].strip() for p in rows)
    # A few broken lines do not make it another format: reading will point them out.
    return (
        bool(rows)
        and separate
        and good >= 0.9 * len(rows)
        and len({len(p) for p in rows if len(p) >= 2}) <= 2
    )


_KEY = re.compile(r'\{\s*"(?:[^"\\]|\\.)*"\s*:\s*["\[{\dtfn-]')


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        # Of a line that is longer than what was looked at, the beginning must do.
        return len(line) > 1 << 13 and _KEY.match(line) is not None


def _check_exists(path: str) -> None:
    if os.path.exists(path):
        return
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise DataError(f"{path}: there is no such file, and no folder {folder}")
    raise DataError(
        f"{path}: there is no such file. {suggest(os.path.basename(path), os.listdir(folder))}".strip()
    )


def _suffix(name: str) -> str:
    return Path(name.removesuffix(".gz")).suffix.lower()


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _name(path: str | os.PathLike[str]) -> str:
    return "standard input" if os.fspath(path) == "-" else os.fspath(path)


def _remove(path: str) -> None:
    Path(path).unlink(missing_ok=True)
