"""A look as a file: a page, a picture, or the weights of one head for other programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from regard.errors import ConfigError
from regard.look.capture import Captured
from regard.look.draw import views
from regard.look.draw.html import html
from regard.look.draw.picture import Picture, View
from regard.look.draw.png import png
from regard.look.draw.svg import svg
from regard.look.reading import Hide, Look
from regard.look.sides import Side
from regard.serve.events import finite
from regard.serve.looks_reading import check_place
from regard.serve.looks_store import Kept

__all__ = [
    "FORMATS",
    "Export",
    "Format",
    "check_table",
    "csv_parts",
    "drawn",
    "file_name",
    "json_parts",
    "safe_cell",
]

Format = Literal["html", "svg", "png", "json", "csv"]
FORMATS: dict[Format, str] = {
    "html": "text/html; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
}

_MOST_ROWS = 2**22  # weights of a table
_MOST_PAGE = 128 * 2**20  # bytes of queries and keys in a page
_MOST_DRAWN = 2**31  # weights that a picture of many heads looks through
_EACH = 2**26  # of one head, at most: beyond it is sampled
_LARGE = 1024  # tokens from which a matrix is a map
_AT_ONCE = 2**18  # weights of a table that are written in one go
_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")


@dataclass(frozen=True)
class Export:
    """Say what of a look is drawn.

    Attributes:
        format: of the file; html, svg or png.
        layer, head: which, by their places in the look; None: all.
        view: which picture; None: the one that fits.
        row, column: the token that looks, and the one that is looked at, where a view is of one.
        words, hide, renormalise: as in `Look.row`.
        dark: on a dark ground.
    """

    format: Format
    layer: int | None = None
    head: int | None = None
    view: View | None = None
    row: int | None = None
    column: int | None = None
    words: bool = False
    hide: tuple[Hide, ...] = ()
    renormalise: bool = False
    dark: bool = False

    def check(self) -> None:
        """Refuse what would be ignored.

        Raises:
            ConfigError: something would be.
        """
        if self.head is not None and self.layer is None:
            raise ConfigError("a head is of a layer; give the layer too.")
        if self.format in ("csv", "json") and (self.layer is None) != (self.head is None):
            raise ConfigError("a table is of one head; give its number too.")
        if self.format == "csv" and self.layer is None:
            raise ConfigError("a table is of one head; give its layer and its number.")
        drawn = self.format in ("svg", "png")
        picture = {
            "view": self.view, "row": self.row, "column": self.column, "words": self.words or None,
            "hide": self.hide or None, "renormalise": self.renormalise or None, "dark": self.dark or None,
        }  # fmt: skip
        unused = [name for name, value in picture.items() if value is not None]
        if unused and not drawn:
            raise ConfigError(f"{unused[0]} is for svg and png; leave it out.")
        if self.column is not None and self.view != "numbers":
            raise ConfigError("a column is for the view of numbers; leave it out.")
        if self.row is not None and self.view not in ("arcs", "alignment", "numbers"):
            raise ConfigError("a row is for the views arcs, alignment and numbers; leave it out.")
        if self.view == "overview" and self.layer is not None:
            raise ConfigError("the overview is of every layer; leave the layer out.")
        if self.view == "heads" and self.head is not None:
            raise ConfigError("heads side by side are all of a layer; leave the head out.")
        if self.view in ("map", "numbers") and (self.words or self.hide or self.renormalise):
            raise ConfigError(
                f"{self.view} shows every weight as it is; leave words, hide and renormalise out."
            )


def drawn(kept: Kept, asked: Export, *, stop: Callable[[], bool] = lambda: False) -> bytes:
    """Draw a look as HTML, SVG or PNG.

    Args:
        kept: the look.
        asked: what of it.
        stop: asked now and then while a long text's map is computed; then nothing is drawn.

    Raises:
        Missing: there is no such layer or head.
        ConfigError: it would be too large, or something would be ignored.
        DependencyError: the page's script was not built.
    """
    asked.check()
    if asked.format == "html":
        return _page(kept, asked).encode("utf-8", "replace")
    picture = _picture(kept, asked, stop)
    if asked.format == "svg":
        return svg(picture, dark=asked.dark).encode("utf-8", "replace")
    return png(picture, dark=asked.dark)


def _page(kept: Kept, asked: Export) -> str:
    look = kept.look
    if asked.layer is None:
        chosen, heads = list(look.layers.values()), None
    else:
        chosen = [kept.layer(asked.layer)]
        heads = None if asked.head is None else [kept.head(asked.layer, asked.head)[1]]
    size = sum((one.query.numel() // (one.heads if heads else 1) + one.key.numel()) * 4 for one in chosen)
    if size > _MOST_PAGE:
        what = "a layer" if asked.layer is None else "a head" if heads is None else "a shorter text"
        raise ConfigError(f"the page would hold {size / 2**20:,.0f} MB of numbers; choose {what}.")
    built: dict[tuple[str, int], Any] = {}
    if asked.layer is not None and asked.head is not None:
        pyramid = kept.tiles(asked.layer, asked.head)
        if pyramid.complete:
            built[chosen[0].name, asked.head] = pyramid
    return html(look, layers=[one.name for one in chosen], heads=heads, pyramids=built or False)


def _picture(kept: Kept, asked: Export, stop: Callable[[], bool]) -> Picture:
    look, shown = kept.look, views.Shown(asked.words, asked.hide, asked.renormalise)
    if asked.layer is None:
        if asked.view not in (None, "overview"):
            raise ConfigError(f"{asked.view} is of one layer; choose it.")
        _refuse_long(list(look.layers.values()), "choose a layer.")
        return views.overview(look, shown)
    layer = kept.layer(asked.layer)
    head = None if asked.head is None else kept.head(asked.layer, asked.head)[1]
    check_place(layer.shape, asked.row or 0, asked.column or 0)
    view = asked.view
    if view is None:
        large = max(layer.shape) > _LARGE and shown.is_plain
        view = "heads" if head is None else "map" if large else "matrix"
    if view == "heads":
        _refuse_long([layer], "choose a head.")
        return views.heads(look, layer.name, shown)
    if view == "map":
        if asked.head is None:
            raise ConfigError("a map is of one head; choose it.")
        kept.tiles(asked.layer, asked.head).build(stop=stop)
        return views.map_of(look, layer.name, head)
    if view == "numbers":
        return views.numbers(look, layer.name, head, -1 if asked.row is None else asked.row, asked.column)
    if view == "matrix":
        return views.matrix(look, layer.name, head, shown)
    linked = views.arcs if view == "arcs" else views.alignment
    return linked(look, layer.name, head, asked.row, shown)


def _refuse_long(layers: list[Captured], instead: str) -> None:
    cost = sum(one.heads * min(one.shape[0] * one.shape[1], _EACH) for one in layers)
    if cost > _MOST_DRAWN:
        raise ConfigError(f"the text is too long for a picture of every head; {instead}")


def file_name(kept: Kept, asked: Export) -> str:
    """Name the file, in letters that every system has."""
    parts = ["attention"]
    if asked.layer is not None:
        parts.append(kept.layer(asked.layer).name)
        if asked.head is not None:
            parts.append(str(asked.head))
    return f"{'-'.join(parts)}.{asked.format}"


def safe_cell(text: str) -> str:
    """Give a text for a cell of a table; one that a spreadsheet would run as a formula gets a quotation mark before it.

    >>> safe_cell("=1+1"), safe_cell("a=1"), safe_cell(" @x")
    ("'=1+1", 'a=1', "' @x")
    """
    return f"'{text}" if text.startswith(_FORMULAS) or text.lstrip().startswith(_FORMULAS) else text


def check_table(layer: Captured) -> None:
    """Refuse a head with too many weights for a table.

    Raises:
        ConfigError: there are.
    """
    if layer.shape[0] * layer.shape[1] > _MOST_ROWS:
        raise ConfigError(
            f"this head has {layer.shape[0] * layer.shape[1]:,} weights, and a file holds {_MOST_ROWS:,} at most; "
            "look at a shorter text."
        )


def csv_parts(look: Look, layer: Captured, head: int) -> Iterator[bytes]:
    """Write a head's weights as CSV in UTF-8, part by part: a line for each weight that the model may give."""
    rows, columns = look.rows_of(layer.name), look.columns_of(layer.name)
    names = [[safe_cell(token.text) for token in side.tokens] for side in (rows, columns)]
    text = io.StringIO()
    table = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\r\n")
    table.writerow(["layer", "head", "row", "row token", "column", "column token", "weight"])
    spans = layer.spans.tolist()
    for start, values in _blocks(layer, head):
        for i, line in enumerate(values, start):
            begin, end = spans[i]
            table.writerows(
                [layer.name, head, i, names[0][i], j, names[1][j], _number(line[j])]
                for j in range(begin, end)
            )
        yield text.getvalue().encode("utf-8", "replace")
        text.seek(0)
        text.truncate()


def json_parts(look: Look, layer: Captured | None, head: int | None) -> Iterator[bytes]:
    """Write a look as JSON, part by part: model, layers and tokens, and the weights of a head where one is chosen."""
    about: dict[str, Any] = {
        "title": look.title,
        "model": look.model,
        "layers": [
            {
                "name": name,
                "heads": one.heads,
                "rows": look.rows_of(name).name,
                "columns": look.columns_of(name).name,
            }
            for name, one in look.layers.items()
        ],
        "sides": {name: _tokens(side) for name, side in look.sides.items()},
    }
    if layer is None or head is None:
        yield _json(about)
        return
    about |= {"layer": layer.name, "head": head, "error": layer.error_of(head)}
    yield _json(about)[:-1] + b',"weights":['
    comma = b""
    for _, values in _blocks(layer, head):
        lines = (json.dumps([_number(value) for value in line], separators=(",", ":")) for line in values)
        yield comma + ",".join(lines).encode()
        comma = b","
    yield b"]}"


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(finite(value), separators=(",", ":")).encode()


def _tokens(side: Side) -> dict[str, Any]:
    return {
        "text": side.text,
        "tokens": [
            {
                "text": token.text,
                "id": number,
                "start": token.start,
                "end": token.end,
                "special": token.special,
            }
            for number, token in zip(side.ids, side.tokens, strict=True)
        ],
    }


def _blocks(layer: Captured, head: int) -> Iterator[tuple[int, list[list[float]]]]:
    """Walk over a head's rows in blocks, each with the number of its first."""
    size = max(1, _AT_ONCE // max(1, layer.shape[1]))
    for start in range(0, layer.shape[0], size):
        yield start, layer.weights(head, slice(start, start + size), slice(None)).tolist()


def _number(value: float) -> float:
    """Give the shortest number that is the same in single precision."""
    return float(f"{value:.9g}")
