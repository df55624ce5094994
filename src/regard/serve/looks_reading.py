"""What a page asks about a look: windows, numbers, who attends to a word, and what every head does."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from regard.errors import ConfigError
from regard.look.draw.payload import WHOLE
from regard.look.measures import Measure, measure
from regard.look.reading import Link, Look
from regard.look.roles import RULES, Role, roles
from regard.look.tiles import Kind, Pyramid
from regard.serve.looks_store import Kept

__all__ = ["CELLS", "Span", "links_to", "numbers_of", "roles_of", "window_of"]

CELLS = 512 * 512
"""Cells of a window, at most; of single weights as many as the page holds of a whole head."""

_SAMPLED, _EXACT = 2**19, 2**24  # weights that a window computes: some 6 and 80 ms of one core
_SLOW = 2**22  # of one that is computed alone
_MEASURED = 2**26  # weights that are measured before rows are sampled
_ASKED = 2**32  # weights that are summed up for one word
_MEASURES = {rule.role: rule.measure for rule in RULES}


class Span:
    """Hold a window as it is answered: what was asked for, cut to the matrix and to a bounded number of cells.

    Args:
        pyramid: of the head.
        rows: tokens [first, last + 1) that look.
        columns: tokens that are looked at.
        cell: tokens along a side of a cell; one that holds the whole matrix is as good as any larger one.
        sampled: whether a sampled answer is good enough.

    Raises:
        ConfigError: the window is empty or lies outside the matrix.
    """

    def __init__(
        self, pyramid: Pyramid, rows: tuple[int, int], columns: tuple[int, int], cell: int, *, sampled: bool
    ) -> None:
        (high, wide), (row, row_end), (column, column_end) = pyramid.shape, rows, columns
        if not (row < min(row_end, high) and column < min(column_end, wide)):
            raise ConfigError(f"the window is empty or lies outside the matrix of {high:,} x {wide:,}.")
        if not cell & (cell - 1):  # what is no power of two is refused with the window
            cell = min(cell, pyramid.largest_cell)
        self.pyramid, self.row, self.column, self.cell = pyramid, row, column, cell
        most = WHOLE if cell == 1 else CELLS
        self.columns = min(-(-(min(column_end, wide) - column) // cell), most)
        self.rows = min(-(-(min(row_end, high) - row) // cell), max(1, most // self.columns))
        self.cost = min(self.rows * cell, high - row) * min(self.columns * cell, wide - column)
        self.sampled = sampled or self.cost > _EXACT

    @property
    def slow(self) -> bool:
        """Tell whether it takes long enough that others should not wait for it."""
        kept = self.pyramid.complete and self.cell >= self.pyramid.base
        return not kept and not self.sampled and self.cost > _SLOW


def window_of(span: Span, kind: Kind) -> tuple[Tensor, bool]:
    """Give the values of a window, (R, C), and whether they are exact."""
    grid = span.pyramid.window(
        span.row, span.column, cell=span.cell, rows=span.rows, columns=span.columns, kind=kind,
        exact=not span.sampled, most=_SAMPLED,
    )  # fmt: skip
    return grid.values, grid.sampled is None


def numbers_of(kept: Kept, layer: int, head: int, row: int, column: int) -> dict[str, Any]:
    """Give everything that makes one weight, as the page's `Numbers`.

    Raises:
        Missing: there is no such layer or head.
        ConfigError: there is no such row or column.
    """
    found, head = kept.head(layer, head)
    check_place(found.shape, row, column)
    found.check_product()
    begin, end = found.spans[row].tolist()
    bias = None if found.relative is None else float(found.relative[head, column - row + found.shape[0] - 1])
    return {
        "query": found.query[head, row].float().tolist(),
        "key": found.key[head * found.kv_heads // found.heads, column].float().tolist(),
        "scale": found.scale,
        "softcap": found.softcap,
        "bias": bias,
        "normaliser": float(found.normaliser[head, row]),
        "visible": begin <= column < end,
    }


def check_place(shape: tuple[int, int], row: int = 0, column: int = 0) -> None:
    """Refuse what lies outside a matrix.

    Raises:
        ConfigError: it does.
    """
    for name, place, size in (("row", row, shape[0]), ("column", column, shape[1])):
        if not 0 <= place < size:
            raise ConfigError(f"there are {name}s 0 to {size - 1:,}; there is no {name} {place:,}.")


def links_to(
    kept: Kept, word: str, *, side: str | None, top: int, check: Callable[[], None]
) -> list[dict[str, Any]]:
    """List who attends most to a word, or to a token where no word is written so but its number.

    Args:
        kept: a look.
        word: as `Look.to` takes it.
        side: of which text; None: the only one, or the source.
        top: how many.
        check: called after each layer; what it raises ends the search.

    Raises:
        ConfigError: there is no such word or text, or it is as long as a text.
    """
    look = kept.look
    name = side or next(iter(look.sides))
    if name not in look.sides:
        raise ConfigError(f"there is no {name!r}; there is {' and '.join(look.sides)}.")
    chosen = look.sides[name]
    named = word in {one.text for one in chosen.words} | {one.text for one in chosen.tokens}
    plain = not named and word.removeprefix("-").isdecimal() and word.isascii() and len(word) < 12
    target = chosen.find(int(word) if plain else word)
    looking = {layer: one for layer, one in look.layers.items() if look.columns_of(layer) is chosen}
    cost = sum(one.heads * one.shape[0] for one in looking.values()) * (target.end - target.start)
    if cost > _ASKED:
        raise ConfigError(
            f"this word has {target.end - target.start:,} tokens, too many for so long a text; "
            "give the number of one of them."
        )
    found: list[Link] = []
    for layer, captured in looking.items():
        found += Look(look.sides, {layer: captured}).to(int(word) if plain else word, side=name, top=top)
        check()
    found.sort(key=lambda link: -link.value)
    return [
        {
            "layer": link.layer, "head": link.head, "from": link.word.text, "weight": link.value,
            "row": link.word.start, "column": target.start,
        }
        for link in found[:top]
    ]  # fmt: skip


def roles_of(kept: Kept, check: Callable[[], None]) -> dict[str, Any]:
    """Measure every head and tell its roles; of long texts over some rows, which is said.

    Args:
        kept: a look, which keeps the answer.
        check: called after each layer; what it raises ends the measuring.
    """
    if "roles" in kept.found:
        return kept.found["roles"]
    layers = kept.look.layers
    whole = sum(one.heads * one.shape[0] * one.shape[1] for one in layers.values())
    wide = sum(one.heads * one.shape[1] for one in layers.values())
    rows = None if whole <= _MEASURED else max(32, _MEASURED // wide)
    heads: list[dict[str, Any]] = []
    sampled = False
    for name in layers:
        measured = measure(kept.look, layers=[name], rows=rows)
        told = roles(measured)
        for one in measured:
            sampled |= one.sampled
            heads.append(
                {
                    "layer": one.layer, "head": one.head,
                    "roles": [_role(role, one.values) for role in told[one.layer, one.head]],
                    "measures": {key: _plain(value) for key, value in one.values.items()},
                }
            )  # fmt: skip
        check()
    kept.found["roles"] = {"heads": heads, "sampled": sampled}
    return kept.found["roles"]


def _role(role: Role, values: Any) -> dict[str, Any]:
    measured = values.get(_MEASURES.get(role.name, ""), Measure(math.nan, math.nan, 0))
    return {"name": role.name, "score": role.score, "why": role.why, **_plain(measured)}


def _plain(measured: Measure) -> dict[str, Any]:
    return {"value": measured.value, "baseline": measured.baseline, "n": measured.n}
