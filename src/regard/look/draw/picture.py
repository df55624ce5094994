"""What a picture shows, without saying where: a title, how its numbers came about, and the numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from regard.look.draw.colours import Scale
from regard.look.reading import Word

__all__ = ["VIEWS", "Bars", "Links", "Panel", "Panels", "Picture", "Step", "Strand", "View"]

View = Literal["matrix", "arcs", "overview", "alignment", "heads", "numbers", "map"]
VIEWS: tuple[View, ...] = ("matrix", "arcs", "overview", "alignment", "heads", "numbers", "map")


@dataclass(frozen=True, eq=False)
class Panel:
    """Hold one matrix.

    Attributes:
        name: above it.
        values: (R, C), weights; of coarse cells their mean or maximum.
        layer, head: where it is from; a head of None is the mean of a layer's.
        rows, columns: the words along its sides; empty where a cell is more than one token.
        size: how many tokens its sides are.
        cell: tokens along a side of a cell.
        sides: what the rows and the columns are, "target" and "source", or the same twice.
        how: how the numbers came about.
    """

    name: str
    values: Float[Tensor, "R C"]
    layer: str
    head: int | None
    rows: tuple[Word, ...]
    columns: tuple[Word, ...]
    size: tuple[int, int]
    cell: int
    sides: tuple[str, str]
    how: str

    def plain(self) -> dict[str, Any]:
        """Give it as JSON holds it."""
        words = {
            name: [word.text for word in found]
            for name, found in (("rows", self.rows), ("columns", self.columns))
        }
        where = {"layer": self.layer, "head": self.head, "how": self.how, "cell": self.cell}
        return {**where, **(words if self.rows or self.columns else {}), "values": self.values.tolist()}


@dataclass(frozen=True)
class Panels:
    """Hold matrices that stand together: one, heads side by side, or `across` for every layer."""

    panels: tuple[Panel, ...]
    across: int = 1

    def plain(self) -> dict[str, Any]:
        """Give them as JSON holds them."""
        return {"panels": [panel.plain() for panel in self.panels]}


@dataclass(frozen=True)
class Strand:
    """Say that a word, by its place on its line, gives a weight to another."""

    row: int
    column: int
    weight: float


@dataclass(frozen=True)
class Links:
    """Hold words on one line or on two, and who looks at whom.

    Attributes:
        rows, columns: the words; the same line where `same`.
        strands: the links that are drawn.
        same: whether a text looks at itself.
        looker: the places of the one word whose row it is; none: the links of all rows.
        least: weights below this have no line.
        sides: what the rows and the columns are.
        right_to_left: whether rows and columns are in a script that runs so.
    """

    rows: tuple[Word, ...]
    columns: tuple[Word, ...]
    strands: tuple[Strand, ...]
    same: bool
    looker: tuple[int, ...]
    least: float
    sides: tuple[str, str]
    right_to_left: tuple[bool, bool] = (False, False)

    def plain(self) -> dict[str, Any]:
        """Give them as JSON holds them."""
        found = [
            {
                "from": self.rows[one.row].text, "from_token": self.rows[one.row].start,
                "to": self.columns[one.column].text, "to_token": self.columns[one.column].start, "weight": one.weight,
            }
            for one in self.strands
        ]  # fmt: skip
        return {"least": self.least, "links": found}


@dataclass(frozen=True)
class Step:
    """Say one step from a product to a weight: its name, what is done, and what comes out."""

    name: str
    how: str
    value: float


@dataclass(frozen=True)
class Bars:
    """Hold one weight, number by number.

    Attributes:
        row, column: the tokens.
        query, key: (K,), as they are compared.
        steps: from the sum of their products to the weight.
        allowed: whether the query may attend to the key.
    """

    row: Word
    column: Word
    query: tuple[float, ...]
    key: tuple[float, ...]
    steps: tuple[Step, ...]
    allowed: bool

    @property
    def product(self) -> tuple[float, ...]:
        """Give the products, dimension by dimension."""
        return tuple(q * k for q, k in zip(self.query, self.key, strict=True))

    def plain(self) -> dict[str, Any]:
        """Give it as JSON holds it."""
        return {
            "row": self.row.text,
            "column": self.column.text,
            "query": list(self.query),
            "key": list(self.key),
            "steps": [{"name": one.name, "how": one.how, "value": one.value} for one in self.steps],
            "allowed": self.allowed,
        }


@dataclass(frozen=True)
class Picture:
    """Hold a picture that can be drawn anywhere.

    Attributes:
        view: which one it is.
        title: above it.
        text: what the model read.
        caption: whatever one must know to read it: the model, how the numbers came about, what is hidden, the error.
        data: the numbers.
        scale: which weights the colours are.
        layer, head: where it is from; None: from several.
        how, error: parts of the caption.
    """

    view: View
    title: str
    text: str
    caption: str
    data: Panels | Links | Bars
    scale: Scale
    layer: str | None
    head: int | None
    how: str
    error: float

    def plain(self) -> dict[str, Any]:
        """Give it as JSON holds it."""
        where = {"view": self.view, "title": self.title, "layer": self.layer, "head": self.head}
        return {**where, "how": self.how, "error": self.error, **self.data.plain()}
