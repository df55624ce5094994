"""Draw attention in a terminal: words on a coloured ground, or shaded where there is no colour.

The scale runs from grey to orange at one lightness, under black letters: so it reads alike on a light and on a dark
ground, and what gets next to nothing has no ground at all. Words are shown as text, whatever they hold.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.style import Style
from rich.text import Text

__all__ = ["Alignment", "Blocks", "Heads", "Matrix", "Row", "safe"]

_GREY, _ORANGE = (138, 138, 138), (255, 153, 20)
_FAINT = 0.03  # less than this is no colour
_SHADES, _ASCII_SHADES = " ░▒▓█", " .:*#"
_LITTLE = 0.1  # less than this is none in a picture of blocks, which has no numbers
_INDENT = 2
_CELL = 4  # columns of a number in a matrix
_NO_NUMBER = "?"  # what stands for NaN and the infinite


def safe(text: str) -> str:
    r"""Show everything that isn't a plain printable character as an escape such as `\x1b` or `\u202e`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Row:
    r"""Draw where one word looks: the words of a sentence, each on the colour of its weight; a rich renderable.

    Args:
        words: the sentence.
        weights: the attention to each, 0 to 1.
        looker: the place of the word that looks, where it is one of these; it is underlined.
        numbered: the places whose weights are written beneath.
    """

    def __init__(
        self, words: Sequence[str], weights: Sequence[float], *, looker: int | None = None,
        numbered: Collection[int] = (),
    ) -> None:  # fmt: skip
        assert len(words) == len(weights)
        self.words, self.weights = [safe(word) for word in words], list(weights)
        self.looker, self.numbered = looker, frozenset(numbered)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lay the words out in lines of the console's width, with their shades and numbers beneath."""
        for line in self._lines(max(10, options.max_width - _INDENT)):
            words, shades, numbers = (Text(" " * _INDENT) for _ in range(3))
            for place in line:
                word, weight = self.words[place], self.weights[place]
                number = f"{weight:.2f}" if place in self.numbered else ""
                width = self._width(place)
                style = _style(weight) + Style(underline=place == self.looker, bold=place == self.looker)
                words.append(word, style).append(" " * (width - cell_len(word) + 1))
                shades.append(_shade(weight, options) * cell_len(word)).append(
                    " " * (width - cell_len(word) + 1)
                )
                numbers.append(f"{number:<{width}} ", "bold" if number else "")
            for text in (words, *(() if _has_colour(console) else (shades,)), numbers):
                text.rstrip()
                text.no_wrap = True
                if text.plain.strip():
                    yield text

    def _width(self, place: int) -> int:
        return max(cell_len(self.words[place]), 4 if place in self.numbered else 0)

    def _lines(self, width: int) -> list[list[int]]:
        """Break the sentence into lines; a word that is longer than a line is cut."""
        lines: list[list[int]] = [[]]
        used = 0
        for place, word in enumerate(self.words):
            if cell_len(word) > width:
                self.words[place] = set_cell_size(word, width - 1) + "~"
            if used and used + self._width(place) > width:
                lines.append([])
                used = 0
            lines[-1].append(place)
            used += self._width(place) + 1
        return lines


class Matrix:
    """Draw where every word looks, as a table of per cents, a row for each word that looks; a rich renderable.

    Args:
        rows: the words that look.
        columns: the words that are looked at.
        weights: attention, 0 to 1, a row for each of `rows`.
        marked: places of rows that stand out.
    """

    def __init__(
        self, rows: Sequence[str], columns: Sequence[str], weights: Sequence[Sequence[float]], *,
        marked: Collection[int] = (),
    ) -> None:  # fmt: skip
        self.rows, self.columns = [safe(word) for word in rows], [safe(word) for word in columns]
        self.weights, self.marked = weights, frozenset(marked)

    @property
    def width(self) -> int:
        """Give the columns of the terminal that it takes."""
        return _INDENT + self._label + _CELL * len(self.columns)

    @property
    def _label(self) -> int:
        return min(14, max(cell_len(word) for word in self.rows)) + 1

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the table; nothing where the console is too narrow for it."""
        if self.width > options.max_width:
            return
        start = " " * (_INDENT + self._label)
        heads = "".join(set_cell_size(word, _CELL - 1).rjust(_CELL) for word in self.columns)
        yield Text(start + heads, "dim", no_wrap=True)
        for place, (word, weights) in enumerate(zip(self.rows, self.weights, strict=True)):
            style = "bold underline" if place in self.marked else ""
            shown = set_cell_size(word, min(cell_len(word), self._label - 1))
            line = (
                Text(" " * _INDENT, no_wrap=True)
                .append(shown, style)
                .append(" " * (self._label - cell_len(shown)))
            )
            for weight in weights:
                number = f"{100 * weight:.0f}" if weight >= _FAINT else "." if options.ascii_only else "·"
                number = number if math.isfinite(weight) else _NO_NUMBER
                line.append(f"{number:>{_CELL - 1}} ", _style(weight) if weight >= _FAINT else "dim")
            yield line


class Blocks:
    """Draw a matrix as blocks of colour, two rows to a line, or as shades; a rich renderable.

    Args:
        parts: places on the scale, 0 to 1, a row for each row; a large one is drawn in cells, the largest part of each.
        width: columns of the terminal at most; None: the console's.
        height: lines at most.
    """

    def __init__(
        self, parts: Sequence[Sequence[float]], *, width: int | None = None, height: int = 24
    ) -> None:
        self.parts, self.width, self.height = parts, width, height

    def lines(self, console: Console, options: ConsoleOptions) -> list[Text]:
        """Give its lines."""
        room = max(1, min(self.width or options.max_width - _INDENT, options.max_width - _INDENT))
        coloured = _has_colour(console) and not options.ascii_only
        most = self.height * (2 if coloured else 1)
        cells = _coarser(self.parts, most, room)
        if not coloured:
            return [
                Text("".join(_shade(0.0 if part < _LITTLE else part, options) for part in row))
                for row in cells
            ]
        if len(cells) % 2:
            cells.append([0.0] * len(cells[0]))
        return [_half_blocks(upper, lower) for upper, lower in zip(cells[::2], cells[1::2], strict=True)]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it."""
        for line in self.lines(console, options):
            yield Text(" " * _INDENT, no_wrap=True).append_text(line)


class Heads:
    """Draw every head of every layer in little, a line of pictures for each layer; a rich renderable.

    Args:
        layers: the layers' names with, for each head, its matrix as places on the scale.
    """

    def __init__(self, layers: Mapping[str, Sequence[Sequence[Sequence[float]]]]) -> None:
        self.layers = layers

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lay the heads out as large as the console allows; many stand on several lines."""
        start = max(cell_len(name) for name in self.layers) + _INDENT + 2
        count = max(len(heads) for heads in self.layers.values())
        room = max(4, options.max_width - start)
        side = min(12, max(4, room // count - 2))
        across = max(1, min(count, (room + 2) // (side + 2)))
        for first in range(0, count, across):
            numbers = "".join(f"{k:<{side + 2}}" for k in range(first, min(first + across, count)))
            yield Text(" " * start + numbers.rstrip(), "dim", no_wrap=True)
            for name, heads in self.layers.items():
                pictures = [
                    Blocks(parts, width=side, height=side // 2).lines(console, options)
                    for parts in heads[first : first + across]
                ]
                for k in range(max((len(picture) for picture in pictures), default=0)):
                    line = Text(f"{' ' * _INDENT}{name if k == 0 else '':<{start - _INDENT}}", no_wrap=True)
                    for picture in pictures:
                        part = picture[k] if k < len(picture) else Text("")
                        line.append_text(part).append(" " * (side + 2 - part.cell_len))
                    line.rstrip()
                    yield line
                yield Text("")


class Alignment:
    """Draw what each word of a text looks at in another: a line for each, with its strongest words; a rich renderable.

    Args:
        rows: the words that look.
        columns: the words that are looked at.
        weights: attention, 0 to 1, a row for each of `rows`.
        top: how many words to show for each.
    """

    def __init__(
        self, rows: Sequence[str], columns: Sequence[str], weights: Sequence[Sequence[float]], *, top: int = 3
    ) -> None:
        self.rows, self.columns = [safe(word) for word in rows], [safe(word) for word in columns]
        self.weights, self.top = weights, top

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw a line for each word that looks, cut where the console is too narrow."""
        label = min(16, max((cell_len(word) for word in self.rows), default=0))
        arrow = "->" if options.ascii_only else "→"
        for word, weights in zip(self.rows, self.weights, strict=True):
            line = Text(" " * _INDENT, no_wrap=True, overflow="crop")
            line.append(set_cell_size(word, label)).append(f" {arrow} ", "dim")
            best = sorted(range(len(weights)), key=lambda k: -weights[k])[: self.top]
            for k in best:
                if weights[k] >= _FAINT:
                    line.append(self.columns[k], _style(weights[k])).append(f" {weights[k]:.2f}  ", "dim")
            line.rstrip()
            line.truncate(options.max_width, overflow="crop")
            yield line


def _coarser(parts: Sequence[Sequence[float]], most_rows: int, most_columns: int) -> list[list[float]]:
    """Join cells until there are few enough, the largest part of each."""
    rows, columns = len(parts), len(parts[0]) if len(parts) else 0
    if not rows or not columns:
        return [[0.0]]
    high, wide = min(rows, most_rows), min(columns, most_columns)
    edges = [[k * size // n for k in range(n + 1)] for size, n in ((rows, high), (columns, wide))]
    largest = np.maximum.reduceat(np.asarray(parts, dtype=float), edges[0][:-1], axis=0)  # NaN stays NaN
    found: list[list[float]] = np.maximum.reduceat(largest, edges[1][:-1], axis=1).tolist()
    return found


def _half_blocks(upper: Sequence[float], lower: Sequence[float]) -> Text:
    """Draw two rows in one line; what is faint shows the terminal's own ground."""
    line = Text()
    for above, below in zip(upper, lower, strict=True):
        if not (math.isfinite(above) and math.isfinite(below)):
            line.append(_NO_NUMBER)
        elif above < _LITTLE and below < _LITTLE:
            line.append(" ")
        elif above < _LITTLE:
            line.append("▄", Style(color=_ground(below)))
        else:
            line.append("▀", Style(color=_ground(above), bgcolor=None if below < _LITTLE else _ground(below)))
    return line


def _has_colour(console: Console) -> bool:
    return console.color_system is not None and not console.no_color


def _style(weight: float) -> Style:
    if not math.isfinite(weight) or weight < _FAINT:
        return Style()
    return Style(color="rgb(0,0,0)", bgcolor=_ground(weight))


def _ground(weight: float) -> str:
    part = min(1.0, max(0.0, weight))
    red, green, blue = (round(a + (b - a) * part) for a, b in zip(_GREY, _ORANGE, strict=True))
    return f"rgb({red},{green},{blue})"


def _shade(weight: float, options: ConsoleOptions) -> str:
    if not math.isfinite(weight):
        return _NO_NUMBER
    shades = _ASCII_SHADES if options.ascii_only else _SHADES
    return shades[0] if weight < _FAINT else shades[min(4, 1 + int(min(weight, 1.0) * 4))]
