"""Draw a picture in a terminal: as rich renderables, as large as the console allows."""

from __future__ import annotations

from typing import Any

from rich.padding import Padding
from rich.text import Text

from regard.look.draw.picture import Bars, Links, Panel, Panels, Picture
from regard.look.draw.scene import label
from regard.look.draw.terminal import Alignment, Blocks, Heads, Matrix, Row

__all__ = ["in_terminal"]

_NUMBERED = 5  # words of a row whose weights are written
_DIMENSIONS = 8  # products of one weight that are listed


def in_terminal(picture: Picture, width: int) -> list[Any]:
    """Give what a rich console prints for a picture, in so many columns: title, body and caption."""
    match picture.data:
        case Panels():
            body = _panels(picture, picture.data, width)
        case Links():
            body = _links(picture.data)
        case Bars():
            body = _bars(picture.data)
    return [
        Text(label(picture.title), style="bold"),
        *body,
        Padding(Text(label(picture.caption), style="dim"), (0, 0, 0, 2)),
        Text(),
    ]


def _panels(picture: Picture, data: Panels, width: int) -> list[Any]:
    if picture.view in ("overview", "heads") and data.panels:
        layers: dict[str, list[Any]] = {}
        for panel in data.panels:
            layers.setdefault(panel.layer, []).append(_parts(picture, panel))
        return [Heads(layers)]
    (panel, *_) = data.panels
    if panel.rows and panel.columns:
        words = [[label(word.text) for word in line] for line in (panel.rows, panel.columns)]
        matrix = Matrix(words[0], words[1], panel.values.tolist())
        if matrix.width <= width:
            return [matrix]
    return [
        Text(f"  {panel.sides[0]} down, {panel.sides[1]} across", style="dim"),
        Blocks(_parts(picture, panel)),
    ]


def _parts(picture: Picture, panel: Panel) -> list[list[float]]:
    found: list[list[float]] = picture.scale.parts(panel.values.numpy()).tolist()
    return found


def _links(data: Links) -> list[Any]:
    rows, columns = ([label(word.text) for word in line] for line in (data.rows, data.columns))
    if data.looker:
        weights = [0.0] * len(columns)
        for one in data.strands:
            weights[one.column] = one.weight
        best = sorted(range(len(weights)), key=lambda k: -weights[k])[:_NUMBERED]
        looker = data.looker[0] if data.sides[0] == data.sides[1] else None
        return [Row(columns, weights, looker=looker, numbered=[k for k in best if weights[k] >= 0.005])]
    matrix = [[0.0] * len(columns) for _ in rows]
    for one in data.strands:
        matrix[one.row][one.column] = one.weight
    return [Alignment(rows, columns, matrix)]


def _bars(data: Bars) -> list[Any]:
    order = sorted(range(len(data.product)), key=lambda k: -abs(data.product[k]))[:_DIMENSIONS]
    lines = [f"  {'dimension':>9} {'query':>10} {'key':>10} {'product':>10}"]
    lines += [f"  {k:>9} {data.query[k]:>10.4f} {data.key[k]:>10.4f} {data.product[k]:>10.4f}" for k in order]
    if len(order) < len(data.product):
        lines.append(f"  and {len(data.product) - len(order)} more dimensions, whose products are smaller")
    lines.append("")
    lines += [f"  {one.value:>12.6g}  {one.name} ({one.how})" for one in data.steps]
    return [Text("\n".join(lines), no_wrap=True)]
