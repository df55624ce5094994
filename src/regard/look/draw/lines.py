"""Which words stand on a line, and which links between two lines are drawn."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from jaxtyping import Float
from torch import Tensor

from regard.look.draw.picture import Strand
from regard.look.reading import Word

__all__ = ["LEFT_OUT", "elided", "indices_of", "kept_words", "near", "places_of", "runs_left", "strands_of"]

_LINE = 96  # words of a line, at most
_AROUND = 3  # words to each side of one that looks, in a long text
LEFT_OUT = Word("…", -1, -1, special=True)
_WEAK = 0.02  # a word's weight that gets no line of its own
_LINKS = 2  # links a word, of all rows
_WEAKEST_LINK = 0.05


def strands_of(
    values: Float[Tensor, "R C"], rows: Sequence[int], columns: Sequence[int], is_one: bool
) -> tuple[list[Strand], float]:
    """Choose the links: of one row all of them, of many rows the strongest; and from which weight they are drawn."""
    if is_one or not values.numel():
        return [Strand(rows[0], c, float(v)) for v, c in zip(values.flatten(), columns, strict=False)], _WEAK
    flat = values.flatten()
    best = flat.topk(min(_LINKS * len(rows), len(flat)))
    count = max(int((best.values >= _WEAKEST_LINK).sum()), min(len(rows), int((best.values > 0).sum())))
    least = float(best.values[count - 1]) if count else 0.0
    found = [
        Strand(rows[int(i) // len(columns)], columns[int(i) % len(columns)], float(v))
        for v, i in zip(best.values[:count], best.indices[:count], strict=True)
    ]
    return sorted(found, key=lambda one: one.weight), least


def near(looker: Sequence[int]) -> list[int]:
    """Give a word's places, and some around it to read it by."""
    around = range(min(looker) - _AROUND, max(looker) + _AROUND + 1) if looker else range(0)
    return [*looker, *around]


def kept_words(size: int, wanted: Iterable[int], most: int) -> list[int]:
    """Choose the words of a line: all, or of a long one as many of the wanted as it takes."""
    if size <= _LINE:
        return list(range(size))
    chosen: dict[int, None] = {}
    for place in wanted:
        if len(chosen) < most and 0 <= place < size:
            chosen[place] = None
    return sorted(chosen)


def elided(line: Sequence[Word], kept: Sequence[int]) -> tuple[Word, ...]:
    """Give the words that are kept, with dots where some are left out."""
    found: list[Word] = []
    before = -1
    for place in kept:
        if place > before + 1:
            found.append(LEFT_OUT)
        found.append(line[place])
        before = place
    if before + 1 < len(line):
        found.append(LEFT_OUT)
    return tuple(found)


def indices_of(line: Sequence[Word], columns: Sequence[Word]) -> list[int]:
    """Give the places of words on a line that has them."""
    place = {word.start: k for k, word in enumerate(line)}
    return [place[word.start] for word in columns]


def places_of(line: Sequence[Word], word: Word) -> tuple[int, ...]:
    """Give the places on a line that share a token with a word."""
    return tuple(k for k, one in enumerate(line) if one.start < word.end and one.end > word.start)


def runs_left(line: Sequence[Word]) -> bool:
    """Tell whether most letters of a line are of a script that runs from right to left."""
    kinds = [unicodedata.bidirectional(c) for word in line if not word.special for c in word.text]
    return sum(kind in ("R", "AL") for kind in kinds) > sum(kind == "L" for kind in kinds)
