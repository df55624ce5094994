"""Results as rows: for a terminal, and as the table between two marks of a document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from regard.bench.common import best_side, is_met, put_between, read_result
from regard.bench.registry import COMPARISONS

BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"


def last_results(folder: Path, names: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Read the last results of these comparisons, or of all, in the order of the registry."""
    chosen = set(names) or set(COMPARISONS)
    found = [read_result(name, folder) for name in COMPARISONS if name in chosen]
    return [result for result in found if result is not None]


def verdict(result: Mapping[str, Any]) -> str:
    """Say whether every aim is met: yes, no, or a dash where there is none."""
    met = is_met(result)
    return "-" if met is None else "yes" if met else "no"


def comparisons(result: Mapping[str, Any]) -> list[str]:
    """Say how many times as good as each peer aimed at ours is, and what is aimed at; then those that were absent.

    Without aims it is compared with the goal or the best peer, and so is a result of the time before there were any.
    """
    found = [
        f"{peer}: {_number(one['times'])} × (aim {_number(one['aim'])})"
        for peer, one in result.get("against", {}).items()
    ]
    found += [f"{peer}: absent (aim {_number(aim)})" for peer, aim in result.get("absent", {}).items()]
    if found or result["ratio"] is None:
        return found
    best = best_side(result["peers"], result["better"])
    times = f"{_number(result['ratio'])} ×"
    if "goal" in result:
        return [f"{times} the goal of {_number(result['goal'])}"]
    aim = "" if result["target"] is None else f" (aim {_number(result['target'])})"
    return [f"{best}: {times}{aim}"]


def side_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Give a row for each side of a result: its figure, its memory and its shares of what the machine can do.

    Ours is the first; the others follow, the best first. `ours/theirs` is how many times as good as the side ours is,
    and `aim` what is aimed at.
    """
    details: Mapping[str, Any] = result.get("sides", {})
    against: Mapping[str, Any] = result.get("against", {})
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
                "ours/theirs": None
                if label == own
                else (figure / result["ours"] if less else result["ours"] / figure),
                "aim": against.get(label, {}).get("aim"),
            }
        )
    return rows


def markdown(results: Iterable[Mapping[str, Any]]) -> str:
    """Write results as a table in Markdown: ours, how it compares with each peer aimed at, and whether all are met."""
    lines = ["| comparison | ours | against | met |", "|---|---|---|---|"]
    for result in results:
        about = COMPARISONS[result["name"]].about
        cells = [
            f"`{result['name']}`: {about}",
            f"{_number(result['ours'])} {result['unit']}",
            "<br>".join(comparisons(result)) or "-",
            verdict(result),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def put_table(path: Path, folder: Path) -> bool:
    """Put the table of the last results between a document's marks; gives whether that changed anything.

    Raises:
        DataError: the document can't be read or written, or has no marks.
    """
    return put_between(path, (BEGIN, END), markdown(last_results(folder)))


def _number(value: float | None) -> str:
    """Write a figure with three digits, or more where it is large."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
