"""Which label is taken for which: numbers for each class, and the picture confusion.png."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from regard.checkpoints.files import atomic_file
from regard.tasks.metrics import score_classes, spans

__all__ = ["draw_confusion", "tag_details"]

_MOST_LABELS = 60
_MOST_NUMBERS = 25


def tag_details(
    answers: Sequence[Sequence[str]], truths: Sequence[Sequence[str]], labels: Sequence[str]
) -> dict[str, Any]:
    """Give precision, recall, F1 and count of each kind of span, and which word's tag was taken for which.

    Args:
        answers: tags of each sentence.
        truths: the true ones.
        labels: all tags, the order of the table.
    """
    kinds: dict[str, list[int]] = {}  # right, answered, there
    for answer, truth in zip(answers, truths, strict=True):
        ours, theirs = spans(answer), spans(truth)
        for place, found in enumerate((ours & theirs, ours, theirs)):
            for kind, _, _ in found:
                kinds.setdefault(kind, [0, 0, 0])[place] += 1
    per_class = [
        {
            "label": kind, "precision": right / max(1, answered), "recall": right / max(1, there),
            "f1": 2 * right / max(1, answered + there), "count": there,
        }
        for kind, (right, answered, there) in sorted(kinds.items())
    ]  # fmt: skip
    flat = [[tag for sentence in tags for tag in sentence] for tags in (answers, truths)]
    table = score_classes(flat[0], flat[1], labels)
    return {"per_class": per_class, "confusion": table.confusion, "labels": list(labels)}


def draw_confusion(picture: str | Path, counts: Sequence[Sequence[int]], labels: Sequence[str]) -> bool:
    """Draw which true label (rows) was given which answer (columns), as a PNG; the darker, the larger its row's share.

    Args:
        picture: where the PNG goes; written atomically.
        counts: rows are true labels, columns answers, in the order of `labels`.
        labels: their names.

    Returns:
        False, and nothing is drawn, where there are too many labels to be read.
    """
    if len(labels) > _MOST_LABELS:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shares = [[n / max(1, sum(row)) for n in row] for row in counts]
    size = 3 + 0.4 * len(labels)
    figure = Figure(figsize=(size + 0.6, size), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    picture_of = panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names = [(name if len(name) <= 24 else name[:23] + "…").replace("$", r"\$") for name in labels]
    panel.set_xticks(range(len(labels)), names, rotation=90)
    panel.set_yticks(range(len(labels)), names)
    panel.set_xlabel("answer")
    panel.set_ylabel("true label")
    if len(labels) <= _MOST_NUMBERS:
        for i, row in enumerate(counts):
            for j, number in enumerate(row):
                if number:
                    colour = "white" if shares[i][j] > 0.5 else "black"
                    panel.text(j, i, str(number), ha="center", va="center", fontsize=8, color=colour)
    figure.colorbar(picture_of, ax=panel, label="share of the true label", shrink=0.8)
    with atomic_file(Path(picture)) as temporary:
        figure.savefig(os.fspath(temporary), format="png")
    return True
