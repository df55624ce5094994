"""Draw a claim's figure as one SVG for light and dark: the colours are those of light, and a rule turns them.

Text stays text, so that it can be read aloud, searched and scaled.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Mapping
from typing import Any

from regard.look.draw.colours import DARK, LIGHT

__all__ = ["COLOURS", "svg"]

COLOURS: tuple[tuple[str, str], ...] = (
    ("#0072b2", "#56b4e9"), ("#c24e00", "#ff9d5c"), ("#00835f", "#35c79a"), ("#a3478a", "#e59bc9"),
    ("#8a6100", "#e6b84a"), ("#5b4fb0", "#a79bf0"),
)  # fmt: skip
"""The colours of series on light and on dark ground, near those of Okabe and Ito, which stay apart for eyes that see
some colours alike; each has a mark of its own too."""
_AROUND = (
    (LIGHT.ground, DARK.ground),
    (LIGHT.text, DARK.text),
    (LIGHT.quiet, DARK.quiet),
    (LIGHT.line, DARK.line),
)
_MARKS = ("o", "s", "^", "D", "v", "P")
_LARGEST = 1e300


def svg(figure: Mapping[str, Any], *, title: str) -> str:
    """Draw a figure, as `Figure.to_dict` gives it; the same figure is the same text.

    Intervals are drawn as bars around the points.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    panels = figure["panels"]
    settings: Any = {
        "svg.fonttype": "none", "svg.hashsalt": title, "font.family": "sans-serif", "font.size": 10,
        "axes.edgecolor": LIGHT.quiet, "axes.labelcolor": LIGHT.text, "text.color": LIGHT.text,
        "xtick.color": LIGHT.quiet, "ytick.color": LIGHT.quiet, "xtick.labelcolor": LIGHT.text,
        "ytick.labelcolor": LIGHT.text, "grid.color": LIGHT.line, "axes.facecolor": LIGHT.ground,
    }  # fmt: skip
    with mpl.rc_context(settings):
        columns = min(2, len(panels))
        rows = -(-len(panels) // columns)
        names = [[series["name"] for series in panel["series"]] for panel in panels]
        several = [one for one in names if len(one) > 1]
        shared = len(several) > 1 and all(one == several[0] for one in several)
        canvas = Canvas(figsize=(5.2 * columns, 3.9 * rows), layout="constrained", facecolor=LIGHT.ground)
        FigureCanvasSVG(canvas)
        places = canvas.subplots(rows, columns, squeeze=False).flatten()
        for place, panel in zip(places, panels, strict=False):
            _panel(place, panel, shared=shared)
        for place in places[len(panels) :]:
            place.set_axis_off()
        if shared:
            lines, labels = places[names.index(several[0])].get_legend_handles_labels()
            canvas.legend(lines, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
        buffer = io.StringIO()
        canvas.savefig(buffer, format="svg", metadata={"Date": None, "Title": title, "Creator": "regard lab"})
    return _themed(buffer.getvalue(), title=title, caption=figure["caption"])


def _panel(place: Any, panel: Mapping[str, Any], *, shared: bool) -> None:
    """Draw one pair of axes; a legend that several share stands below them all."""
    place.set_title(_folded(panel["title"], 58), fontsize=10.5, loc="left")
    place.set_xlabel(_folded(panel["x"], 58))
    place.set_ylabel(_folded(panel["y"], 36))
    words = any(isinstance(x, str) for series in panel["series"] for x in series["x"])
    if panel["x_log"] and not words:
        place.set_xscale("log", base=2)
        ticks = sorted({x for series in panel["series"] for x in series["x"]})
        if len(ticks) <= 12:
            place.set_xticks(ticks, [f"{tick:,g}" for tick in ticks], rotation=30 if len(ticks) > 6 else 0)
            place.minorticks_off()
    if panel["y_log"]:
        place.set_yscale("log")
    order: dict[str, int] = {}
    if words:
        for series in panel["series"]:
            for x in series["x"]:
                order.setdefault(str(x), len(order))
        turned = 30 if len(order) > 4 or max(map(len, order)) > 12 else 0
        place.set_xticks(
            range(len(order)),
            [_plain(word) for word in order],
            rotation=turned,
            ha="right" if turned else "center",
        )
    others = 0
    for number, series in enumerate(panel["series"]):
        colour = LIGHT.quiet if series["is_baseline"] else COLOURS[others % len(COLOURS)][0]
        mark = "x" if series["is_baseline"] else _MARKS[others % len(_MARKS)]
        others += not series["is_baseline"]
        if words:  # side by side, so that no interval hides another
            shift = (number - (len(panel["series"]) - 1) / 2) * min(0.16, 0.8 / max(1, len(panel["series"])))
            x = [order[str(one)] + shift for one in series["x"]]
            line = "none"
        else:
            x, line = list(series["x"]), "--" if series["is_baseline"] else "-"
        points = series["points"]
        means = [point["mean"] for point in points]
        ends = [[], []]  # type: list[list[float]]
        for point in points:
            for side, end in enumerate(("low", "high")):
                value = point["mean"] if point[end] is None else point[end]
                ends[side].append(min(_LARGEST, abs(value - point["mean"])))
        if panel["y_log"]:  # a bar down to zero or below has no end here
            ends[0] = [min(e, m * (1 - 1e-3)) if m > 0 else 0.0 for e, m in zip(ends[0], means, strict=True)]
        place.errorbar(
            x, means, yerr=ends, color=colour, marker=mark, markersize=4.5, linewidth=1.5, linestyle=line,
            elinewidth=1.1, capsize=2.5, label=_plain(series["name"]),
        )  # fmt: skip
    for at, name in panel["marks"]:
        place.axvline(at, color=LIGHT.quiet, linewidth=0.9, linestyle=":")
        place.annotate(
            _plain(name), (at, 1), xycoords=("data", "axes fraction"), xytext=(3, -10), textcoords="offset points",
            fontsize=8.5, color=LIGHT.quiet,
        )  # fmt: skip
    place.grid(axis="y", linewidth=0.6)
    place.set_axisbelow(True)
    place.spines[["top", "right"]].set_visible(False)
    if len(panel["series"]) > 1 and not shared:
        place.legend(frameon=False, fontsize=8.5)


def _folded(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(_plain(text), width))


def _plain(text: str) -> str:
    """Keep matplotlib from reading a dollar sign as mathematics."""
    return text.replace("$", r"\$")


def _themed(text: str, *, title: str, caption: str) -> str:
    """Add what turns the colours in the dark, and what a screen reader says."""
    rules = "".join(
        f'[style*="{what}: {light}"]{{{what}:{dark}!important}}'
        for light, dark in (*_AROUND, *COLOURS)
        for what in ("fill", "stroke")
        if f"{what}: {light}" in text
    )
    style = f"<style>@media(prefers-color-scheme:dark){{{rules}}}</style>"
    said = f"<title>{_escaped(title)}</title><desc>{_escaped(caption)}</desc>"
    body = re.sub(r"<\?xml.*?\?>\s*|<!DOCTYPE.*?>\s*", "", text, flags=re.S)
    body = re.sub(r"\s*<metadata>.*?</metadata>", "", body, flags=re.S)
    body = re.sub(r"(-?\d+\.\d\d)\d+", r"\1", body)  # a hundredth of a point is nothing
    return re.sub(
        r"<svg ([^>]*)>", rf'<svg role="img" \1>{style}{said}'.replace("\\1", r"\g<1>"), body, count=1
    )


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\\", r"\\")
