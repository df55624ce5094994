"""The verdicts as a part of a document, between two marks."""

from __future__ import annotations

import os
from pathlib import Path

from regard.bench.common import put_between
from regard.lab.kept import read_result
from regard.lab.registry import claims
from regard.lab.statistics import number

__all__ = ["BEGIN", "END", "markdown", "put_table"]

BEGIN, END = "<!-- lab: begin -->", "<!-- lab: end -->"


def markdown(folder: Path, beside: Path) -> str:
    """Write the results in a folder as Markdown, with paths as they are from the folder `beside`."""
    parts = []
    for claim in claims():
        result = read_result(claim.id, folder)
        lines = [f"## {claim.id}: {claim.title}", "", f"{claim.question}", ""]
        if result is None:
            lines.append(f"Not measured yet: `regard lab run {claim.id}`.")
        else:
            ends = result["interval"]
            interval = "" if ends is None else f" [{number(ends[0])}, {number(ends[1])}]"
            seeds = len(result["seeds"])
            figure = Path(os.path.relpath(folder / claim.id / "figure.svg", beside)).as_posix()
            lines += [
                f"**{result['verdict']}**",
                "",
                f"![{claim.id}: {result['figure']['caption']}]({figure})",
                "",
                f"Effect: {number(result['effect'])}{interval}, {result['effect_of']}; {seeds} seeds. "
                f"{result['fair']} What would have refuted it: {result['refuted_by']}",
            ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def put_table(path: Path, folder: Path) -> bool:
    """Put the results between a document's marks; gives whether that changed anything.

    Raises:
        DataError: the document can't be read or written, or has no marks.
    """
    return put_between(path, (BEGIN, END), markdown(folder, path.resolve().parent))
