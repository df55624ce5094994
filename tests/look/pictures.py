"""Pictures of tiny models of each kind, and a look whose words are hostile."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from tests.tasks.small import make_parts

from regard.config import Kind
from regard.look.draw import views
from regard.look.draw.picture import Picture
from regard.look.reading import Look, Side, Token, Word
from regard.tasks.looking import look

KINDS: tuple[Kind, ...] = ("encoder", "decoder", "encoder-decoder")
TEXT = "a dog runs"
HOSTILE = (
    "<script>alert(1)</script>", '" onload="x', "\u202egnp", "\x1b[2J", "a & b", "$x^2$", "]]>", "\ud800", "\x00",
    "東京", "הכביש", "\u2066x",
)  # fmt: skip


@cache
def look_at(kind: Kind, text: str = TEXT) -> Look:
    """Look at a text, with a tiny model of a kind."""
    return look(make_parts(kind), text, "un chat" if kind == "encoder-decoder" else None)


def named(side: Side, words: Sequence[str]) -> Side:
    """Give the tokens of a text other names, each a word."""
    names = [*words, *("x" for _ in side.tokens)][: len(side.tokens)]
    tokens = tuple(Token(name, i, i + 1) for i, name in enumerate(names))
    return Side(
        side.name, " ".join(names), side.ids, tokens, tuple(Word(t.text, t.start, t.end) for t in tokens)
    )


@cache
def hostile_look() -> Look:
    """Look at words that want to be markup, scripts, controls and formulas."""
    found = look(make_parts("encoder-decoder"), "a dog runs a cat", "two birds sing.")
    sides = {name: named(side, HOSTILE) for name, side in found.sides.items()}
    return Look(sides, found.layers, "<b>model</b>")


def pictures_of(found: Look) -> dict[str, Picture]:
    """Draw every view."""
    last = list(found.layers)[-1]
    side = found.rows_of(last)
    words = views.Shown(words=True, hide=("first", "special"), renormalise=True)
    return {
        "matrix": views.matrix(found, last, 0),
        "mean": views.matrix(found, last, None, words),
        "arcs": views.arcs(found, next(iter(found.layers)), 1),
        "row": views.arcs(found, last, 1, len(side.tokens) - 1),
        "alignment": views.alignment(found, last, 0, None, views.Shown(words=True)),
        "aligned row": views.alignment(found, last, 0, 0),
        "heads": views.heads(found, last),
        "overview": views.overview(found),
        "numbers": views.numbers(found, last, 1, 1, 0),
        "map": views.map_of(found, last, 0),
    }
