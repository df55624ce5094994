"""From tags of tokens to entities with their places in the text; and texts into words, with theirs.

tags of tokens ─> units of whole characters ─> words, by a strategy ─> runs of one kind ─> Entity
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regard.tasks.metrics import spans

__all__ = ["STRATEGIES", "Entity", "Span", "clusters", "find_entities", "split_words"]

STRATEGIES = ("none", "simple", "first", "average", "max")
"""How the tags of a word's tokens become one; see `find_entities`."""

Span = tuple[int, int]
Rows = Sequence[NDArray[Any]]

_JOINER = "\u200d"
_SKIN = range(0x1F3FB, 0x1F400)  # skin tones, which change the emoji before them
_TAGS = range(0xE0020, 0xE0080)  # the letters in the flag of a region
_LETTERS = range(0x1F1E6, 0x1F200)  # two of them are a flag
# Scripts that put no spaces between words, where a character is taken for a word, as published data sets do: Han,
# kana and their extensions. The marks that lengthen a kana stay with it.
_ALONE = re.compile("[\u2e80-\u2fdf\u3005-\u3007\u3041-\u3096\u309f-\u30fa\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
                    "\U00020000-\U0003ffff]")  # fmt: skip
_BREAKS = re.compile(
    "[—…‥]|--+|[\u3000-\u3004\u3008-\u303f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65]"
)
_CUTS = re.compile(f"{_ALONE.pattern}|{_BREAKS.pattern}")
_ABBREVIATION = re.compile(
    r"(?:[^\W\d_]{1,3}\.){2,}|(?:[^\W\d_]|Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|No|vs)\."
)  # U.S., J., Dr.
_ENDING = re.compile(r"['’](?:[smd]|re|ve|ll)", re.IGNORECASE)  # where data has cut it off already
_CLITIC = re.compile(r"['’][sS]$")


@dataclass(frozen=True)
class Entity:
    """Hold a part of a text and what it is.

    Attributes:
        label: its kind, "PER"; with the strategy "none" the whole tag, "B-PER".
        text: exactly `source[start:end]`, whatever the tokenizer makes of it.
        start: its first character in the text.
        end: the character after its last one.
        score: the mean probability of the tags of its words (or tokens), 0 to 1.
    """

    label: str
    text: str
    start: int
    end: int
    score: float


@dataclass
class _Unit:
    """Hold whole characters, or a word, with the tags' probabilities of the tokens that stand for them."""

    start: int
    end: int
    rows: list[NDArray[Any]]
    begins: bool
    tag: int | None = None  # where it isn't for the rows to say


def clusters(text: str) -> list[int]:
    """Give for each character where the one that a reader sees begins; one more for the end of the text.

    A letter with its combining marks, an emoji with its tone, emoji that are joined, and a flag are one to a reader.
    A part of what Unicode's Annex 29 calls extended grapheme clusters.
    """
    if text.isascii():
        return list(range(len(text) + 1))
    starts: list[int] = []
    for i, character in enumerate(text):
        joined = i > 0 and not text[i - 1].isspace() and _joins(text[i - 1], character, i - 1 - starts[i - 1])
        starts.append(starts[i - 1] if joined else i)
    return [*starts, len(text)]


def _joins(before: str, character: str, length: int) -> bool:
    """Say whether a character belongs to the one before it, which is the `length`-th of its cluster, from 0."""
    code = ord(character)
    if before == _JOINER:
        return not character.isspace()
    if code in _LETTERS:
        return ord(before) in _LETTERS and length % 2 == 0
    marks = character == _JOINER or code in _SKIN or code in _TAGS
    return marks or unicodedata.category(character)[0] == "M"


def split_words(text: str) -> list[Span]:
    """Cut a text into words as data sets of words have them: (start, end) of each.

    At spaces; punctuation and signs at a word's borders stand alone, and so do the English 's and each character of
    Chinese and Japanese. Kept whole are what has punctuation within (well-known, 3.14, a@b.org), abbreviations
    (U.S., J.) and @names and #topics.
    """
    words: list[Span] = []
    bounds = clusters(text)
    for match in re.finditer(r"\S+", text):
        for start, end in _parts(text, bounds, *match.span()):
            words += _borders(text, bounds, start, end)
    return words


def _after(bounds: Sequence[int], place: int) -> int:
    """Give where the cluster that holds a character ends."""
    place += 1
    while bounds[place] != place:
        place += 1
    return place


def _parts(text: str, bounds: Sequence[int], start: int, end: int) -> Iterator[Span]:
    """Cut a word without spaces where no space is needed: at dashes, wide punctuation and around ideographs."""
    last = start
    for match in _CUTS.finditer(text, start, end):
        here, there = match.start(), _after(bounds, match.end() - 1)
        if last < here:
            yield last, here
        yield here, there
        last = there
    if last < end:
        yield last, end


def _borders(text: str, bounds: Sequence[int], start: int, end: int) -> list[Span]:
    """Take punctuation off both ends of a word, a sign at a time, equal ones such as `...` together."""
    before: list[Span] = []
    after: list[Span] = []
    while start < end and _is_sign(text[start]) and not _ENDING.fullmatch(text, start, end):
        if text[start] in "@#" and end - start > 1 and (text[start + 1].isalnum() or text[start + 1] == "_"):
            break
        stop = _after(bounds, start)
        sign = text[start:stop]
        while stop < end and text[stop : _after(bounds, stop)] == sign:
            stop = _after(bounds, stop)
        before.append((start, stop))
        start = stop
    while end > start and _is_sign(text[bounds[end - 1]]) and not _ABBREVIATION.fullmatch(text, start, end):
        stop = bounds[end - 1]
        sign = text[stop:end]
        while stop > start and text[bounds[stop - 1] : stop] == sign:
            stop = bounds[stop - 1]
        after.append((stop, end))
        end = stop
    if start < end and (clitic := _CLITIC.search(text[start:end])) and clitic.start():
        after.append((start + clitic.start(), end))
        end = start + clitic.start()
    return [*before, *([(start, end)] if start < end else []), *reversed(after)]


def _is_sign(character: str) -> bool:
    return unicodedata.category(character)[0] in "PS"


def find_entities(
    text: str, places: Sequence[Span], rows: Rows, begins: Sequence[bool], labels: Sequence[str], *, strategy: str,
    chosen: Sequence[int] | None = None,
) -> tuple[Entity, ...]:  # fmt: skip
    """Find entities in a text from the probabilities of its tokens' tags.

    They are in order and don't overlap. BIO, IOB1, IOBES, BILOU and tags without a prefix are read alike, see
    `metrics.spans`; "O" is no entity. Tokens that share a character, such as the bytes of an emoji, are one, since
    half a character can't be shown; and an entity never ends between a letter and its combining mark.

    Args:
        text: the source.
        places: the characters of each token.
        rows: for each token the probability of each tag.
        begins: whether a token begins a word.
        labels: the tags' names.
        strategy: "none" gives each token that isn't "O", with its tag. "simple" joins tokens of one kind. The others
            give each word one tag before words of one kind are joined: that of its "first" token, of the mean of its
            tokens' probabilities ("average"), or of its surest token ("max").
        chosen: the tag of each token, chosen already: the rows only say how sure that is. What is joined has the tag
            of its first token.
    """
    units = _units(text, places, rows, begins, chosen)
    if strategy in ("first", "average", "max"):
        units = _words(units)
    tagged = [_tag(unit, strategy) for unit in units]
    names = [labels[number] for number, _ in tagged]
    if strategy == "none":
        found = [(name, i, i + 1) for i, name in enumerate(names) if name != "O"]
    else:
        found = sorted(spans(names), key=lambda span: span[1])
    return tuple(
        Entity(
            name, text[units[first].start : units[last - 1].end], units[first].start, units[last - 1].end,
            float(np.mean([score for _, score in tagged[first:last]])),
        )
        for name, first, last in found
    )  # fmt: skip


def _units(
    text: str, places: Sequence[Span], rows: Rows, begins: Sequence[bool], chosen: Sequence[int] | None
) -> list[_Unit]:
    """Bring tokens to whole characters without the spaces around them, and join those that share one."""
    bounds = clusters(text)
    found: list[_Unit] = []
    units: list[_Unit] = []
    tags = [None] * len(places) if chosen is None else chosen
    for (start, end), row, begin, tag in zip(places, rows, begins, tags, strict=True):
        part = text[start:end]
        start, end = end - len(part.lstrip()), start + len(part.rstrip())
        if start >= end:
            continue  # a token of spaces, or a mark that stands for no character
        start = bounds[start]
        while end < len(text) and bounds[end] != end:
            end += 1
        found.append(_Unit(start, end, [row], begin, tag))
    # A normaliser may change the order of combining marks, and with it that of tokens.
    for unit in sorted(found, key=lambda unit: (unit.start, unit.end)):
        if units and unit.start < units[-1].end:
            units[-1].end = max(units[-1].end, unit.end)
            units[-1].rows += unit.rows
        else:
            units.append(unit)
    return units


def _words(units: Sequence[_Unit]) -> list[_Unit]:
    words: list[_Unit] = []
    for unit in units:
        if not words or unit.begins:
            words.append(_Unit(unit.start, unit.end, [*unit.rows], True, unit.tag))
        else:
            words[-1].end = unit.end
            words[-1].rows += unit.rows
    return words


def _tag(unit: _Unit, strategy: str) -> tuple[int, float]:
    """Choose a tag and give its probability."""
    rows = unit.rows
    if unit.tag is not None:
        return unit.tag, float(rows[0][unit.tag])
    if strategy == "first":
        row = rows[0]
    elif strategy == "max":
        row = max(rows, key=lambda row: float(row.max()))
    else:
        row = np.mean(rows, axis=0)
    best = int(row.argmax())
    return best, float(row[best])
