"""A drawing as a list of shapes at their places: what SVG writes and PNG paints, so that both show the same."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from regard.look.draw.terminal import safe

__all__ = ["Box", "Curve", "Image", "Item", "Letters", "Scene", "Strip", "fit", "label", "width_of", "wrap"]

Anchor = Literal["start", "middle", "end"]
Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """Draw a rectangle; `tip` is shown where it is pointed at."""

    x: float
    y: float
    width: float
    height: float
    fill: str | None
    stroke: str | None = None
    radius: float = 0.0
    crisp: bool = False
    tip: str = ""


@dataclass(frozen=True)
class Letters:
    """Write text, its baseline at (x, y), turned by so many degrees clockwise around that point."""

    x: float
    y: float
    text: str
    size: float
    fill: str
    anchor: Anchor = "start"
    angle: float = 0.0
    bold: bool = False


@dataclass(frozen=True)
class Curve:
    """Draw a line (two points), or a cubic one (four)."""

    points: tuple[Point, ...]
    stroke: str
    width: float
    opacity: float = 1.0
    tip: str = ""


@dataclass(frozen=True, eq=False)
class Image:
    """Show pixels (R, C, 3) in a rectangle."""

    x: float
    y: float
    width: float
    height: float
    pixels: np.ndarray


@dataclass(frozen=True)
class Strip:
    """Fill a rectangle with colours that run into each other from left to right."""

    x: float
    y: float
    width: float
    height: float
    colours: tuple[str, ...]


Item = Box | Letters | Curve | Image | Strip


@dataclass(frozen=True)
class Scene:
    """Hold a whole drawing; sizes are pixels of 1/96 inch.

    Attributes:
        width, height: its size.
        ground: its colour.
        items: what is drawn, the first below.
        title, description: for who can't see it.
    """

    width: float
    height: float
    ground: str
    items: Sequence[Item] = field(default_factory=list)
    title: str = ""
    description: str = ""


_NARROW, _SLIM, _BROAD = "iljI.,:;'|! ", 'frt()[]/\\-"`', "mwMW@%<>+=~#&—…→"


def width_of(text: str, size: float) -> float:
    """Estimate how wide a text is, rather too wide than too narrow: no font is asked, so it is the same everywhere."""
    return size * sum(_share(c) for c in text)


def _share(character: str) -> float:
    if character in _NARROW:
        return 0.34
    if character in _SLIM:
        return 0.45
    if character in _BROAD:
        return 1.0
    if unicodedata.combining(character):
        return 0.0
    if unicodedata.east_asian_width(character) in "WF":
        return 1.04
    return 0.72 if character.isupper() else 0.61


def label(text: str) -> str:
    """Show a word as text, whatever it holds; blanks are visible where there is nothing else."""
    return "␣" * len(text) if text and not text.strip(" ") else safe(text)


def fit(text: str, size: float, room: float) -> str:
    """Cut a text that has no room, and say so with dots."""
    if width_of(text, size) <= room:
        return text
    while text and width_of(text, size) + size > room:
        text = text[:-1]
    return text + "…"


def wrap(text: str, size: float, room: float) -> list[str]:
    """Break a text into lines; a word that is longer than a line is cut."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and width_of(longer, size) > room:
            lines.append(fit(word, size, room))
        else:
            lines[-1] = fit(longer, size, room)
    return lines
