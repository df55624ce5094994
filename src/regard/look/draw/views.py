"""From a look to pictures: which numbers each view shows, and what its caption must say of them."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch

from regard.errors import ConfigError
from regard.look.capture import Captured
from regard.look.draw.colours import Scale
from regard.look.draw.lines import (
    LEFT_OUT,
    elided,
    indices_of,
    kept_words,
    near,
    places_of,
    runs_left,
    strands_of,
)  # fmt: skip
from regard.look.draw.picture import Bars, Links, Panel, Panels, Picture, Step, Strand, View
from regard.look.reading import Hide, Look
from regard.look.tiles import Kind

__all__ = [
    "LABELLED", "Shown", "alignment", "arcs", "heads", "map_of", "matrix", "numbers", "overview",
]  # fmt: skip

LABELLED = 150  # cells a side that are drawn one by one, with their words; more are a picture of pixels
_MATRIX, _THUMB, _SMALL_THUMB, _HEAD, _MAP = 1024, 64, 32, 256, 512  # cells a side, at most
_MANY = 400  # heads of an overview that are drawn smaller
_OF_ALL, _OF_ONE = 48, 24  # words of a longer text: with all links, and with those of one word


class _Settings(TypedDict):
    words: bool
    hide: Collection[Hide]
    renormalise: bool


@dataclass(frozen=True)
class Shown:
    """Say what of the weights is shown; see `Look.row`."""

    words: bool = False
    hide: tuple[Hide, ...] = ()
    renormalise: bool = False

    @property
    def is_plain(self) -> bool:
        """Tell whether every weight is shown as it is."""
        return not (self.words or self.hide or self.renormalise)

    @property
    def settings(self) -> _Settings:
        """Give what `Look.row` and `Look.weights` take."""
        return {"words": self.words, "hide": self.hide, "renormalise": self.renormalise}


PLAIN = Shown()


def matrix(look: Look, layer: int | str, head: int | None = None, shown: Shown = PLAIN) -> Picture:
    """Show a head's matrix, words on both sides; a large one in cells of several tokens, the largest weight of each.

    Raises:
        ConfigError: no such layer or head.
    """
    found, head = look.where(layer, head)
    panel = _panel(look, found.name, head, shown, _MATRIX)
    return _picture(look, "matrix", (panel,), found.name, head)


def heads(look: Look, layer: int | str, shown: Shown = PLAIN) -> Picture:
    """Show all heads of a layer side by side, on one scale.

    Raises:
        ConfigError: no such layer, or a head was named.
    """
    found, head = look.where(layer)
    if head is not None:
        raise ConfigError("heads side by side are all of a layer; leave the head out.")
    panels = tuple(_panel(look, found.name, one, shown, _HEAD) for one in range(found.heads))
    return _picture(look, "heads", panels, found.name, None, across=min(4, found.heads))


def overview(look: Look, shown: Shown = PLAIN) -> Picture:
    """Show every head of every layer in little, stack by stack."""
    count = sum(layer.heads for layer in look.layers.values())
    side = _THUMB if count <= _MANY else _SMALL_THUMB
    stacks = {name.partition(".")[0]: None for name in look.layers}
    names = [name for stack in stacks for name in look.layers if name.partition(".")[0] == stack]
    panels = tuple(
        _panel(look, name, head, shown, side) for name in names for head in range(look.layers[name].heads)
    )
    across = max(layer.heads for layer in look.layers.values())
    return _picture(look, "overview", panels, None, None, across=across)


def map_of(look: Look, layer: int | str, head: int | None = None) -> Picture:
    """Show a whole matrix of any size in cells, twice: the largest weight of each, and the mean.

    Raises:
        ConfigError: no such layer or head.
    """
    found, head = look.where(layer, head)
    pyramid = look.tiles(found.name, head)
    longest = max(found.shape)
    cell = 1 << max(0, math.ceil(math.log2(longest / _MAP)))
    kinds: dict[Kind, str] = {"max": "largest weight of each cell", "mean": "mean of each cell"}
    if cell == 1:
        kinds = {"max": "every weight"}
    panels = tuple(
        Panel(
            name, grid.values, found.name, head, (), (), found.shape, cell, _sides(look, found.name),
            f"maximum and mean of cells of {cell} x {cell} tokens, exact" if cell > 1 else "every weight, exact",
        )
        for kind, name in kinds.items()
        for grid in [pyramid.window(cell=cell, rows=_MAP, columns=_MAP, kind=kind, exact=True)]
    )  # fmt: skip
    return _picture(look, "map", panels, found.name, head, across=len(panels))


def arcs(
    look: Look, layer: int | str, head: int | None = None, row: int | str | None = None, shown: Shown = PLAIN
) -> Picture:
    """Show the sentence, and what one word of it attends to, or the strongest links of all.

    Raises:
        ConfigError: no such layer, head or word.
    """
    return _linked(look, "arcs", layer, head, row, shown)


def alignment(
    look: Look, layer: int | str, head: int | None = None, row: int | str | None = None, shown: Shown = PLAIN
) -> Picture:
    """Show two lines, what is looked at above and what looks below, and the links between them.

    Raises:
        ConfigError: no such layer, head or word.
    """
    return _linked(look, "alignment", layer, head, row, shown)


def numbers(
    look: Look,
    layer: int | str,
    head: int | None = None,
    row: int | str = -1,
    column: int | str | None = None,
) -> Picture:
    """Show how one weight comes about, number by number.

    Args:
        look: a look.
        layer: its name or number, which may name the head.
        head: its number.
        row: which token looks; of a word its last.
        column: which is looked at; of a word the one that gets most; None: the one of all that gets most.

    Raises:
        ConfigError: no such layer, head or word, or no head.
    """
    found, head = look.where(layer, head)
    if head is None:
        raise ConfigError("one weight is of one head; name it.")
    found.check_product()
    side, other = look.rows_of(found.name), look.columns_of(found.name)
    i = side.find(row).end - 1
    weights = found.row(head, i)
    near = other.find(column) if column is not None else None
    places = range(near.start, near.end) if near else range(len(other.tokens))
    j = max(places, key=lambda place: float(weights[place]))
    query = found.query[head, i].double()
    key = found.key[head * found.kv_heads // found.heads, j].double()
    begin, end = found.spans[i].tolist()
    allowed = begin <= j < end
    bars = Bars(
        side.find(i), other.find(j), tuple(query.tolist()), tuple(key.tolist()),
        _steps(found, head, i, j, allowed=allowed), allowed,
    )  # fmt: skip
    how = f"token {i} looks at token {j}; computed in double precision"
    return Picture(
        "numbers", f"{_where(found.name, head)}: {bars.row.text} → {bars.column.text}", _text(look),
        _caption(look, found.name, head, how, found.error), bars, Scale(), found.name, head, how, found.error,
    )  # fmt: skip


def _steps(found: Captured, head: int, i: int, j: int, *, allowed: bool) -> tuple[Step, ...]:
    query = found.query[head, i].double()
    score = float(query @ found.key[head * found.kv_heads // found.heads, j].double())
    steps = [Step("sum of the products", "Σ q·k", score)]
    score *= found.scale
    steps.append(Step("times the scale", f"× {found.scale:.4g}", score))
    if found.softcap is not None:
        score = found.softcap * math.tanh(score / found.softcap)
        steps.append(Step("soft cap", f"{found.softcap:g} · tanh(· / {found.softcap:g})", score))
    if found.relative is not None:
        bias = float(found.relative[head, j - i + found.shape[0] - 1])
        score += bias
        steps.append(Step("plus the position's bias", _signed(bias), score))
    if not allowed:
        return (*steps, Step("not allowed: the weight", "mask", 0.0))
    total = float(found.scores(head, [i], slice(None), double=True).logsumexp(-1))
    steps.append(Step("minus the row's log-sum-exp", _signed(-total), score - total))
    return (*steps, Step("exponential: the weight", "exp", math.exp(score - total)))


def _signed(value: float) -> str:
    return f"{'−' if value < 0 else '+'} {abs(value):.4g}"


def _linked(
    look: Look, view: View, layer: int | str, head: int | None, row: int | str | None, shown: Shown
) -> Picture:
    found, head = look.where(layer, head)
    side, other = look.rows_of(found.name), look.columns_of(found.name)
    same = side is other and view == "arcs"
    lines = [
        one.words if shown.words else tuple(one.find(i) for i in range(len(one.tokens)))
        for one in (side, other)
    ]
    looker: tuple[int, ...] = ()
    if row is not None:
        result = look.row(found.name, head, row, **shown.settings)
        looker = places_of(lines[0], result.word)
        columns, values, how = result.columns, result.values[None], result.how
        lookers, title = [looker[0]], f"{_where(found.name, head)}: what “{result.word.text}” looks at"
    else:
        every = look.weights(found.name, head, **shown.settings)
        columns, values, how = every.columns, every.values, every.how
        lookers, title = list(range(len(lines[0]))), _where(found.name, head)
    strands, least = strands_of(values, lookers, indices_of(lines[1], columns), row is not None)
    strongest = sorted(strands, key=lambda one: -one.weight)
    wanted = [[*near(looker), *(one.row for one in strongest)], [one.column for one in strongest]]
    if same:
        wanted = [[*near(looker), *(place for one in strongest for place in (one.column, one.row))]] * 2
    kept = [
        kept_words(len(line), places, _OF_ONE if looker else _OF_ALL)
        for line, places in zip(lines, wanted, strict=True)
    ]
    texts = [elided(line, places) for line, places in zip(lines, kept, strict=True)]
    where = [{word.start: k for k, word in enumerate(text) if word is not LEFT_OUT} for text in texts]
    at = [[where[k].get(word.start) for word in line] for k, line in enumerate(lines)]
    drawn = [(at[0][one.row], at[1][one.column], one.weight) for one in strands]
    inside = tuple(Strand(r, c, weight) for r, c, weight in drawn if r is not None and c is not None)
    how += f"; lines from {least:.2g}" if row is not None else f"; the strongest links, from {least:.2g}"
    if any(len(places) < len(line) for places, line in zip(kept, lines, strict=True)):
        lost = sum(one.weight >= least for one in strands) - sum(one.weight >= least for one in inside)
        how += "; of a long text the words with most weight" + (
            f", {lost} links are left out" if lost else ""
        )
    data = Links(
        texts[0], texts[1], inside, same, tuple(p for k in looker if (p := at[0][k]) is not None), least,
        (side.name, other.name), (runs_left(texts[0]), runs_left(texts[1])),
    )  # fmt: skip
    scale = Scale.linear(float(values.max()) if values.numel() else 1.0)
    caption = _caption(look, found.name, head, how, found.error)
    return Picture(view, title, _text(look), caption, data, scale, found.name, head, how, found.error)


def _panel(look: Look, name: str, head: int | None, shown: Shown, side: int) -> Panel:
    """Give a head's matrix in at most so many cells a side."""
    layer = look.layers[name]
    title = "mean of all heads" if head is None else f"head {head}"
    sides = _sides(look, name)
    if shown.is_plain and max(layer.shape) > side:
        grid = look.tiles(name, head).preview(side, kind="max")
        how = grid.how.replace("max of", "largest weight of")
        return Panel(title, grid.values, name, head, (), (), layer.shape, grid.cell, sides, how)
    found = look.weights(name, head, **shown.settings)
    size = (len(found.rows), len(found.columns))
    if max(size) <= side or not all(size):
        return Panel(title, found.values, name, head, found.rows, found.columns, size, 1, sides, found.how)
    cell = 1 << math.ceil(math.log2(max(size) / side))
    values = torch.nn.functional.max_pool2d(found.values[None], cell, ceil_mode=True)[0]
    unit = "words" if shown.words else "tokens"
    how = f"{found.how}; largest weight of cells of {cell} x {cell} {unit}"
    return Panel(title, values, name, head, (), (), size, cell, sides, how)


def _picture(
    look: Look, view: View, panels: tuple[Panel, ...], layer: str | None, head: int | None, across: int = 1
) -> Picture:
    error = look.error if layer is None else look.layers[layer].error
    hows = list(dict.fromkeys(panel.how for panel in panels))
    how = hows[0] if len(hows) == 1 else "; ".join(hows)
    title = "Every head of every layer" if layer is None else _where(layer, head)
    if view == "heads":
        title = f"{layer}: its heads side by side"
    longest = max(max(panel.size) for panel in panels)
    scale = Scale.log(longest) if longest > LABELLED else _linear(panels)
    caption = _caption(look, layer, head, how, error, is_all=view in ("heads", "overview"), has_rows=True)
    return Picture(view, title, _text(look), caption, Panels(panels, across), scale, layer, head, how, error)


def _linear(panels: Sequence[Panel]) -> Scale:
    """Give a scale that ends near the largest weight of rows that have a choice: the first of a decoder has none."""
    largest, every = 0.0, 0.0
    for panel in panels:
        if not panel.values.numel():
            continue
        able = panel.values[(panel.values > 0).sum(1) >= min(4, panel.values.shape[1])]
        every = max(every, float(panel.values.max()))
        largest = max(largest, float(able.max()) if len(able) else every)
    scale = Scale.linear(largest)
    return Scale.linear(largest, clipped=every > scale.high + 1e-6)


def _where(layer: str, head: int | None) -> str:
    return f"{layer}, mean of its heads" if head is None else f"{layer}, head {head}"


def _sides(look: Look, layer: str) -> tuple[str, str]:
    return look.rows_of(layer).name, look.columns_of(layer).name


def _text(look: Look) -> str:
    texts = [side.text if len(side.text) <= 120 else side.text[:119] + "…" for side in look.sides.values()]
    return " → ".join(texts)


def _caption(
    look: Look,
    layer: str | None,
    head: int | None,
    how: str,
    error: float,
    *,
    is_all: bool = False,
    has_rows: bool = False,
) -> str:
    place = ["all layers" if layer is None else layer]
    place += ["all heads" if is_all else "mean of the heads" if head is None else f"head {head}"]
    model = f"{look.model}: " if look.model else ""
    ways = "Rows look, columns are looked at. " if has_rows else ""
    return (
        f"{model}{', '.join(place)}. {how[:1].upper()}{how[1:]}. {ways}"
        f"Computed again, what the layer mixed differs by {error:.1g} of its largest value."
    )
