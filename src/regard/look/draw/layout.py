"""Where everything of a picture stands: title, matrices with their words, the scale, the caption."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from regard.look.draw.colours import LIGHT, Scale, Theme
from regard.look.draw.picture import Bars, Links, Panel, Panels, Picture
from regard.look.draw.scene import Box, Curve, Image, Item, Letters, Scene, Strip, fit, label, width_of, wrap
from regard.look.draw.views import LABELLED
from regard.look.reading import Word

__all__ = ["Body", "lay_out"]

_MARGIN, _CAPTION, _TITLE = 24.0, 11.0, 16.0
_LEAST_WIDTH = 520.0
_SLANT = math.radians(60)
_CELLS = LABELLED**2  # cells of a picture that are drawn one by one
_TIPS = 2500  # cells that tell their weight where they are pointed at
_WIDE = 880.0


@dataclass
class Body:
    """Collect what is drawn between title and caption, from (0, 0)."""

    width: float
    height: float
    items: list[Item] = field(default_factory=list)
    has_scale: bool = True


def lay_out(picture: Picture, theme: Theme = LIGHT, *, bare: bool = False) -> Scene:
    """Place a picture: its title and text, its body, the scale and the caption; a bare one has body and scale alone."""
    from regard.look.draw.layout_links import lay_bars, lay_links

    match picture.data:
        case Panels():
            body = _lay_panels(picture, picture.data, theme)
        case Links():
            body = lay_links(picture.data, picture.scale, theme)
        case Bars():
            body = lay_bars(picture.data, theme)
    width = body.width if bare else max(body.width, _LEAST_WIDTH)
    items: list[Item] = []
    y = _MARGIN
    title = label(picture.title)
    if not bare:
        y += _TITLE
        items.append(Letters(_MARGIN, y, fit(title, _TITLE * 1.08, width), _TITLE, theme.text, bold=True))
        for line in wrap(label(picture.text), 12, width)[:2]:
            y += 18
            items.append(Letters(_MARGIN, y, line, 12, theme.quiet))
        y += 20
    left = _MARGIN + max(0.0, (width - body.width) / 2) * (not bare)
    items += [_moved(item, left, y) for item in body.items]
    y += body.height
    if body.has_scale:
        y += 16
        items += _scale(picture.scale, theme, left, y, min(240.0, body.width))
        y += 28
    if not bare:
        y += 6
        for line in wrap(label(picture.caption), _CAPTION, width):
            y += _CAPTION * 1.45
            items.append(Letters(_MARGIN, y, line, _CAPTION, theme.quiet))
    return Scene(
        math.ceil(width + 2 * _MARGIN),
        math.ceil(y + _MARGIN * 0.8),
        theme.ground,
        items,
        title,
        label(picture.caption),
    )


def _moved(item: Item, dx: float, dy: float) -> Item:
    if isinstance(item, Curve):
        return replace(item, points=tuple((x + dx, y + dy) for x, y in item.points))
    return replace(item, x=item.x + dx, y=item.y + dy)


def _scale(scale: Scale, theme: Theme, x: float, y: float, width: float) -> list[Item]:
    """Draw the scale with its weights beneath."""
    width = max(120.0, width)
    colours = tuple(theme.colour(k / 24) for k in range(25))
    items: list[Item] = [Strip(x, y, width, 9, colours), Box(x, y, width, 9, None, theme.line)]
    for part, name in scale.ticks:
        items.append(Letters(x + part * width, y + 21, name, 10, theme.quiet, "middle"))
    items.append(Letters(x + width + 16, y + 9, "attention weight", 10.5, theme.quiet))
    return items


@dataclass(frozen=True)
class _Way:
    """Say how the panels of a picture are drawn: the size of a cell, one by one or as pixels."""

    cell: float
    by_cells: bool
    tips: bool


def _lay_panels(picture: Picture, data: Panels, theme: Theme) -> Body:
    if picture.view == "overview":
        return _lay_overview(picture, data, theme)
    panels = data.panels
    longest = max(1, *(max(panel.values.shape) for panel in panels))
    total = sum(panel.values.numel() for panel in panels)
    across = max(1, data.across)
    room = (_WIDE if across == 1 else 1180.0) / across
    fits = longest <= LABELLED and total <= _CELLS
    if fits:
        size = max(7.0, min(40.0 if across == 1 else 26.0, math.floor(room / longest)))
    else:  # whole pixels, so that all cells are alike
        size = float(max(1, math.floor(room / longest)))
    way = _Way(size, fits, fits and total <= _TIPS)
    body = Body(0, 0)
    x = y = tallest = 0.0
    for k, panel in enumerate(panels):
        if k and k % across == 0:
            x, y, tallest = 0.0, y + tallest + 26, 0.0
        one = _lay_panel(
            picture,
            panel,
            way,
            theme,
            named=len(panels) > 1,
            words=k % across == 0,
            heads=k < across or not fits,
        )
        body.items += [_moved(item, x, y) for item in one.items]
        body.width, tallest = max(body.width, x + one.width), max(tallest, one.height)
        body.height = max(body.height, y + one.height)
        x += one.width + 22
    return body


def _lay_panel(
    picture: Picture, panel: Panel, way: _Way, theme: Theme, *, named: bool, words: bool, heads: bool
) -> Body:
    """Place one matrix, with its words or the numbers of its tokens to the left and above."""
    R, C = panel.values.shape
    high, wide = R * way.cell, C * way.cell
    size = min(13.0, way.cell * 0.86)
    labelled = bool(panel.rows or panel.columns) and way.by_cells and size >= 4.2
    rows = [fit(label(word.text), size, 140) for word in panel.rows] if labelled and words else []
    columns = [fit(label(word.text), size, 140) for word in panel.columns] if labelled and heads else []
    ticks = not labelled and (words or heads)
    corner = f"{panel.sides[0]} ↓  {panel.sides[1]} →" if panel.sides[0] != panel.sides[1] else "from ↓  to →"
    left = (
        max((width_of(text, size) for text in rows), default=0.0) + 7
        if rows
        else 44.0
        if ticks and words
        else 0.0
    )
    if words and (rows or ticks):
        left = max(left, width_of(corner, 10) + 7)
    name_room = 24.0 if named else 0.0
    longest = max((width_of(text, size) for text in columns), default=0.0)
    top = name_room + (longest * math.sin(_SLANT) + size if columns else 18.0 if ticks else 0.0)
    reaches = (
        (k + 0.5) * way.cell + width_of(text, size) * math.cos(_SLANT) + size
        for k, text in enumerate(columns)
    )
    over = max(reaches, default=0.0)
    body = Body(left + max(wide, over), top + high)
    items = body.items
    if named:
        items.append(Letters(left, 13, fit(panel.name, 13, max(wide, 60)), 13, theme.text, bold=True))
    if words and (rows or ticks):
        items.append(Letters(left - 7, top - 6, corner, 10, theme.quiet, "end"))
    _cells(items, picture, panel, way, theme, left, top)
    for k, text in enumerate(rows):
        y = top + (k + 0.5) * way.cell + size * 0.35
        items.append(Letters(left - 6, y, text, size, _colour(panel.rows[k], theme), "end"))
    for k, text in enumerate(columns):
        x = left + (k + 0.5) * way.cell + size * 0.3
        items.append(Letters(x, top - 5, text, size, _colour(panel.columns[k], theme), angle=-60))
    if ticks:
        _numbers(items, panel, way, theme, left, top, rows=words, columns=heads)
    return body


def _colour(word: Word, theme: Theme) -> str:
    return theme.quiet if word.special else theme.text


def _cells(
    items: list[Item], picture: Picture, panel: Panel, way: _Way, theme: Theme, left: float, top: float
) -> None:
    """Draw the weights: each cell by itself, with its number where there is room, or all as pixels."""
    R, C = panel.values.shape
    parts = picture.scale.parts(panel.values.numpy())
    if not way.by_cells:
        items.append(Image(left, top, C * way.cell, R * way.cell, theme.pixels(parts)))
        items.append(Box(left, top, C * way.cell, R * way.cell, None, theme.line))
        return
    items.append(Box(left, top, C * way.cell, R * way.cell, theme.colour(0), crisp=True))
    gap = 1.0 if way.cell >= 12 else 0.0
    values = panel.values.tolist()
    size, middle = way.cell * 0.3, (way.cell - gap) / 2
    written: list[Item] = []
    for r in range(R):
        for c in range(C):
            value, part = values[r][c], float(parts[r, c])
            x, y = left + c * way.cell, top + r * way.cell
            tip = ""
            if way.tips and panel.rows and panel.columns:
                tip = f"{label(panel.rows[r].text)} → {label(panel.columns[c].text)}: {value:.6g}"
            if part > 0.002 or tip:
                items.append(
                    Box(x, y, way.cell - gap, way.cell - gap, theme.colour(part), crisp=True, tip=tip)
                )
            if way.cell >= 27 and value >= 0.005:
                text = "1.0" if value >= 0.995 else f"{value:.2f}"[1:]
                written.append(
                    Letters(x + middle, y + middle + size * 0.36, text, size, theme.ink(part), "middle")
                )
    items += written
    items.append(Box(left - 0.5, top - 0.5, C * way.cell + 1 - gap, R * way.cell + 1 - gap, None, theme.line))


def _numbers(
    items: list[Item],
    panel: Panel,
    way: _Way,
    theme: Theme,
    left: float,
    top: float,
    *,
    rows: bool,
    columns: bool,
) -> None:
    """Number the tokens along the sides, where words have no room."""
    pixels = way.cell / panel.cell  # a token
    step = next(p * 10**t for t in range(9) for p in (1, 2, 5) if p * 10**t * pixels >= 56)
    if rows:
        for at in range(0, panel.size[0], step):
            items.append(Letters(left - 7, top + at * pixels + 9, f"{at:,}", 10, theme.quiet, "end"))
            items.append(Box(left - 4, top + at * pixels, 4, 1, theme.quiet, crisp=True))
    if columns:
        for at in range(0, panel.size[1], step):
            items.append(Letters(left + at * pixels + 3, top - 5, f"{at:,}", 10, theme.quiet))
            items.append(Box(left + at * pixels, top - 4, 1, 4, theme.quiet, crisp=True))


def _lay_overview(picture: Picture, data: Panels, theme: Theme) -> Body:
    """Place every head in little: a line for each layer, stack by stack."""
    side = max(22.0, min(96.0, math.floor(940 / data.across) - 8))
    gap = 8.0 if side > 40 else 4.0
    by_cells = sum(panel.values.numel() for panel in data.panels) <= _CELLS
    lines: dict[str, list[Panel]] = {}
    for panel in data.panels:
        lines.setdefault(panel.layer, []).append(panel)
    size = 12.0 if side > 40 else 10.0
    left = max(width_of(name, size) for name in lines) + 12
    body = Body(left + data.across * (side + gap) - gap, 0)
    y = 20.0
    every = 1 if side >= 20 or data.across < 20 else 2
    for k in range(0, data.across, every):
        body.items.append(
            Letters(left + k * (side + gap) + side / 2, 12, str(k), size, theme.quiet, "middle")
        )
    body.items.append(Letters(left - 12, 12, "head", size, theme.quiet, "end"))
    before = ""
    for name, panels in lines.items():
        stack = name.partition(".")[0]
        y += 14 if before and stack != before else 0
        before = stack
        body.items.append(Letters(left - 12, y + side / 2 + size * 0.35, name, size, theme.text, "end"))
        high = 0.0
        for k, panel in enumerate(panels):
            R, C = panel.values.shape
            most = max(R, C, 1)
            whole = most if by_cells or side < most else side / (side // most)  # whole pixels a cell
            w, h = (max(side / 4, side * n / whole) for n in (C, R))
            x = left + k * (side + gap)
            high = max(high, h)
            _little(body.items, picture.scale, panel, theme, (x, y, w, h), by_cells=by_cells)
        y += max(side * 0.5, high) + gap
    body.height = y - gap
    return body


def _little(
    items: list[Item],
    scale: Scale,
    panel: Panel,
    theme: Theme,
    place: tuple[float, float, float, float],
    *,
    by_cells: bool,
) -> None:
    x, y, width, height = place
    R, C = panel.values.shape
    parts = scale.parts(panel.values.numpy())
    if not by_cells and parts.size:
        items.append(Image(x, y, width, height, theme.pixels(parts)))
    else:
        items.append(Box(x, y, width, height, theme.colour(0), crisp=True))
        edges = [np.round(np.linspace(0, size, n + 1), 2).tolist() for size, n in ((height, R), (width, C))]
        for r, c in zip(*np.nonzero(parts > 0.002), strict=True):
            items.append(
                Box(
                    x + edges[1][c], y + edges[0][r], edges[1][c + 1] - edges[1][c], edges[0][r + 1] - edges[0][r],
                    theme.colour(float(parts[r, c])), crisp=True,
                )
            )  # fmt: skip
    tip = f"{panel.layer}, {panel.name}"
    items.append(Box(x - 0.5, y - 0.5, width + 1, height + 1, None, theme.line, tip=tip))
