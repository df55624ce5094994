"""Results as rows: for a terminal, and as the table between two marks of a document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from regard.bench.common import is_met, read_result
from regard.bench.registry import COMPARISONS
from regard.errors import DataError

BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"


def last_results(folder: Path, names: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Read the last results of these comparisons, or of all, in the order of the registry."""
    chosen = set(names) or set(COMPARISONS)
    found = [read_result(name, folder) for name in COMPARISONS if name in chosen]
    return [result for result in found if result is not None]


def verdict(result: Mapping[str, Any]) -> str:
    """Say whether the target is met: yes, no, or a dash where there is none."""
    met = is_met(result)
    return "-" if met is None else "yes" if met else "no"


def best_peer(result: Mapping[str, Any]) -> tuple[str, float] | None:
    """Give the peer that a result's ratio compares with, and its figure; None where there is none."""
    peers = result["peers"]
    if not peers:
        return None
    best = (min if result["better"] == "less" else max)(peers, key=peers.__getitem__)
    return best, peers[best]


def side_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Give a row for each side of a result: its figure, its memory and its shares of what the machine can do.

    Ours is the first; the others follow, the best first. `theirs/ours` is how a side compares with ours, more being
    better for it.
    """
    details: Mapping[str, Any] = result.get("sides", {})
    less = result["better"] == "less"
    own = next((label for label in result["runs"] if label.startswith("ours")), "ours")
    order = sorted(result["peers"], key=result["peers"].__getitem__, reverse=not less)
    rows = []
    for label, figure in [(own, result["ours"]), *((peer, result["peers"][peer]) for peer in order)]:
        one = details.get(label, {})
        rows.append(
            {
                "side": label,
                result["unit"]: figure,
                "MiB": one.get("peak_mib"),
                "of bandwidth": one.get("bandwidth_share"),
                "of arithmetic": one.get("arithmetic_share"),
                "theirs/ours": None
                if label == own
                else (result["ours"] / figure if less else figure / result["ours"]),
            }
        )
    return rows


def markdown(results: Iterable[Mapping[str, Any]]) -> str:
    """Write results as a table in Markdown: ours, the best peer, the ratio, the target, and whether it is met."""
    lines = [
        "| comparison | ours | the best peer | ratio | target | met |",
        "|---|---|---|---|---|---|",
    ]
    for result in results:
        about = COMPARISONS[result["name"]].about
        peer = best_peer(result)
        cells = [
            f"`{result['name']}`: {about}",
            f"{_number(result['ours'])} {result['unit']}",
            "-" if peer is None else f"{_number(peer[1])} ({peer[0]})",
            _number(result["ratio"]),
            _number(result["target"]),
            verdict(result),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def put_table(path: Path, folder: Path) -> bool:
    """Put the table of the last results between a document's marks; gives whether that changed anything.

    Raises:
        DataError: the document can't be read or written, or has no marks.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} can't be read: {getattr(error, 'strerror', None) or error}") from error
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise DataError(f"{path} has no place for a table: a line {BEGIN}, and one {END}.")
    made = f"{before}{BEGIN}\n\n{markdown(last_results(folder))}\n\n{END}{after}"
    if made == text:
        return False
    try:
        path.write_text(made, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path} can't be written: {error.strerror or error}") from error
    return True


def _number(value: float | None) -> str:
    """Write a figure with three digits, or more where it is large."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
