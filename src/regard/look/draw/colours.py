"""Colours of a picture: one scale from nothing to everything, and what stands around it, on light and on dark ground.

Lightness falls (on dark ground: rises) all the way while hue runs from yellow to blue, so that the scale reads alike
with any kind of colour vision, and in grey. It is the one of the interactive page.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

__all__ = ["DARK", "LIGHT", "Scale", "Theme", "ramp"]

RGB = tuple[int, int, int]
_Lab = tuple[float, float, float]

# Anchors of the scale in OKLCH (Ottosson 2020): lightness, chroma, hue in degrees.
_ANCHORS: dict[str, tuple[_Lab, ...]] = {
    "light": (
        (0.975, 0.006, 95), (0.91, 0.07, 98), (0.79, 0.105, 140), (0.62, 0.1, 200), (0.43, 0.115, 255),
        (0.27, 0.1, 275),
    ),
    "dark": (
        (0.215, 0.014, 262), (0.33, 0.09, 270), (0.47, 0.105, 245), (0.63, 0.105, 200), (0.79, 0.12, 145),
        (0.94, 0.12, 102),
    ),
}  # fmt: skip
_LEAST_LOG = 1e-3
_STEPS = 256


@dataclass(frozen=True)
class Theme:
    """Hold the colours around the weights, as `#rrggbb`; the page has the same but for a white ground, for papers."""

    name: Literal["light", "dark"]
    ground: str
    text: str
    quiet: str
    line: str
    accent: str
    negative: str

    def ink(self, part: float) -> str:
        """Give the colour of letters on a place of the scale."""
        red, green, blue = ramp(self.name)[_place(part)]
        return "#15181d" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#f7f5ef"

    def colour(self, part: float) -> str:
        """Give a place of the scale, 0 to 1."""
        return "#{:02x}{:02x}{:02x}".format(*ramp(self.name)[_place(part)])

    def pixels(self, parts: np.ndarray) -> np.ndarray:
        """Give the colours of an array (R, C) of places as bytes (R, C, 3); NaN has that of nothing."""
        table = np.array(ramp(self.name), dtype=np.uint8)
        return table[np.rint(np.clip(np.nan_to_num(parts), 0, 1) * (_STEPS - 1)).astype(int)]


LIGHT = Theme("light", "#ffffff", "#1e2229", "#5f6670", "#dcd8ce", "#b4490f", "#3567a8")
DARK = Theme("dark", "#14171c", "#ebe8e0", "#9aa2ad", "#363d48", "#ff9d5c", "#76a7e8")


@dataclass(frozen=True)
class Scale:
    """Say which weights the ends of the scale are.

    Attributes:
        kind: "linear" from zero, or "log" from `low`.
        high: the weight at the upper end.
        low: the weight at the lower end of a logarithmic scale; what is less is drawn as nothing.
        clipped: whether some weights are larger than `high`.
    """

    kind: Literal["linear", "log"] = "linear"
    high: float = 1.0
    low: float = 0.0
    clipped: bool = False

    def parts(self, weights: np.ndarray) -> np.ndarray:
        """Give the places of weights on the scale, 0 to 1."""
        if self.kind == "linear":
            return np.clip(weights / self.high, 0, 1)
        with np.errstate(divide="ignore"):
            found = np.log(weights / self.low) / math.log(self.high / self.low)
        return np.clip(found, 0, 1)

    def part(self, weight: float) -> float:
        """Give the place of one weight."""
        return float(self.parts(np.array(weight, dtype=float)))

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """List places to label, with their weights."""
        if self.kind == "linear":
            steps = 4 if self.high in (0.2, 1.0) else 5
            found = [(k / steps, f"{k / steps * self.high:.2g}") for k in range(steps + 1)]
        else:
            tens = range(math.ceil(math.log10(self.low) - 1e-9), round(math.log10(self.high)) + 1)
            found = [(self.part(10.0**ten), _power(ten)) for ten in tens]
        if self.clipped:
            found[-1] = (found[-1][0], f"≥ {found[-1][1]}")
        return found

    @classmethod
    def linear(cls, largest: float, *, clipped: bool = False) -> Scale:
        """Give a linear scale that ends at a round number, at least `largest`."""
        high = next(one for one in (0.05, 0.1, 0.2, 0.5, 1.0) if one >= min(1.0, largest) - 1e-6)
        return cls("linear", high, clipped=clipped and high < 1)

    @classmethod
    def log(cls, columns: int) -> Scale:
        """Give a logarithmic scale for rows that share one among so many columns."""
        return cls("log", 1.0, min(_LEAST_LOG, 0.05 / max(1, columns)))


@cache
def ramp(theme: str) -> tuple[RGB, ...]:
    """Give the scale in 256 steps."""
    anchors = [_flat(one) for one in _ANCHORS[theme]]
    found = []
    for step in range(_STEPS):
        place = step / (_STEPS - 1) * (len(anchors) - 1)
        k = min(len(anchors) - 2, int(place))
        found.append(_rgb([a + (b - a) * (place - k) for a, b in zip(*anchors[k : k + 2], strict=True)]))
    return tuple(found)


def _place(part: float) -> int:
    return round(min(1.0, max(0.0, part)) * (_STEPS - 1))


def _power(ten: int) -> str:
    return str(10.0**ten if ten < 0 else 10**ten) if ten >= -3 else f"1e{ten}"


def _flat(anchor: _Lab) -> _Lab:
    lightness, chroma, hue = anchor
    return lightness, chroma * math.cos(math.radians(hue)), chroma * math.sin(math.radians(hue))


def _rgb(lab: list[float]) -> RGB:
    lightness, a, b = lab
    l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3
    linear = (
        4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
        -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
        -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
    )
    red, green, blue = (
        round(
            255
            * min(1.0, max(0.0, 12.92 * v if v <= 0.0031308 else 1.055 * max(0.0, v) ** (1 / 2.4) - 0.055))
        )
        for v in linear
    )
    return red, green, blue
