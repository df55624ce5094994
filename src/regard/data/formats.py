"""Read plain-text formats into rows, one after the other, never the whole file at once.

A reader is a generator of Row and Fault. It goes on after a Fault, so that one broken row need not end a run.
What spoils a whole file (a damaged archive, a header without the columns) is a DataError.
"""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import IO

from regard.data.rows import Fault, Row, tidy
from regard.errors import ConfigError, DataError, suggest

__all__ = [
    "File",
    "Item",
    "commands",
    "conll",
    "documents",
    "labelled",
    "lines",
    "parallel",
    "row",
    "text_encoding",
    "whole",
]

DOCUMENT_PIECE = 4 << 20  # characters of one document in a row; longer ones go on in the next row
NO_TEXT = ("undefined", "idna", "punycode", "unicode_escape", "raw_unicode_escape")
ENCODING_HINT = "if the file is in another encoding, name it, as in --encoding latin-1"


@dataclass(frozen=True)
class File:
    """A file to read: where it lies, what it is called in messages, how its text is encoded."""

    path: str
    name: str
    encoding: str = "utf-8"

    def open(self) -> IO[bytes]:
        """Open for reading bytes, unpacking gzip, which is known by its first two bytes."""
        with open(self.path, "rb") as probe:
            packed = probe.read(2) == b"\x1f\x8b"
        return gzip.open(self.path, "rb") if packed else open(self.path, "rb")  # type: ignore[return-value]

    def head(self, size: int = 1 << 16) -> bytes:
        """Give the first bytes, unpacked."""
        try:
            with self.open() as handle:
                return handle.read(size)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{self.name}: can't be read: {error}") from error

    def beginning(self, size: int = 1 << 16) -> str:
        """Give the first bytes as text, as well as they can be read."""
        return self.head(size).decode(self.encoding, errors="replace").removeprefix("\ufeff")


Item = Row | Fault


def text_encoding(name: str) -> str:
    """Give the usual name of an encoding of text.

    Raises:
        ConfigError: there is none of this name, or it is for something else, such as domain names.
    """
    try:
        known = codecs.lookup(name)
    except (LookupError, ValueError):
        hint = suggest(name, ("utf-8", "utf-16", "latin-1", "cp1252", "ascii", "shift_jis", "gb18030"))
        raise ConfigError(f"unknown encoding {name!r}. {hint}".strip()) from None
    if known.name.replace("-", "_") in NO_TEXT or not getattr(known, "_is_text_encoding", True):
        raise ConfigError(
            f"{name!r} is not an encoding of text; utf-8, utf-16, latin-1 and cp1252 are usual."
        )
    return known.name


def lines(file: File) -> Iterator[tuple[int, str | Fault]]:
    r"""Give the lines, numbered from 1, without their ends; only \n and \r\n end a line.

    A line that is not valid in the encoding, or holds a NUL, is a Fault. A byte-order mark is left out.
    """
    if "\n".encode(file.encoding) != b"\n" or len("a".encode(file.encoding)) != 1:
        yield from _wide_lines(file)
        return
    offset = 0
    utf8 = file.encoding == "utf-8"
    try:
        with file.open() as handle:
            for number, raw in enumerate(handle, 1):
                start, offset = offset, offset + len(raw)
                if number == 1 and utf8:
                    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
                        raise DataError(
                            f"{file.name}: the file is UTF-16, not UTF-8; read it with --encoding utf-16"
                        )
                    if raw.startswith(b"\xef\xbb\xbf"):
                        raw, start = raw[3:], 3
                yield number, _decoded(raw, file, number, start)
    except (EOFError, zlib.error, OSError) as error:
        raise DataError(f"{file.name}: can't be read to its end: {error}") from error


def _decoded(raw: bytes, file: File, number: int, start: int) -> str | Fault:
    if b"\0" in raw:
        return Fault(
            "there is a NUL byte in the line; is this text? If it is UTF-16, say so with --encoding utf-16",
            file.name,
            number,
        )
    try:
        text = raw.decode(file.encoding)
    except UnicodeDecodeError as error:
        place = start + error.start
        return Fault(
            f"byte 0x{raw[error.start]:02x} at offset {place} is not {_called(file.encoding)}; {ENCODING_HINT}",
            file.name,
            number,
        )
    if text.endswith("\n"):
        text = text[:-2] if text.endswith("\r\n") else text[:-1]
    return text


def _wide_lines(file: File) -> Iterator[tuple[int, str | Fault]]:
    """Read encodings in which a line end is more than one byte, such as UTF-16."""
    import io

    try:
        with file.open() as handle, io.TextIOWrapper(handle, file.encoding, newline="\n") as text:
            for number, line in enumerate(text, 1):
                yield number, line.removesuffix("\n").removesuffix("\r").removeprefix("\ufeff")
    except UnicodeError as error:
        raise DataError(f"{file.name}: the file is not {_called(file.encoding)}: {error}") from error
    except (EOFError, zlib.error, OSError) as error:
        raise DataError(f"{file.name}: can't be read to its end: {error}") from error


def _called(encoding: str) -> str:
    return encoding.upper() if encoding.startswith(("utf", "ascii")) else encoding


def row(values: dict[str, object], file: File, line: int) -> Item:
    """Make a Row of values that pass `tidy`, or a Fault of those that do not."""
    clean = tidy(values)
    return Fault(clean, file.name, line) if isinstance(clean, str) else Row(clean, file.name, line)


# ---------------------------------------------------------------------------------------------------- plain text


def documents(file: File, mode: str) -> Iterator[Item]:
    """Give plain text as documents: the `file` whole, each `line`, or what stands between `blank` lines.

    A document of more than four million characters comes in several rows, cut before a line that starts a
    word, with `more` set on all but the last.
    """
    held: list[str] = []
    first, size, continued = 1, 0, False
    for number, line in lines(file):
        if isinstance(line, Fault):
            yield line
            continue
        blank = not line.strip()
        if mode == "line":
            if not blank:
                yield Row({"text": line}, file.name, number)
            continue
        if mode == "blank" and blank:
            yield from _document(held, file, first, end="", more=False)
            held, size, first, continued = [], 0, number + 1, False
            continue
        # Cut where no tokenizer joins both sides: after a line with text, before one that starts with text.
        if size > DOCUMENT_PIECE and held[-1].strip() and not blank and not line[0].isspace():
            yield from _document(held, file, first, end="\n", more=True)
            held, size, first, continued = [], 0, number, True
        held.append(line)
        size += len(line) + 1
    if mode != "line" and (held or not continued):
        end = "\n" if mode == "file" and _ends_with_newline(file) else ""
        yield from _document(held, file, first, end=end, more=False)


def _document(held: list[str], file: File, first: int, *, end: str, more: bool) -> Iterator[Row]:
    text = "\n".join(held) + end
    if text.strip():
        yield Row({"text": text}, file.name, first, more)


def _ends_with_newline(file: File) -> bool:
    with file.open() as handle:
        last = b""
        try:
            handle.seek(-1, 2)
            last = handle.read(1)
        except (OSError, ValueError):  # a packed file can't be read from its end
            while block := handle.read(1 << 20):
                last = block[-1:]
    return last == b"\n"


def whole(file: File, label: str) -> Iterator[Item]:
    """Give one file as one labelled text."""
    parts = []
    for _, line in lines(file):
        if isinstance(line, Fault):
            yield line
            return
        parts.append(line)
    yield row({"text": "\n".join(parts), "label": label}, file, 1)


def labelled(file: File) -> Iterator[Item]:
    """Give lines `LABEL text` (TREC) or `__label__LABEL text` (fastText)."""
    for number, line in lines(file):
        if isinstance(line, Fault):
            yield line
        elif line.strip():
            label, _, text = line.strip().partition(" ")
            if text.lstrip().startswith("__label__"):
                yield Fault("the line has more than one label", file.name, number)
                continue
            yield row({"text": text, "label": label.removeprefix("__label__")}, file, number)


def commands(file: File, between: str, before: str = "") -> Iterator[Item]:
    """Give lines that hold a source and a target with a mark between, as `IN: … OUT: …` or `… ||| …`."""
    for number, line in lines(file):
        if isinstance(line, Fault):
            yield line
        elif line.strip():
            source, mark, target = line.strip().partition(between)
            if not mark or not source.startswith(before):
                yield Fault(
                    f"the line lacks {before + ' …' if before else ''}{between.rstrip()!r}", file.name, number
                )
                continue
            yield row({"source": source.removeprefix(before), "target": target}, file, number)


def parallel(files: Sequence[File], fields: Sequence[str]) -> Iterator[Item]:
    """Give files that belong together line by line; raises DataError where their lengths differ."""
    for group in zip_longest(*map(lines, files)):
        if None in group:
            counts = [sum(1 for _ in lines(f)) for f in files]
            told = ", ".join(f"{f.name} has {n} lines" for f, n in zip(files, counts, strict=True))
            raise DataError(f"{told}: parallel files must have as many lines as each other")
        number = group[0][0]
        faults = [line for _, line in group if isinstance(line, Fault)]
        texts = [line for _, line in group if isinstance(line, str)]
        if faults:
            yield faults[0]
        elif any(text.strip() for text in texts):
            yield row(dict(zip(fields, texts, strict=True)), files[0], number)


def conll(file: File) -> Iterator[Item]:
    """Give sentences of one token a line, its tag in the last column, with blank lines between sentences."""
    words: list[str] = []
    tags: list[str] = []
    first = 0
    fault: Fault | None = None
    for number, line in lines(file):
        if isinstance(line, Fault):
            fault = fault or line
            continue
        if not line.strip():
            if fault or words:
                yield fault or Row({"words": words, "tags": tags}, file.name, first)
            words, tags, fault = [], [], None
            continue
        parts = line.split("\t") if "\t" in line else line.split()
        if parts[0] == "-DOCSTART-" or (line.startswith("# ") and "\t" not in line and len(parts) != 2):
            continue
        first = first if words else number
        word, tag = parts[0].strip(), parts[-1].strip()
        if len(parts) < 2 or not word or not tag:
            reason = f"a line needs a token and, last, its tag; here is {line.strip()[:40]!r}"
            fault = fault or Fault(reason, file.name, number)
        words.append(word)
        tags.append(tag)
    if fault or words:
        yield fault or Row({"words": words, "tags": tags}, file.name, first)
