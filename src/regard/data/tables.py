"""Read tables and records into rows: TSV, CSV, JSON lines, JSON arrays, Parquet."""

from __future__ import annotations

import codecs
import csv
import json
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from regard.data.formats import ENCODING_HINT, File, Item, lines, row
from regard.data.rows import Fault, check_single, choose, is_header
from regard.errors import DataError, DependencyError

__all__ = ["json_array", "json_lines", "parquet", "records", "table"]

JSON_CHUNK = 1 << 16  # bytes read at a time


def table(file: File, fields: Sequence[str], columns: Sequence[str] | None, *, comma: bool) -> Iterator[Item]:
    """Give the rows of a TSV (taken literally) or a CSV (quotes as in RFC 4180).

    The first line is a header where it names a field; otherwise the columns are the fields in order, or those
    whose numbers `columns` gives, counted from 1.
    """
    places: list[int] | None = None
    width = 0
    for number, cells in _csv_cells(file) if comma else _tsv_cells(file):
        if isinstance(cells, Fault):
            yield cells
            continue
        if not any(cell.strip() for cell in cells):
            continue
        if places is None:
            width = len(cells)
            places, header = _places(cells, fields, columns, f"{file.name}:{number}")
            if header:
                continue
        if len(cells) != width:
            yield Fault(f"{len(cells)} columns where the table has {width}", file.name, number)
            continue
        yield row({f: cells[p] for f, p in zip(fields, places, strict=True)}, file, number)


def _places(
    cells: list[str], fields: Sequence[str], columns: Sequence[str] | None, where: str
) -> tuple[list[int], bool]:
    """Find the column of each field, and tell whether the first line was a header."""
    by_number = columns is not None and all(c.isdecimal() for c in columns)
    header = is_header(cells, fields)
    if (header or columns) and not by_number:
        return [cells.index(name) for name in choose(cells, fields, columns, where)], True
    places = [int(c) - 1 for c in columns] if columns else list(range(len(fields)))
    if max(places) >= len(cells) or min(places) < 0:
        raise DataError(
            f"{where}: the table has {len(cells)} columns, numbered from 1; {', '.join(fields)} need columns "
            f"{', '.join(str(p + 1) for p in places)}; choose others with --columns"
        )
    return places, header


def _tsv_cells(file: File) -> Iterator[tuple[int, list[str] | Fault]]:
    for number, line in lines(file):
        yield number, line if isinstance(line, Fault) else line.split("\t")


class _Feed:
    """Hand lines to a csv.reader; a broken line becomes an error that does not end the reading."""

    def __init__(self, file: File) -> None:
        self._lines = lines(file)
        self._again: list[tuple[int, str | Fault]] = []  # the next one last
        self.taken: list[tuple[int, str | Fault]] = []  # of the record being read
        self.number = 0
        self.fault: Fault | None = None

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        self.number, line = found = self._again.pop() if self._again else next(self._lines)
        self.taken.append(found)
        if isinstance(line, Fault):
            self.fault = line
            raise csv.Error
        return line + "\n"

    def give_back(self) -> int:
        """Make the lines of a record after its first be read again; give their number."""
        self._again += self.taken[:0:-1]
        self.number = self.taken[0][0]
        return len(self.taken) - 1


def _csv_cells(file: File) -> Iterator[tuple[int, list[str] | Fault]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a document may be long
    feed = _Feed(file)
    reader = csv.reader(feed, strict=True)
    width = 0
    while True:
        first = feed.number + 1
        feed.taken.clear()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if feed.fault is not None:
                yield first, feed.fault
                feed.fault = None
            else:
                yield first, Fault(_unclosed(feed) or f"not valid CSV: {error}", file.name, first)
            continue
        width = width or len(cells)
        if len(feed.taken) > 1 and len(cells) != width:
            yield first, Fault(_unclosed(feed), file.name, first)
        else:
            yield first, cells


def _unclosed(feed: _Feed) -> str:
    """Say that a quote ran on over lines, which are read again; nothing where it was one line."""
    count = feed.give_back()
    return (
        f"a quote opens here and isn't closed as it should be on this or the next {count} lines"
        if count
        else ""
    )


def _pick(record: object, names: Sequence[str]) -> list[object]:
    """Look the names up in a record; a dot goes into a record within, as in translation.en."""
    found = []
    for name in names:
        value: Any = record
        for part in [name] if isinstance(record, dict) and name in record else name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        found.append(value)
    return found


def _flat_names(record: dict[str, Any]) -> list[str]:
    inner = [f"{k}.{j}" for k, v in record.items() if isinstance(v, dict) for j in v]
    return list(dict.fromkeys([*record, *inner]))


def records(
    items: Iterable[tuple[int, object]], file: File, fields: Sequence[str], columns: Sequence[str] | None
) -> Iterator[Item]:
    """Give rows from numbered records (dicts); anything else among them is a Fault."""
    names: list[str] | None = None
    for number, record in items:
        if isinstance(record, Fault):
            yield record
        elif not isinstance(record, dict):
            yield Fault(
                f"a {type(record).__name__} where an object with {', '.join(fields)} is needed",
                file.name,
                number,
            )
        else:
            if names is None:
                names = choose(_flat_names(record), fields, columns, f"{file.name}:{number}")
            values = _pick(record, names)
            absent = [n for n, v in zip(names, values, strict=True) if v is None]
            if absent:
                yield Fault(f"{absent[0]!r} is missing", file.name, number)
                continue
            yield row(dict(zip(fields, values, strict=True)), file, number)


def json_lines(file: File, fields: Sequence[str], columns: Sequence[str] | None) -> Iterator[Item]:
    """Give rows from one JSON object a line."""

    def parsed() -> Iterator[tuple[int, object]]:
        for number, line in lines(file):
            if isinstance(line, Fault):
                yield number, line
            elif line.strip():
                try:
                    yield number, json.loads(line)
                except (ValueError, RecursionError) as error:
                    yield number, Fault(f"not valid JSON: {error}", file.name, number)

    yield from records(parsed(), file, fields, columns)


def json_array(file: File, fields: Sequence[str], columns: Sequence[str] | None) -> Iterator[Item]:
    """Give rows from a JSON array of objects, read piece by piece. A broken array ends in a DataError."""
    yield from records(_array_items(file), file, fields, columns)


def _chunks(file: File) -> Iterator[str]:
    """Give the text of a file in pieces that need not end at a line's end."""
    decoder = codecs.getincrementaldecoder("utf-8-sig" if file.encoding == "utf-8" else file.encoding)()
    try:
        with file.open() as handle:
            while block := handle.read(JSON_CHUNK):
                yield decoder.decode(block)
        yield decoder.decode(b"", final=True)
    except UnicodeError as error:
        raise DataError(
            f"{file.name}: the file is not {file.encoding.upper()}: {error}; {ENCODING_HINT}"
        ) from error
    except (EOFError, zlib.error, OSError) as error:
        raise DataError(f"{file.name}: can't be read to its end: {error}") from error


class _Array:
    """Walk through the text of a JSON array, of which a growing part is held."""

    def __init__(self, file: File) -> None:
        self.name = file.name
        self._chunks = _chunks(file)
        self._text, self._at = "", 0
        self._line, self._counted = 1, 0
        self._decoder = json.JSONDecoder()

    def _grow(self) -> bool:
        """Take in at least as much again as is held and not yet read; False at the file's end."""
        self.line()  # before what was read is let go
        parts, wanted = [self._text[self._at :]], max(len(self._text) - self._at, 1)
        while wanted > 0 and (chunk := next(self._chunks, None)) is not None:
            parts.append(chunk)
            wanted -= len(chunk)
        grown = len(parts) > 1
        self._text, self._at, self._counted = "".join(parts), 0, 0
        return grown

    def take(self) -> str:
        """Give the next character that is not a space, an empty string at the end."""
        while True:
            while self._at < len(self._text):
                character = self._text[self._at]
                self._at += 1
                if character not in " \t\r\n":
                    return character
            if not self._grow():
                return ""

    def value(self) -> tuple[int, object]:
        """Give the value that starts at the character just taken, with its line."""
        self._at -= 1
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
                if end < len(self._text) or not self._grow():
                    break
            except RecursionError as error:
                raise self.error(error) from error
            except json.JSONDecodeError as error:
                # Only what breaks at the end of the held text may become whole with more of it.
                near_end = error.pos + 16 > len(self._text) or error.msg.startswith("Unterminated")
                if not near_end or not self._grow():
                    raise self.error(error.msg) from error
        line = self.line()
        self._at = end
        return line, value

    def line(self) -> int:
        """Count the line that has been reached, from 1."""
        if self._at > self._counted:
            self._line += self._text.count("\n", self._counted, self._at)
            self._counted = self._at
        return self._line

    def error(self, reason: object) -> DataError:
        """Make the error that says where reading stopped, and why."""
        return DataError(f"{self.name}:{self.line()}: not valid JSON: {reason}")


def _array_items(file: File) -> Iterator[tuple[int, object]]:
    array = _Array(file)
    if array.take() != "[":
        raise DataError(f"{file.name}: a .json file must hold an array of objects, or one object a line")
    character = array.take()
    while character != "]":
        if not character:
            raise array.error("the array is cut off: its closing bracket is missing")
        yield array.value()
        character = array.take()
        if character == ",":
            character = array.take()
        elif character not in ("]", ""):
            raise array.error("a comma or ] must follow each object")


def parquet(file: File, fields: Sequence[str], columns: Sequence[str] | None) -> Iterator[Item]:
    """Give rows from a Parquet file, a thousand at a time. Raises DependencyError without pyarrow."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise DependencyError(f"{file.name}: reading Parquet needs pyarrow: pip install pyarrow") from error

    try:
        with pq.ParquetFile(file.path) as opened:
            names = opened.schema_arrow.names
            used = (
                choose(names, fields, columns, file.name)
                if not columns
                else [c.split(".")[0] for c in columns]
            )
            absent = [c for c in used if c not in names]
            if absent:
                raise DataError(
                    f"{file.name}: there is no column {absent[0]!r}; there are: {', '.join(names)}"
                )
            for name in used:
                check_single(name, names, file.name)
            batches = opened.iter_batches(batch_size=1000, columns=sorted(set(used)))
            items = enumerate((record for batch in batches for record in batch.to_pylist()), 1)
            yield from records(items, file, fields, columns or used)
    except UnicodeDecodeError as error:
        raise DataError(f"{file.name}: a column of text holds bytes that are not UTF-8: {error}") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{file.name}: not a Parquet file that can be read: {error}") from error
