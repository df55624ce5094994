"""What a claim of the lab is: a question, a way to measure it, and what would refute it.

measure(seed) for each seed ─> conclude(all of them) ─> a verdict in one sentence, an effect, a figure

A claim's file says all of it in one `Claim`; what runs, keeps and draws it is in runner.py, results.py, drawing.py and
page.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from regard.lab.statistics import Estimate

__all__ = [
    "SIZES",
    "Claim",
    "Figure",
    "Finding",
    "Measured",
    "Panel",
    "Report",
    "Series",
    "Settings",
    "Size",
    "Status",
]

Settings = Mapping[str, Any]
Measured = dict[str, Any]
"""What one seed gave: numbers by name, nested as one likes, all of them finite; what JSON can hold."""
Report = Callable[[str], None]
Status = Literal["holds", "holds in part", "fails", "undecided"]

SIZES = ("laptop", "gpu", "smoke")
"""laptop: within ten minutes on two cores; gpu: larger, for one accelerator; smoke: seconds, whose numbers mean
nothing."""


@dataclass(frozen=True)
class Size:
    """Say how large an experiment is: how many seeds, and the settings that its `measure` gets."""

    seeds: int
    settings: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class Series:
    """Hold one line of points, or one sort of bars, each a mean over seeds with its interval.

    Attributes:
        name: what it is called in the legend and the table.
        x: where the points stand: numbers, or words for bars.
        points: one for each x.
        is_baseline: whether it is only what the others are compared with.
    """

    name: str
    x: tuple[float | str, ...]
    points: tuple[Estimate, ...]
    is_baseline: bool = False


@dataclass(frozen=True)
class Panel:
    """Hold one pair of axes.

    Attributes:
        title: what is shown.
        x, y: what the axes are, with their units.
        series: what is drawn; lines where x are numbers, bars where they are words.
        x_log, y_log: whether an axis is logarithmic.
        marks: values of x with a vertical line, and what each is.
    """

    title: str
    x: str
    y: str
    series: tuple[Series, ...]
    x_log: bool = False
    y_log: bool = False
    marks: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True)
class Figure:
    """Hold a claim's figure: what is drawn, and what stands in the table beside it."""

    caption: str
    panels: tuple[Panel, ...]

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain JSON values."""
        return dataclasses.asdict(self)

    def rows(self) -> list[dict[str, Any]]:
        """List every point drawn: panel, series, x, mean, low, high and n."""
        return [
            {"panel": panel.title, "series": series.name, "x": x, **dataclasses.asdict(point)}
            for panel in self.panels
            for series in panel.series
            for x, point in zip(series.x, series.points, strict=True)
        ]


@dataclass(frozen=True)
class Finding:
    """Hold what all seeds together say.

    Attributes:
        status: whether the claim holds.
        sentence: the verdict, one sentence with its numbers and their spread over seeds.
        effect: the number that the verdict hangs on.
        effect_of: what that number is, with its unit.
        figure: what is drawn.
        more: further numbers that a reader or a lesson may want.
    """

    status: Status
    sentence: str
    effect: Estimate
    effect_of: str
    figure: Figure
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """Describe one experiment.

    Attributes:
        id: L1 to L14.
        title: a few words.
        said: what people are told.
        question: what is asked here.
        method: how it is measured.
        refuted_by: which outcome would refute it, written before the run.
        fair: what is equal between the sides, parameters or time, and what isn't.
        tuning: what was tried to find the settings of each side.
        sizes: by the names in `SIZES`.
        measure: what one seed does; it depends on seed and settings alone.
        conclude: what all seeds together say.
        repeats: whether the same seeds give the same numbers on the same machine; times and memory don't.
    """

    id: str
    title: str
    said: str
    question: str
    method: str
    refuted_by: str
    fair: str
    tuning: str
    sizes: Mapping[str, Size]
    measure: Callable[[int, Settings, Report], Measured]
    conclude: Callable[[Sequence[Measured], Settings], Finding]
    repeats: bool = True
