"""The picture of a run: metrics.jsonl drawn as curves.png."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from regard.checkpoints.files import atomic_file
from regard.errors import DataError
from regard.training.journal import Journal

__all__ = ["draw_curves", "rehearse"]

# Of the Okabe-Ito colours, which stay apart for eyes that see some colours alike.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"

Points = list[tuple[int, float]]
_UNITS = {
    "nll": "nats per token", "accuracy": "part that is right", "bleu": "BLEU", "chrf": "chrF", "f1": "F1",
    "perplexity": "perplexity", "nats_per_character": "nats per character", "bits_per_byte": "bits per byte",
}  # fmt: skip


def draw_curves(metrics: str | Path, picture: str | Path, *, metric: str = "loss", title: str = "") -> Path:
    """Draw a run's losses, its deciding metric and its learning rate over the steps, as a PNG; give its path.

    Args:
        metrics: the run's metrics.jsonl.
        picture: where the PNG goes; written atomically.
        metric: the validation metric that has a panel of its own; none if it is the loss, which is drawn
            already.
        title: a line above the panels.

    Raises:
        DataError: there is nothing to draw yet.
    """
    lines = Journal(Path(metrics)).read()
    if not lines:
        raise DataError(f"{metrics} has no measurements yet, so there is nothing to draw.")
    train_loss, train_nll = _points(lines, "train", "loss"), _points(lines, "train", "nll")
    measured = [name for name in ("nll", "nats", "loss") if _points(lines, "valid", name)]
    valid_nll = _points(lines, "valid", measured[0]) if measured else []
    deciding = [] if metric in ("loss", "nll", "nats") else _points(lines, "valid", metric)
    rates = _points(lines, "train", "lr")

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Without pyplot there is no global state: nothing to close, and no display is looked for.
    heights = [3, 2, 1] if deciding else [3, 1]
    figure = Figure(figsize=(8, 1.6 + 1.2 * sum(heights)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    if title:
        figure.suptitle(title.replace("$", r"\$"), fontsize=11)

    top = panels[0]
    smoothed = any(abs(a[1] - b[1]) > 1e-6 for a, b in zip(train_loss, train_nll, strict=False))
    if smoothed:
        _line(top, train_loss, GREY, "training, with label smoothing", width=0.9)
    _line(top, train_nll or train_loss, BLUE, "training")
    _line(top, valid_nll, ORANGE, "validation", marker="o")
    if valid_nll:
        step, value = min(valid_nll, key=lambda point: point[1])
        top.annotate(
            f"{value:.3f}", (step, value), xytext=(0, 7), textcoords="offset points", ha="center",
            fontsize=8, color=ORANGE,
        )  # fmt: skip
    top.set_ylabel("loss (nats per token)")
    top.legend(frameon=False, fontsize=9)
    if deciding:
        _line(panels[1], deciding, GREEN, metric, marker="o")
        panels[1].set_ylabel(_UNITS.get(metric.lower(), metric.replace("_", " ")))
    _line(panels[-1], rates, GREY, "learning rate")
    panels[-1].set_ylabel("learning rate")
    panels[-1].set_ylim(bottom=0)
    panels[-1].ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    panels[-1].set_xlabel("optimizer step")
    for panel in panels:
        panel.grid(alpha=0.25, linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    figure.align_ylabels(panels)
    picture = Path(picture)
    with atomic_file(picture) as temporary:
        figure.savefig(os.fspath(temporary), format="png")
    return picture


def rehearse(folder: Path) -> float:
    """Load what draws the curves, draw two that say nothing into a folder, and give the seconds of the second one."""
    journal, picture = Journal(folder / "rehearsal.jsonl"), folder / "rehearsal.png"
    values = {"loss": 2.0, "nll": 1.0, "lr": 1.0, "rehearsal": 1.0}
    try:
        for step in range(3):
            journal.add("train", step, values)
            journal.add("valid", step, values)
        seconds = 0.0
        for _ in range(2):
            began = time.monotonic()
            draw_curves(journal.path, picture, metric="rehearsal", title="rehearsal")
            seconds = time.monotonic() - began
        return seconds
    finally:
        journal.path.unlink(missing_ok=True)
        picture.unlink(missing_ok=True)


def _points(lines: list[dict[str, Any]], kind: str, name: str) -> Points:
    values = ((line["step"], line.get(name)) for line in lines if line.get("kind") == kind)
    return [(step, float(v)) for step, v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]


def _line(
    panel: Any, points: Points, color: str, label: str, *, marker: str | None = None, width: float = 1.5
) -> None:
    if points:
        steps, values = zip(*points, strict=True)
        panel.plot(steps, values, color=color, label=label, marker=marker, markersize=3.5, linewidth=width)
