"""Fill rows of a fixed size with whole documents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Plan", "pack"]

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Plan:
    """Say which pieces of which documents stand in which row, in order."""

    document: Ids  # of each piece
    start: Ids  # of each piece in its document
    size: Ids  # of each piece
    row_offsets: Ids  # the first piece of each row and, last, the number of pieces
    row_lengths: Ids  # tokens in each row

    def rows(self, row: int) -> Iterator[tuple[int, int, int]]:
        """Give (document, start, size) of each piece in a row."""
        for piece in range(self.row_offsets[row], self.row_offsets[row + 1]):
            yield int(self.document[piece]), int(self.start[piece]), int(self.size[piece])


def pack(lengths: Ids, order: NDArray[Any], capacity: int) -> Plan:
    """Put documents, in the given order, each into the fullest row that still has room for it.

    A document longer than `capacity` tokens becomes pieces of that size and a rest. Empty ones are left out.
    """
    ordered = np.maximum(lengths[order], 0)
    counts = -(-ordered // capacity)
    document = np.repeat(order, counts).astype(np.int64)
    start = (np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)) * capacity
    size = np.minimum(lengths[document] - start, capacity)
    row = _best_fit(size.tolist(), capacity)
    by_row = np.argsort(row, kind="stable")
    rows = int(row.max(initial=-1)) + 1
    filled = np.bincount(row, minlength=rows)
    return Plan(
        document=document[by_row],
        start=start[by_row],
        size=size[by_row],
        row_offsets=np.concatenate(([0], np.cumsum(filled))),
        row_lengths=np.bincount(row, weights=size, minlength=rows).astype(np.int64),
    )


def _best_fit(sizes: list[int], capacity: int) -> Ids:
    """Give each piece the number of its row."""
    # Rows by the room they have left; bit r of `open_rooms` says that there is a row with room r.
    by_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    open_rooms = 0
    rows = 0
    chosen = []
    for size in sizes:
        enough = open_rooms >> size
        if enough:
            room = size + (enough & -enough).bit_length() - 1
            row = by_room[room].pop()
            if not by_room[room]:
                open_rooms ^= 1 << room
        else:
            room, row = capacity, rows
            rows += 1
        chosen.append(row)
        left = room - size
        if left:
            by_room[left].append(row)
            open_rooms |= 1 << left
    return np.array(chosen, np.int64)
