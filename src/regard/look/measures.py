"""What every head does, as numbers: streamed over blocks of rows, at any length, beside what chance would give.

A measure is the mean over rows of a sum of weights, or of a function of them. Rows count where they have a choice:
something that the measure asks for and something else may be seen. The baseline is exact: what a head would give that
spreads its attention evenly over the keys that the same rows may see.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from regard.errors import ConfigError
from regard.look.capture import Captured
from regard.look.reading import Look
from regard.look.sides import Side

__all__ = ["BAND", "MEASURES", "NEAR", "HeadMeasures", "Links", "Measure", "measure"]

NEAR = 8
"""Tokens up to which a key is near."""

BAND = 0.1
"""How far from the diagonal a key may lie, as a share of the text."""

MEASURES: dict[str, str] = {
    "entropy": "of a row's weights, in nats",
    "relative entropy": "the entropy divided by that of even attention: 0 for one key, 1 for all alike",
    "distance": "the mean distance of what is looked at, in tokens",
    "first": "the weight on the first token",
    "special": "the weight on special tokens after the first token",
    "punctuation": "the weight on marks and line ends",
    "self": "the weight on the token itself",
    "previous": "the weight on the token before",
    "next": "the weight on the token after",
    "same": "the weight on other tokens of the same id",
    "induction": "the weight on the tokens that followed the same token earlier",
    "local": f"the weight within {NEAR} tokens",
    "global": "the weight further away",
    "diagonal": f"the weight where row and column lie equally far in their texts, within {BAND:.0%}",
    "monotone": "the correlation of a row's number with the mean place that it looks at",
    "links": "the weight on the columns that are linked with a row",
    "links first": "how often a linked column gets the most",
}
"""Every measure and what it is. Distances are for attention within a text, the diagonal is for that to another."""

Links = Mapping[str, Mapping[int, Collection[int]]]
"""For a layer's name or kind (encoder, decoder, cross): columns of each row that has links."""

_AT_ONCE = 2**24  # weights of a head held at once: 64 MiB
_ROWS = 1024
_SETS = ("first", "special", "punctuation")


@dataclass(frozen=True)
class Measure:
    """Hold one measure of one head: its value, what even attention gives, and how many rows it is the mean of."""

    value: float
    baseline: float
    n: int


@dataclass(frozen=True)
class HeadMeasures:
    """Hold what was measured of one head.

    Attributes:
        layer, head: where.
        values: by the names in `MEASURES`; what no row has a choice in is left out.
        rows: how many rows were looked at.
        sampled: whether these are an evenly spaced sample of all.
    """

    layer: str
    head: int
    values: Mapping[str, Measure]
    rows: int
    sampled: bool = False


def measure(
    look: Look,
    *,
    layers: Collection[str] | None = None,
    rows: int | None = None,
    links: Links | None = None,
) -> list[HeadMeasures]:
    """Measure every head of a look, in the order of its layers.

    Args:
        look: of any length; never more than a block of a head's rows is in memory.
        layers: names of those to measure, once each; `encoder.3.5` measures that head alone; None: all.
        rows: measure so many rows, evenly spaced; None: all of them.
        links: what should be linked, see `Links`.

    Raises:
        ConfigError: there is no such layer, or a link is outside the text.
    """
    if rows is not None and rows < 1:
        raise ConfigError(f"rows={rows} must be at least 1.")
    if layers is not None and not layers:
        raise ConfigError("layers names none; name at least one, or leave it out for all.")
    chosen: dict[str, set[int]] = {}
    for name in look.layers if layers is None else layers:
        layer, head = look.where(name)
        chosen.setdefault(layer.name, set()).update(range(layer.heads) if head is None else (head,))
    _check_links(links or {}, look)
    sets = {side.name: _sets_of(side) for side in look.sides.values()}
    found: list[HeadMeasures] = []
    for name, heads in chosen.items():
        linked = {**(links or {}).get(name.partition(".")[0], {}), **(links or {}).get(name, {})}
        layer = look.layers[name]
        every = _Layer(layer, look.rows_of(name), sets[look.columns_of(name).name], linked).measure(rows)
        found += [one for one in every if one.head in heads]
    return found


@dataclass(frozen=True)
class _Cells:
    """Name some cells of a block: by their places, or where they are many as a matrix of zeros and ones."""

    rows: Tensor
    columns: Tensor
    matrix: Tensor | None
    count: Tensor

    @classmethod
    def of(cls, mask: Tensor) -> _Cells:
        """Take the cells that are True."""
        count = mask.sum(1)
        if int(count.sum()) * 16 > mask.numel():
            return cls(count, count, mask.float(), count)
        rows, columns = mask.nonzero(as_tuple=True)
        return cls(rows, columns, None, count)

    @classmethod
    def at(cls, rows: Tensor, columns: Tensor, fits: Tensor) -> _Cells:
        """Take these cells where they fit, which is none twice."""
        kept, size = rows[fits], rows.shape[0]
        return cls(kept.flatten(), columns[fits], None, torch.bincount(kept.flatten(), minlength=size))

    def sum(self, weights: Tensor) -> Tensor:
        """Add up the weights of each row's cells."""
        if self.matrix is not None:
            return torch.einsum("rc,rc->r", weights, self.matrix).double()
        found = torch.zeros(len(weights), dtype=torch.float64)
        return found.index_add_(0, self.rows, weights[self.rows, self.columns].double())


@dataclass(frozen=True)
class _Block:
    """Hold what all heads of a layer share in a block of rows: what may be seen, and where each measure looks."""

    rows: slice | Tensor
    columns: slice
    number: Tensor
    place: Tensor
    seen: Tensor
    cells: Mapping[str, _Cells]


class _Layer:
    """Measure one layer: sums over rows, of every head and of even attention."""

    def __init__(
        self, layer: Captured, looking: Side, sets: Tensor, links: Mapping[int, Collection[int]]
    ) -> None:
        self.layer, self.links = layer, links
        self.own = not layer.name.startswith("cross")
        self.ids = torch.tensor(looking.ids, dtype=torch.int32)
        self.before = torch.cat((torch.tensor([-1], dtype=torch.int32), self.ids[:-1]))
        # What a row may not see has no weight, so the sums over such sets are products.
        self.sets = sets
        self.up_to = torch.cat((torch.zeros(1, len(_SETS)), self.sets)).double().cumsum(0)
        self.sums = {name: torch.zeros(layer.heads + 1, dtype=torch.float64) for name in MEASURES}
        self.counts = dict.fromkeys(MEASURES, 0)
        self.moments = torch.zeros(5, layer.heads + 1, dtype=torch.float64)

    def measure(self, sample: int | None) -> list[HeadMeasures]:
        """Walk over the rows and sum up."""
        total = self.layer.shape[0]
        sampled = sample is not None and sample < total
        chosen = torch.linspace(0, total - 1, sample).round().long() if sampled and sample else None
        for rows, columns in self._blocks(chosen):
            if columns.start < columns.stop:
                self._add(self._block(rows, columns))
        self._correlate()
        values: list[dict[str, Measure]] = [{} for _ in range(self.layer.heads)]
        for name, n in self.counts.items():
            if n:
                *found, even = (self.sums[name] / n).tolist()
                for head, value in enumerate(found):
                    values[head][name] = Measure(value, even, n)
        looked = total if chosen is None else len(chosen)
        return [HeadMeasures(self.layer.name, h, found, looked, sampled) for h, found in enumerate(values)]

    def _blocks(self, chosen: Tensor | None) -> Iterator[tuple[slice | Tensor, slice]]:
        spans = self.layer.spans
        widest = int((spans[:, 1] - spans[:, 0]).max()) if len(spans) else 1
        size = max(1, min(_ROWS, _AT_ONCE // max(1, widest)))
        if chosen is None:
            yield from self.layer.blocks(size)
            return
        for part in chosen.split(max(1, min(_ROWS, _AT_ONCE // max(1, self.layer.shape[1])))):
            yield part, slice(int(spans[part, 0].min()), int(spans[part, 1].max()))

    def _block(self, rows: slice | Tensor, columns: slice) -> _Block:
        number = torch.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
        place = torch.arange(columns.start, columns.stop)
        begin, end = self.layer.spans[rows].unbind(1)
        local = torch.arange(len(number))

        def around(steps: Sequence[int]) -> _Cells:
            """Take the cells so many steps from the row's own place."""
            at = number[:, None] + torch.tensor(steps)
            fits = (at >= begin[:, None]) & (at < end[:, None])
            return _Cells.at(local[:, None].expand_as(at), at - columns.start, fits)

        cells: dict[str, _Cells] = {}
        if self.own:
            cells = {"self": around([0]), "previous": around([-1]), "next": around([1])}
            cells["local"] = around(range(-NEAR, NEAR + 1))
            seen = (place >= begin[:, None]) & (place < end[:, None])
            other = seen & (place != number[:, None])
            cells["same"] = _Cells.of((self.ids[number][:, None] == self.ids[columns]) & other)
            earlier = seen & (place < number[:, None])
            cells["induction"] = _Cells.of((self.ids[number][:, None] == self.before[columns]) & earlier)
        else:
            queries, keys = self.layer.shape
            off = (number[:, None] + 0.5) / queries - (place + 0.5) / keys
            cells["diagonal"] = _Cells.of(
                (off.abs() <= BAND) & (place >= begin[:, None]) & (place < end[:, None])
            )
        if self.links:
            bounds = zip(number.tolist(), begin.tolist(), end.tolist(), strict=True)
            pairs = [
                (r, c - columns.start)
                for r, (i, a, b) in enumerate(bounds)
                for c in sorted(set(self.links.get(i, ())))
                if a <= c < b
            ]
            at = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)
            count = torch.bincount(at[:, 0], minlength=len(number))
            cells["links"] = _Cells(at[:, 0], at[:, 1], None, count)
        return _Block(rows, columns, number, place, end - begin, cells)

    def _add(self, block: _Block) -> None:
        """Add a block's rows to the sums; the last place of each is that of even attention."""
        seen, several = block.seen.double(), block.seen > 1
        counts = {name: cells.count for name, cells in block.cells.items()}
        begin, end = self.layer.spans[block.rows].unbind(1)
        counts |= zip(_SETS, (self.up_to[end] - self.up_to[begin]).unbind(1), strict=True)
        choice = {name: (count > 0) & (count < block.seen) for name, count in counts.items()}
        away = (block.number[:, None] - block.place).abs().float() if self.own else None
        for name, rows in choice.items():
            self._sum(name, -1, counts[name] / seen, rows)
        self._sum("entropy", -1, seen.log(), several)
        self._sum("relative entropy", -1, torch.ones_like(seen), several)
        if away is not None:
            even = _even_distance(block.number.double(), begin.double(), end.double())
            self._sum("distance", -1, even, several)
        else:
            self._move(-1, block.number, begin + (seen - 1) / 2, several)
        sets = self.sets[block.columns]
        for head in range(self.layer.heads):
            weights = self.layer.weights(head, block.rows, block.columns)
            entropy = torch.special.entr(weights).sum(1).double()
            self._sum("entropy", head, entropy, several)
            self._sum("relative entropy", head, entropy / seen.log(), several)
            if away is not None:
                self._sum("distance", head, torch.einsum("rc,rc->r", weights, away).double(), several)
            else:
                self._move(head, block.number, weights.double() @ block.place.double(), several)
            for name, found in zip(_SETS, (weights @ sets).double().unbind(1), strict=True):
                self._sum(name, head, found, choice[name])
            for name, cells in block.cells.items():
                self._sum(name, head, cells.sum(weights), choice[name])
            if "links" in block.cells:
                cells = block.cells["links"]
                most = weights.argmax(1)
                hit = torch.zeros(len(weights), dtype=torch.float64)
                hit.index_add_(0, cells.rows, (most[cells.rows] == cells.columns).double())
                self._sum("links first", head, hit, choice["links"])
        for name, rows in choice.items():
            self.counts[name] += int(rows.sum())
        for name in ("entropy", "relative entropy", *(("distance",) if self.own else ("monotone",))):
            self.counts[name] += int(several.sum())

    def _sum(self, name: str, head: int, values: Tensor, rows: Tensor) -> None:
        self.sums[name][head] += values[rows].sum()

    def _move(self, head: int, number: Tensor, mean: Tensor, rows: Tensor) -> None:
        """Add to the moments of rows' numbers and of the mean places that they look at."""
        x, y = number[rows].double(), mean[rows]
        self.moments[:, head] += torch.stack((x.sum(), y.sum(), (x * y).sum(), (x * x).sum(), (y * y).sum()))

    def _correlate(self) -> None:
        """Finish what isn't a plain mean: correlations, and what follows from another measure."""
        n = self.counts["monotone"]
        if n:
            x, y, xy, xx, yy = self.moments / n
            spread = (xx - x * x).clamp(min=0) * (yy - y * y).clamp(min=0)
            # A mean place that hardly moves is no direction; what is left of it there is rounding.
            still = (yy - y * y) < 1e-8 * max(1, self.layer.shape[1]) ** 2
            found = (xy - x * y) / spread.sqrt().clamp(min=1e-30)
            self.sums["monotone"] = found.masked_fill(still, 0.0) * n
        self.counts["global"] = self.counts["local"]
        self.sums["global"] = self.counts["local"] - self.sums["local"]
        if self.links:
            self.counts["links first"] = self.counts["links"]
            self.sums["links first"][-1] = self.sums["links"][-1]


def _even_distance(number: Tensor, begin: Tensor, end: Tensor) -> Tensor:
    """Give the mean distance from a place to the places of a run, [begin, end), that it lies in or beside."""

    def up_to(count: Tensor) -> Tensor:
        """Add up 1 to count."""
        return count * (count + 1) / 2

    left = up_to((number - begin).clamp(min=0)) - up_to((number - end).clamp(min=0))
    right = up_to((end - 1 - number).clamp(min=0)) - up_to((begin - 1 - number).clamp(min=0))
    return (left + right) / (end - begin)


def _sets_of(side: Side) -> Tensor:
    """Give for each column whether it is the first, special, a mark: sets that are the same for all rows, (S, 3)."""
    return torch.tensor(
        [
            (i == 0, t.special and i > 0, not t.special and _is_mark(t.text))
            for i, t in enumerate(side.tokens)
        ],
        dtype=torch.float32,
    ).reshape(-1, len(_SETS))


def _is_mark(text: str) -> bool:
    """Tell whether a token is nothing but punctuation or line ends."""
    if text and not text.strip():
        return "\n" in text
    return bool(text) and all(unicodedata.category(c).startswith("P") for c in text.strip())


def _check_links(links: Links, look: Look) -> None:
    kinds = {name.partition(".")[0] for name in look.layers}
    for name, rows in links.items():
        if name not in kinds and name not in look.layers:
            raise ConfigError(f"links for {name!r}, which is no layer; name {', '.join(sorted(kinds))}.")
        height, width = len(look.rows_of(name).tokens), len(look.columns_of(name).tokens)
        for row, columns in rows.items():
            if not 0 <= row < height or not all(0 <= column < width for column in columns):
                raise ConfigError(
                    f"a link of row {row} is outside the text: there are {height} rows and {width} columns."
                )
