"""Where words, lines and bars stand: a sentence with arcs, two lines with links, the numbers of one weight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from regard.look.draw.colours import Scale, Theme
from regard.look.draw.layout import Body
from regard.look.draw.picture import Bars, Links, Strand
from regard.look.draw.scene import Box, Curve, Item, Letters, fit, label, width_of
from regard.look.reading import Word

__all__ = ["lay_bars", "lay_links"]

_SIZE = 14.0
_WIDEST = 1180.0  # of a line whose words stand upright
_PITCH = 17.0  # between words that lean
_SLANT = math.radians(60)
_HIGH = 26.0  # of a word's ground
_NUMBERED = 6  # words whose weights are written


@dataclass(frozen=True)
class _Line:
    """Hold the places of a line's words: their middles, the widths of their grounds, and whether they lean."""

    texts: list[str]
    middles: list[float]
    widths: list[float]
    size: float
    leans: bool
    width: float

    @property
    def room(self) -> float:
        """Give the height that leaning words take."""
        longest = max((width_of(text, self.size) for text in self.texts), default=0.0)
        return longest * math.sin(_SLANT) + self.size if self.leans else _HIGH


def lay_links(data: Links, scale: Scale, theme: Theme) -> Body:
    """Place words on one line with arcs, or on two with links between them."""
    return _lay_arcs(data, scale, theme) if data.same else _lay_pair(data, scale, theme)


def _line(words: Sequence[Word], *, numbered: bool, right_to_left: bool) -> _Line:
    texts = [fit(label(word.text), _SIZE, 220) for word in words]
    least = 30.0 if numbered else 18.0
    widths = [max(least, width_of(text, _SIZE) + 8) for text in texts]
    total = sum(widths) + 5 * max(0, len(widths) - 1)
    leans = total > _WIDEST
    size = 12.0 if leans else _SIZE
    if leans:
        widths = [_PITCH - 2] * len(texts)
        texts = [fit(text, size, 130) for text in texts]
        middles = [_PITCH * (k + 0.5) for k in range(len(texts))]
        total = _PITCH * len(texts)
    else:
        middles, x = [], 0.0
        for width in widths:
            middles.append(x + width / 2)
            x += width + 5
    if right_to_left:
        middles = [total - x for x in middles]
    return _Line(texts, middles, widths, size, leans, total)


def _lay_arcs(data: Links, scale: Scale, theme: Theme) -> Body:
    """Draw one line: arcs above it, those to later words below it unless the words lean there."""
    line = _line(data.rows, numbered=bool(data.looker), right_to_left=data.right_to_left[0])
    weights = _weights(data)
    strands = [one for one in data.strands if one.weight >= data.least]
    below = not data.looker and not line.leans
    reaches = [0.0, 0.0]
    for one in strands:
        k = int(below and one.column > one.row)
        reaches[k] = max(reaches[k], abs(line.middles[one.row] - line.middles[one.column]))
    most = min(190.0, max(40.0, 0.42 * max(reaches)))
    ups = [0.0 if not reach else min(most, 14 + 0.42 * reach) + 6 for reach in reaches]
    ups[0] = max(ups[0], 22.0)
    overhang = max((_overhang(line, k) for k in range(len(line.texts))), default=0.0) if line.leans else 0.0
    y = ups[0] + 4
    body = Body(line.width + overhang, 0)
    items = body.items
    for one in sorted(strands, key=lambda one: one.weight):
        down = below and one.column > one.row
        edge, sign = (y + _HIGH + 1, 1) if down else (y - 1, -1)
        items.append(_arc(one, line, data, scale, theme, overhang, edge, sign, most))
    _draw_line(
        items,
        line,
        data.rows,
        theme,
        (overhang, y),
        up=False,
        weights=weights,
        looker=data.looker,
        scale=scale,
    )
    body.height = y + line.room + (_HIGH * 0.2 if line.leans else 0)
    if weights and not line.leans:
        _write_weights(items, line, weights, theme, overhang, y + _HIGH + 13)
        body.height += 16
    body.height += ups[1]
    body.has_scale = bool(data.looker)
    if not data.looker:
        _legend(body, scale, theme)
    return body


def _arc(
    one: Strand,
    line: _Line,
    data: Links,
    scale: Scale,
    theme: Theme,
    left: float,
    edge: float,
    sign: int,
    most: float,
) -> Curve:
    start, end = left + line.middles[one.row], left + line.middles[one.column]
    tip = f"{label(data.rows[one.row].text)} → {label(data.columns[one.column].text)}: {one.weight:.6g}"
    width, opacity = _stroke(one.weight, scale)
    if one.row == one.column:  # a word that looks at itself
        return Curve(
            ((start - 5, edge), (start - 11, edge + sign * 20), (start + 11, edge + sign * 20), (start + 5, edge)),
            theme.accent, width, opacity, tip,
        )  # fmt: skip
    high = edge + sign * min(most, 14 + 0.42 * abs(end - start)) * 4 / 3
    return Curve(((start, edge), (start, high), (end, high), (end, edge)), theme.accent, width, opacity, tip)


def _stroke(weight: float, scale: Scale) -> tuple[float, float]:
    part = min(1.0, weight / scale.high)
    return 0.8 + 4.2 * part, 0.22 + 0.78 * part


def _lay_pair(data: Links, scale: Scale, theme: Theme) -> Body:
    """Draw two lines: what is looked at above, what looks below."""
    upper = _line(data.columns, numbered=bool(data.looker), right_to_left=data.right_to_left[1])
    lower = _line(data.rows, numbered=False, right_to_left=data.right_to_left[0])
    sides = data.sides if data.sides[0] != data.sides[1] else ("from", "to")
    names = max(width_of(name, 11) for name in sides) + 14
    overhang = (
        max((_overhang(lower, k) for k in range(len(lower.texts))), default=0.0) if lower.leans else 0.0
    )
    over = (
        max((_overhang(upper, k, up=True) for k in range(len(upper.texts))), default=0.0)
        if upper.leans
        else 0.0
    )
    left, wide = max(names, overhang), max(upper.width + over, lower.width)
    body = Body(left + wide, 0)
    starts = [left + (wide - over * (line is upper) - line.width) / 2 for line in (upper, lower)]
    weights = _weights(data)
    top = (18.0 if weights and not upper.leans else 0.0) + upper.room
    gap = min(230.0, max(110.0, 0.16 * wide))
    items = body.items
    for one in sorted(data.strands, key=lambda one: one.weight):
        if one.weight >= data.least:
            x, u = starts[1] + lower.middles[one.row], starts[0] + upper.middles[one.column]
            tip = (
                f"{label(data.rows[one.row].text)} → {label(data.columns[one.column].text)}: {one.weight:.6g}"
            )
            width, opacity = _stroke(one.weight, scale)
            points = ((x, top + gap), (x, top + gap * 0.5), (u, top + gap * 0.5), (u, top))
            items.append(Curve(points, theme.accent, width, opacity, tip))
    at = (starts[0], top - _HIGH)
    _draw_line(items, upper, data.columns, theme, at, up=True, weights=weights, looker=(), scale=scale)
    at = (starts[1], top + gap)
    _draw_line(items, lower, data.rows, theme, at, up=False, weights={}, looker=data.looker, scale=scale)
    if weights and not upper.leans:
        _write_weights(items, upper, weights, theme, starts[0], top - _HIGH - 5)
    for name, y in ((sides[1], top - _HIGH / 2 + 4), (sides[0], top + gap + _HIGH / 2 + 4)):
        items.append(Letters(0, y, name, 11, theme.quiet))
    body.height = top + gap + lower.room
    body.has_scale = bool(data.looker)
    if not data.looker:
        _legend(body, scale, theme)
    return body


def _weights(data: Links) -> dict[int, float]:
    """Give the weight of each column where there is one row."""
    return {one.column: one.weight for one in data.strands} if data.looker else {}


def _overhang(line: _Line, place: int, *, up: bool = False) -> float:
    """Give how far a leaning word reaches beyond its line: to the right above, to the left below."""
    reach = width_of(line.texts[place], line.size) * math.cos(_SLANT)
    x = line.middles[place]
    return max(0.0, x + reach - line.width) if up else max(0.0, reach - x)


def _draw_line(
    items: list[Item], line: _Line, words: Sequence[Word], theme: Theme, at: tuple[float, float], *, up: bool,
    weights: dict[int, float], looker: tuple[int, ...], scale: Scale,
) -> None:  # fmt: skip
    """Write a line's words, on the colours of their weights; the one that looks has a frame."""
    left, y = at
    for k, text in enumerate(line.texts):
        x, wide = left + line.middles[k], line.widths[k]
        part = scale.part(weights[k]) if k in weights else None
        quiet = theme.quiet if words[k].special else theme.text
        frame = theme.accent if k in looker else None
        if line.leans:
            mark = y + _HIGH - 8 if up else y + 2
            if part is not None:
                items.append(Box(x - wide / 2, mark, wide, 6, theme.colour(part)))
            colour = frame or quiet
            angle_at = (x + 4, y + _HIGH - 12) if up else (x + 4, y + 18)
            anchor = "start" if up else "end"
            items.append(
                Letters(*angle_at, text, line.size, colour, anchor, angle=-60, bold=k in looker)  # type: ignore[arg-type]
            )
            continue
        if part is not None or frame:
            ground = None if part is None else theme.colour(part)
            items.append(Box(x - wide / 2, y, wide, _HIGH, ground, frame, radius=4))
        ink = quiet if part is None else theme.ink(part)
        items.append(
            Letters(x, y + _HIGH / 2 + line.size * 0.35, text, line.size, ink, "middle", bold=k in looker)
        )


def _write_weights(
    items: list[Item], line: _Line, weights: dict[int, float], theme: Theme, left: float, y: float
) -> None:
    best = sorted(weights, key=lambda place: -weights[place])[:_NUMBERED]
    for place in best:
        if weights[place] >= 0.005:
            text = f"{weights[place]:.2f}"
            items.append(Letters(left + line.middles[place], y, text, 10.5, theme.quiet, "middle"))


def _legend(body: Body, scale: Scale, theme: Theme) -> None:
    """Say what the widths of lines are."""
    y, x = body.height + 26, 0.0
    for part in (0.2, 0.6, 1.0):
        width, opacity = _stroke(part * scale.high, scale)
        body.items.append(Curve(((x, y - 4), (x + 34, y - 4)), theme.accent, width, opacity))
        body.items.append(Letters(x + 40, y, f"{part * scale.high:.2g}", 10.5, theme.quiet))
        x += 84
    body.items.append(Letters(x, y, "attention weight", 10.5, theme.quiet))
    body.width, body.height = max(body.width, x + 110), y + 4


_BAR_LEFT, _BAR_HIGH, _BARS_WIDE = 96.0, 84.0, 720.0


def lay_bars(data: Bars, theme: Theme) -> Body:
    """Place one weight: query, key and their products as bars, and the steps from their sum to the weight."""
    count = max(1, len(data.query))
    each = max(4.0, min(16.0, math.floor(_BARS_WIDE / count)))
    body = Body(_BAR_LEFT + max(each * count, 420.0), 0)
    items, y = body.items, 0.0
    names = (f"query: {label(data.row.text)}", f"key: {label(data.column.text)}", "query × key")
    for name, values in zip(names, (data.query, data.key, data.product), strict=True):
        most = max((abs(value) for value in values), default=0.0) or 1.0
        middle = y + 24 + _BAR_HIGH / 2
        items.append(Letters(0, y + 13, fit(name, 13.5, body.width), 13, theme.text, bold=True))
        items.append(Box(_BAR_LEFT, middle, each * count, 1, theme.line, crisp=True))
        for text, shift in ((f"{most:.3g}", -_BAR_HIGH / 2 + 8), ("0", 4.0), (f"−{most:.3g}", _BAR_HIGH / 2)):
            items.append(Letters(_BAR_LEFT - 10, middle + shift, text, 10.5, theme.quiet, "end"))
        for k, value in enumerate(values):
            high = abs(value) / most * _BAR_HIGH / 2
            top = middle - high if value > 0 else middle
            colour = theme.accent if value > 0 else theme.negative
            tip = f"[{k}] {value:.6g}"
            items.append(Box(_BAR_LEFT + k * each + 1, top, each - 1, max(0.5, high), colour, tip=tip))
        y = middle + _BAR_HIGH / 2 + 10
    step = max(1, count // 8)
    for k in range(0, count, step):
        items.append(Letters(_BAR_LEFT + (k + 0.5) * each, y + 6, str(k), 10, theme.quiet, "middle"))
    items.append(Letters(_BAR_LEFT - 10, y + 6, "dimension", 10.5, theme.quiet, "end"))
    y += 30
    for place, one in enumerate(data.steps):
        last = place == len(data.steps) - 1
        colour = theme.text if last else theme.quiet
        items.append(Letters(_BAR_LEFT + 150, y, one.how, 13, theme.quiet, "end"))
        items.append(
            Letters(
                _BAR_LEFT + 250, y, f"{one.value:.5g}".replace("-", "−"), 13, theme.text, "end", bold=last
            )
        )
        items.append(Letters(_BAR_LEFT + 266, y, one.name, 13, colour, bold=last))
        y += 22
    body.height = y - 14
    body.has_scale = False
    return body
