"""Measures over several texts: means, how far texts differ, and where each head does most and least of a thing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from regard.look.measures import MEASURES, HeadMeasures, Links, Measure, measure
from regard.look.reading import Look

__all__ = ["CorpusMeasure", "interval_of_mean", "measure_corpus"]


@dataclass(frozen=True)
class CorpusMeasure(Measure):
    """Hold one measure of one head over several texts; `value` and `baseline` are means over texts, each counting once.

    Attributes:
        deviation: the standard deviation over texts.
        low, high: the interval of the mean with 95 % confidence, by Student's t; infinite for one text.
        texts: how many texts had rows for it; `n` counts the rows.
        best, worst: the numbers of the texts where it is highest and lowest, from 0, with their values.
    """

    deviation: float
    low: float
    high: float
    texts: int
    best: tuple[tuple[int, float], ...]
    worst: tuple[tuple[int, float], ...]


def measure_corpus(
    looks: Iterable[Look],
    *,
    layers: Collection[str] | None = None,
    rows: int | None = None,
    links: Iterable[Links] | None = None,
    extremes: int = 3,
) -> list[HeadMeasures]:
    """Measure every head over several texts; the values are `CorpusMeasure`s.

    Args:
        looks: taken one by one, so that an iterator holds one in memory.
        layers: names of those to measure, as `measure` takes them; None: all.
        rows: measure so many rows of each text, evenly spaced; None: all of them.
        links: of each text, in the same order.
        extremes: how many of the best and the worst texts to name.

    Raises:
        ConfigError: there is no such layer, or a link is outside its text.
    """
    found: dict[tuple[str, int], dict[str, list[tuple[int, Measure]]]] = {}
    looked: Counter[tuple[str, int]] = Counter()
    sampled = False
    pairs = ((look, None) for look in looks) if links is None else zip(looks, links, strict=True)
    for number, (look, linked) in enumerate(pairs):
        for one in measure(look, layers=layers, rows=rows, links=linked):
            values = found.setdefault((one.layer, one.head), {})
            looked[one.layer, one.head] += one.rows
            sampled = sampled or one.sampled
            for name, value in one.values.items():
                values.setdefault(name, []).append((number, value))
    return [
        HeadMeasures(
            layer, head, {name: _over(values[name], extremes) for name in MEASURES if name in values},
            looked[layer, head], sampled,
        )
        for (layer, head), values in found.items()
    ]  # fmt: skip


def _over(values: Sequence[tuple[int, Measure]], extremes: int) -> CorpusMeasure:
    order = sorted(((number, one.value) for number, one in values), key=lambda pair: -pair[1])
    mean = sum(value for _, value in order) / len(order)
    deviation, low, high = interval_of_mean([value for _, value in order])
    return CorpusMeasure(
        mean, sum(one.baseline for _, one in values) / len(values), sum(one.n for _, one in values),
        deviation, low, high, len(values), tuple(order[:extremes]), tuple(order[::-1][:extremes]),
    )  # fmt: skip


def interval_of_mean(values: Sequence[float]) -> tuple[float, float, float]:
    """Give the standard deviation of some values, and the interval of their mean with 95 % confidence (Student's t).

    >>> [round(x, 2) for x in interval_of_mean([1.0, 2.0, 3.0])]
    [1.0, -0.48, 4.48]
    """
    n = len(values)
    mean = sum(values) / n
    if n < 2:
        return 0.0, -math.inf, math.inf
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
    half = _student(n - 1) * deviation / math.sqrt(n)
    return deviation, mean - half, mean + half


def _student(freedom: int) -> float:
    """Give the 97.5 % point of Student's t, to three digits; beyond a few degrees by Cornish and Fisher's series."""
    table = (12.706, 4.303, 3.182, 2.776, 2.571)
    if freedom <= len(table):
        return table[freedom - 1]
    z = 1.959964
    series = (
        (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    )  # fmt: skip
    return z + sum(term / freedom ** (k + 1) for k, term in enumerate(series))
