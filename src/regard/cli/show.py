"""What every verb uses to print: text that cannot harm a terminal, and one face for people and for programs.

    output = Output(json=json)
    output.line(f"{tokens} tokens")       # people read it: stdout, or stderr under --json
    output.table(rows)                    # the same
    output.result({"tokens": tokens})     # programs read it: one JSON object on stdout, under --json alone

A verb prints through this, never with `print`.
"""

from __future__ import annotations

import math
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, TextIO

__all__ = ["Output", "one_line", "plain", "printable"]

# Overrides, embeddings, isolates and marks that make text read in another order than it is stored (Unicode
# Annex 9), and the tag characters, which hide a second text in the first.
_DIRECTION = {0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
_TAGS = range(0xE0000, 0xE0080)
_UNSAFE_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}


def printable(text: str, *, keep: str = "") -> str:
    r"""Show what could steer a terminal or reorder a line as an escape such as `\x1b` or `\u202e`.

    Control characters (C0, C1 and delete), terminal escapes, bidirectional controls, line separators, tag
    characters and lone surrogates are replaced; letters of every script, accents, emoji and their joiners
    stay. `keep` names control characters to leave as they are, for instance `"\n"`.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(character) if _unsafe(character, keep) else character for character in text)


def one_line(text: str) -> str:
    """Make a message safe and put it on one line: line breaks become spaces, other controls escapes."""
    return printable(" ".join(part.strip() for part in text.split("\n") if part.strip()))


def plain(value: Any) -> Any:
    """Turn a value into what JSON can hold.

    Numbers of numpy and torch become Python's, paths and enumerations their text, dataclasses and named
    tuples objects, sets sorted lists; NaN and the infinities, which JSON lacks, become null.

    Raises:
        TypeError: for a value that has no such form.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, (set, frozenset)):
        return sorted(plain(item) for item in value)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        # What a dataclass leaves out of its own text (ids beside a text) is left out here too.
        shown = [name for name, one in value.__dataclass_fields__.items() if one.repr]
        return {name: plain(getattr(value, name)) for name in shown}
    if hasattr(value, "tolist"):  # numpy's and torch's arrays and scalars
        return plain(value.tolist())
    raise TypeError(f"{type(value).__name__} has no form in JSON")


class Output:
    """Print for people by default; under `--json` standard output carries one JSON object alone.

    Every text is made safe with `printable`. Streams are looked up when something is printed, so that a
    caller may redirect them; `out` and `err` fix them.
    """

    def __init__(self, json: bool = False, *, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.json = json
        self._out = out
        self._err = err
        self._done = False

    @property
    def stream(self) -> TextIO:
        """Give the stream that people read: standard output, or standard error under `--json`."""
        if self.json:
            return self._err if self._err is not None else sys.stderr
        return self._out if self._out is not None else sys.stdout

    def line(self, text: str = "") -> None:
        """Print a line of text; line breaks in it stay."""
        print(printable(text, keep="\n"), file=self.stream, flush=True)

    def note(self, text: str) -> None:
        """Print a line about the work, such as progress or a warning: always to standard error."""
        print(printable(text, keep="\n"), file=self._err if self._err is not None else sys.stderr, flush=True)

    def table(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
        """Print rows as aligned columns, headed by their names; numbers stand to the right.

        `columns` chooses and orders; by default the first row's keys. No rows, no table.
        """
        if not rows:
            return
        names = list(columns) if columns is not None else list(rows[0])
        cells = [[_cell(row.get(name)) for name in names] for row in rows]
        widths = [
            max(_width(line[k]) for line in [[printable(name) for name in names], *cells])
            for k in range(len(names))
        ]
        right = [all(isinstance(row.get(name), (int, float, type(None))) for row in rows) for name in names]
        for line in [[printable(name) for name in names], *cells]:
            padded = (
                _pad(text, width, right=side) for text, width, side in zip(line, widths, right, strict=True)
            )
            print("  ".join(padded).rstrip(), file=self.stream, flush=True)

    def result(self, values: Mapping[str, Any]) -> None:
        """Print the command's one JSON object on standard output under `--json`, and otherwise nothing."""
        assert not self._done, "a command has one result"
        self._done = True
        if self.json:
            import json

            # ASCII alone, so that no terminal and no encoding stands between the object and its reader.
            text = json.dumps(plain(values), ensure_ascii=True, allow_nan=False)
            print(text, file=self._out if self._out is not None else sys.stdout, flush=True)


def _unsafe(character: str, keep: str) -> bool:
    code = ord(character)
    if code in _DIRECTION or code in _TAGS:
        return True
    return unicodedata.category(character) in _UNSAFE_CATEGORIES and character not in keep


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _cell(value: Any) -> str:
    """Write one cell: numbers short, nothing as a dash."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return printable(str(value))


def _width(text: str) -> int:
    """Count the columns a terminal uses, which are two for a wide character and none for a combining one."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _pad(text: str, width: int, *, right: bool) -> str:
    space = " " * (width - _width(text))
    return space + text if right else text + space
