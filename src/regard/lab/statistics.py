"""Means over seeds with their intervals, and differences of two sides that had the same seeds.

An interval is Student's, of the mean over seeds, with 95 % confidence: seeds are the only thing that is drawn anew from
run to run. With one seed there is none.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["CONFIDENCE", "INTERVAL", "Estimate", "difference", "estimate", "student"]  # fmt: skip

CONFIDENCE = 0.95
INTERVAL = "Student's t over seeds, 95 %"


@dataclass(frozen=True)
class Estimate:
    """Hold a mean over seeds.

    Attributes:
        mean: the mean.
        low, high: its interval; None where there is one value alone.
        n: how many values.
    """

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """Give both ends."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    def above(self, border: float) -> bool:
        """Tell whether the whole interval lies above a border; with one value, that value."""
        return (self.mean if self.low is None else self.low) > border

    def below(self, border: float) -> bool:
        """Tell whether the whole interval lies below a border; with one value, that value."""
        return (self.mean if self.high is None else self.high) < border

    def text(self, unit: str = "", digits: int = 3, factor: float = 1.0) -> str:
        """Write it as `mean [low, high] unit`, each times `factor`, with so many digits."""
        middle = number(self.mean * factor, digits)
        ends = self.interval
        if ends is not None and ends[0] != ends[1]:
            middle += f" [{number(ends[0] * factor, digits)}, {number(ends[1] * factor, digits)}]"
        return f"{middle} {unit}".rstrip()


def estimate(values: Sequence[float]) -> Estimate:
    """Give the mean of values, one of each seed, and its interval."""
    assert values, "a mean of nothing"
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(mean, None, None, 1)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    half = student(n - 1) * math.sqrt(variance / n)
    return Estimate(mean, mean - half, mean + half, n)


def difference(ours: Sequence[float], theirs: Sequence[float]) -> Estimate:
    """Give the mean of the differences seed by seed, which leaves out what a seed does to both sides alike."""
    assert len(ours) == len(theirs), "sides of different seeds can't be paired"
    return estimate([a - b for a, b in zip(ours, theirs, strict=True)])


@functools.cache
def student(freedom: int, confidence: float = CONFIDENCE) -> float:
    """Give the border within which Student's t lies with this confidence.

    Found by halving on Simpson's integral of the density, to about nine digits.
    """
    assert freedom >= 1 and 0 < confidence < 1
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2))
    scale /= math.sqrt(freedom * math.pi)

    # With t = sqrt(freedom) tan(angle) the density's tail is as smooth as its middle.
    def within(border: float, steps: int = 400) -> float:
        end = math.atan(border / math.sqrt(freedom))
        width = end / steps
        weights = (1 if k in (0, steps) else 4 if k % 2 else 2 for k in range(steps + 1))
        total = math.fsum(w * math.cos(k * width) ** (freedom - 1) for k, w in enumerate(weights))
        return 2 * scale * math.sqrt(freedom) * total * width / 3

    low, high = 0.0, 1e6
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle) < confidence else (low, middle)
    return (low + high) / 2


def number(value: float, digits: int = 3) -> str:
    """Write a number with so many digits, and no more zeros than it takes."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if 1e-3 <= abs(value) < 10**digits:
        return f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"
    return f"{value:,.0f}" if abs(value) >= 1 else f"{value:.{digits - 1}e}"
