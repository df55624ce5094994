"""Tell a misspelt name from one that is merely not known."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["near_name"]


def near_name(name: str, choices: Iterable[str], *, every: int = 6) -> str | None:
    """Find the name of which another is a misspelling: a letter apart, or one more for each `every` letters of it.

    Letters that are left out, added, exchanged, or swapped with their neighbour count one each (Damerau 1964).
    """
    limit = max(1, len(name) // every)
    found = [(_distance(name, choice), choice) for choice in choices if abs(len(choice) - len(name)) <= limit]
    return min(((far, choice) for far, choice in found if far <= limit), default=(0, None))[1]


def _distance(one: str, other: str) -> int:
    rows = [list(range(len(other) + 1))]
    for i, a in enumerate(one, 1):
        row = [i]
        for j, b in enumerate(other, 1):
            row.append(min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (a != b)))
            if i > 1 and j > 1 and a == other[j - 2] and b == one[i - 2]:
                row[-1] = min(row[-1], rows[-2][j - 2] + 1)
        rows.append(row)
    return rows[-1][-1]
