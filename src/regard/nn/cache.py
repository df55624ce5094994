"""Keys and values kept while generating, so that a new token attends to old ones without computing them again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

SLACK = 64
"""How many slots `rewind` may take back from a layer that keeps a window only."""


class LayerCache:
    """Keep one attention layer's keys and values, growing by doubling so that appending costs what is new.

    A layer whose queries see fewer than `window` slots back keeps only what its next queries may see, and `SLACK`
    slots more: its memory is bounded, however long the text. With `reserve` the room is made once, and the keys never
    move.
    """

    def __init__(self, window: int | None = None) -> None:
        self._keys: Tensor | None = None
        self._values: Tensor | None = None
        self._window, self._reserved = window, 0
        self._first = 0  # the oldest slot that is still there
        self.length = 0

    @property
    def begin(self) -> int:
        """Give the slot of the first key that `append` will give: 0, or the oldest one that new queries may see."""
        return 0 if self._window is None else max(0, self.length - self._window + 1)

    def append(
        self, key: Float[Tensor, "B G T K"], value: Float[Tensor, "B G T K"]
    ) -> tuple[Float[Tensor, "B G S K"], Float[Tensor, "B G S K"]]:
        """Add new keys and values, and give all of them, from the slot `begin` was before."""
        begin, start = self.begin, self.length
        keys, values, first = self.extend(key[:, :, :0], value[:, :, :0], key.shape[2])
        keys[:, :, start - first : self.length - first] = key
        values[:, :, start - first : self.length - first] = value
        span = slice(begin - first, self.length - first)
        found = keys[:, :, span], values[:, :, span]
        if self._window is not None and keys.shape[2] > 2 * self._most:
            # A long prompt was read at once: what is given away keeps its room alive only while it is used.
            self._move(max(first, self.length - self._most), 2 * self._most)
        return found

    def extend(
        self, key: Float[Tensor, "B G 0 K"], value: Float[Tensor, "B G 0 K"], count: int
    ) -> tuple[Float[Tensor, "B G C K"], Float[Tensor, "B G C K"], int]:
        """Count new slots whose keys and values the caller writes; give the whole room, and the slot it begins with.

        `key` and `value` are empty, and tell the shape where there is no room yet.
        """
        start = self.length
        self.length = start + count
        self._make_room(key, value, start)
        assert self._keys is not None and self._values is not None
        return self._keys, self._values, self._first

    def rewind(self, count: int) -> None:
        """Forget the last `count` slots; at most `SLACK` of them where there is a window."""
        self.length -= count
        assert self.length >= 0 and self.begin >= self._first, "the cache no longer has what stood before"

    def reserve(self, slots: int) -> None:
        """Make room for so many slots with the first ones (a static cache); a window needs no more than its own."""
        self._reserved = slots

    def reorder(self, rows: Int[Tensor, " R"]) -> None:
        """Keep these rows, in this order; a row may come several times (beam search) or not at all."""
        if self._keys is not None and self._values is not None:
            self._keys = _moved(self._keys, rows, self.length - self._first)
            self._values = _moved(self._values, rows, self.length - self._first)

    @property
    def _most(self) -> int:
        """Count the slots that a window needs: those its next query may see, and some to rewind."""
        assert self._window is not None
        return self._window - 1 + SLACK

    def _make_room(self, key: Tensor, value: Tensor, start: int) -> None:
        """See to it that the new slots have a place; what no later query can see makes way for them."""
        if self._keys is None:
            self._keys, self._values = key, value
        if self.length - self._first <= self._keys.shape[2]:
            return
        first = self._first if self._window is None else max(self._first, start - self._most)
        needed = self.length - first
        capacity = max(16, 2 * needed, self._reserved)
        if self._window is not None:
            capacity = max(needed, min(capacity, 2 * self._most))
        self._move(first, capacity, filled=start)

    def _move(self, first: int, capacity: int, *, filled: int | None = None) -> None:
        """Copy the slots from `first` on to the front of a new room."""
        assert self._keys is not None and self._values is not None
        span = slice(first - self._first, (self.length if filled is None else filled) - self._first)
        self._keys, self._values = (
            _grown(self._keys[:, :, span], capacity),
            _grown(self._values[:, :, span], capacity),
        )
        self._first = first


class CrossCache:
    """Keep the keys and values of the encoder's output: computed once, never growing."""

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def reorder(self, rows: Int[Tensor, " R"]) -> None:
        """Keep these rows, in this order."""
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys.index_select(0, rows), self.values.index_select(0, rows)


class Cache:
    """Keep what every layer of a decoder stack needs to go on."""

    def __init__(self, num_layers: int, windows: Sequence[int | None] | None = None) -> None:
        """Make one for each layer; `windows` are those of the layers, None for one that sees everything."""
        self.own = [LayerCache(window) for window in windows or [None] * num_layers]
        self.cross = [CrossCache() for _ in range(num_layers)]

    @property
    def length(self) -> int:
        """Count the slots filled so far."""
        return self.own[0].length

    @property
    def held(self) -> list[tuple[Tensor, Tensor]]:
        """Give the first layer's room for keys and values, its own and the memory's, where there is any."""
        own, cross = self.own[0], self.cross[0]
        pairs = (own._keys, own._values), (cross.keys, cross.values)
        return [(keys, values) for keys, values in pairs if keys is not None and values is not None]

    def rewind(self, count: int) -> None:
        """Forget the last `count` slots of every layer."""
        for own in self.own:
            own.rewind(count)

    def reserve(self, slots: int) -> None:
        """Make room for so many slots at once; see `LayerCache`."""
        for own in self.own:
            own.reserve(slots)

    def reorder(self, rows: Int[Tensor, " R"], *, cross: bool = True) -> None:
        """Keep these rows of the batch in every layer; `cross=False` where only hypotheses of one source moved."""
        for own in self.own:
            own.reorder(rows)
        for other in self.cross if cross else ():
            other.reorder(rows)


def _grown(old: Tensor, capacity: int) -> Tensor:
    """Copy what is there to the front of a larger room."""
    batch, heads, length, size = old.shape
    room = torch.empty(batch, heads, capacity, size, dtype=old.dtype, device=old.device)
    room[:, :, :length] = old
    return room


def _moved(old: Tensor, rows: Tensor, length: int) -> Tensor:
    """Copy what is filled of some rows, and leave room behind it for the next tokens."""
    room = old.new_empty(len(rows), *old.shape[1:])
    torch.index_select(old[:, :, :length], 0, rows, out=room[:, :, :length])
    return room
