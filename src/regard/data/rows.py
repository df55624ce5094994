"""What a source yields: rows and faults; which columns feed which field; what a value may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from regard.errors import ConfigError, DataError, suggest

__all__ = ["Fault", "Row", "check_columns", "check_single", "choose", "is_header", "tidy"]

# Names that published data sets give to the columns; a header is recognised by them.
ALIASES = {
    "source": ("source", "src", "input", "inputs"),
    "target": ("target", "tgt", "output", "outputs"),
    "text": ("text", "sentence", "content", "document"),
    "label": ("label", "labels", "category", "class", "intent"),
    "words": ("words", "tokens"),
    "tags": ("tags", "ner_tags", "labels"),
    "messages": ("messages", "conversation", "conversations"),
}
SEQUENCES = ("words", "tags")


@dataclass(frozen=True, slots=True)
class Row:
    """One example as it stands in the data.

    `values` holds a string for each field asked for, for words and tags a list of strings, and for messages a list of
    objects with a role and a content. `line` counts
    from 1 (rows, in Parquet and hub data). `more` says that the next row continues the same document.
    """

    values: dict[str, object]
    path: str
    line: int
    more: bool = False


@dataclass(frozen=True, slots=True)
class Fault:
    """A row that can't be used, and why; line 0 speaks of the whole file."""

    reason: str
    path: str
    line: int

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else self.path
        return f"{place}: {self.reason}"


def check_columns(columns: Sequence[str] | None, fields: Sequence[str]) -> None:
    """Refuse a list of columns that does not give one for each field."""
    if columns is not None and len(columns) != len(fields):
        raise ConfigError(
            f"--columns names {len(columns)} columns ({', '.join(columns)}), but {len(fields)} are needed, "
            f"in this order: {', '.join(fields)}"
        )


def is_header(names: Sequence[str], fields: Sequence[str]) -> bool:
    """Tell whether the first line of a table names its columns rather than holding values."""
    known = {alias for field in fields for alias in ALIASES.get(field, (field,))}
    return any(name.strip().casefold() in known for name in names)


def check_single(name: str, names: Sequence[str], where: str) -> None:
    """Refuse a column whose name another one has too; raises DataError with the numbers of both."""
    places = [str(place) for place, other in enumerate(names, 1) if other == name]
    if len(places) > 1:
        raise DataError(
            f"{where}: columns {' and '.join(places)} have the same name, {name!r}; rename one, or for a CSV or TSV "
            "file give --columns as numbers"
        )


def choose(
    names: Sequence[str], fields: Sequence[str], columns: Sequence[str] | None, where: str
) -> list[str]:
    """Find for each field the column that feeds it; raises DataError naming the columns there are."""
    found = []
    for position, field in enumerate(fields):
        wanted = [columns[position]] if columns else ALIASES.get(field, (field,))
        folded = {name.strip().casefold(): name for name in reversed(names)}
        matches = [folded[w.casefold()] for w in wanted if w.casefold() in folded]
        free = [name for name in matches if name not in found]
        for name in free[:1]:
            check_single(name, names, where)
        if not free:
            shown = ", ".join(names[:20]) or "none"
            if columns:
                hint = suggest(columns[position], names)
                raise DataError(
                    f"{where}: there is no column {columns[position]!r}; there are: {shown}. {hint}".strip()
                )
            raise DataError(
                f"{where}: no column is named {field!r}; there are: {shown}. Name the columns for "
                f"{', '.join(fields)} with --columns"
            )
        found.append(free[0])
    return found


def tidy(values: Mapping[str, object]) -> dict[str, object] | str:
    """Make the values what a Row promises, or say what is wrong with them."""
    clean: dict[str, object] = {}
    for field, value in values.items():
        if field == "messages":
            if (wrong := _wrong_messages(value)) is not None:
                return wrong
            clean[field] = value
            continue
        if field in SEQUENCES:
            items = value.split() if isinstance(value, str) else value
            if not isinstance(items, list) or not all(isinstance(i, (str, int)) for i in items):
                return f"the {field} are {_shown(value)}, not a list of strings"
            if not items:
                return f"there are no {field}"
            if any(isinstance(i, str) and _is_cut(i) for i in items):
                return _CUT.format(field)
            clean[field] = [str(i) for i in items]
            continue
        if field == "label" and isinstance(value, int):
            value = str(value)
        if not isinstance(value, str):
            return f"the {field} is {_shown(value)}, not a string"
        if "\0" in value:
            return f"the {field} holds a NUL character"
        if _is_cut(value):
            return _CUT.format(field)
        if not value.strip():
            return f"the {field} is empty"
        clean[field] = value if field == "text" and "label" not in values else value.strip()
    words, tags = clean.get("words"), clean.get("tags")
    if isinstance(words, list) and isinstance(tags, list) and len(words) != len(tags):
        return f"there are {len(words)} words but {len(tags)} tags"
    return clean


_CUT = "half a character (a lone surrogate, as \\ud83d) stands in the {}"


def _is_cut(text: str) -> bool:
    """Tell whether a text holds a lone surrogate, which JSON can write down and no file of text can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _wrong_messages(value: object) -> str | None:
    """Say what is wrong with a conversation; None where nothing is."""
    if not isinstance(value, list) or not value:
        return f"the messages are {_shown(value)}, not a list of objects with role and content"
    for number, message in enumerate(value, 1):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            return f"message {number} is {_shown(message)}, not an object with role and content"
        if message["role"] == "assistant" and not isinstance(message.get("content"), str):
            return (
                f"message {number}, an answer, has the content {_shown(message.get('content'))}, not a string"
            )
        if any(isinstance(text, str) and _is_cut(text) for text in message.values()):
            return _CUT.format(f"message {number}")
    if not any(message["role"] == "assistant" for message in value):
        return "there is no message of the assistant to learn from"
    return None


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
