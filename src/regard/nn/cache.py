"""Keys and values kept while generating, so that a new token attends to old ones without computing them again."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


class LayerCache:
    """Keep one attention layer's keys and values, growing by doubling so that appending costs what is new."""

    def __init__(self) -> None:
        self._keys: Tensor | None = None
        self._values: Tensor | None = None
        self.length = 0

    def append(
        self, key: Float[Tensor, "B G T K"], value: Float[Tensor, "B G T K"]
    ) -> tuple[Float[Tensor, "B G S K"], Float[Tensor, "B G S K"]]:
        """Add new keys and values, and give all of them."""
        start, self.length = self.length, self.length + key.shape[2]
        if self._keys is None or self._values is None or self.length > self._keys.shape[2]:
            capacity = max(16, 2 * self.length)
            self._keys, self._values = (
                _grown(self._keys, key, start, capacity),
                _grown(self._values, value, start, capacity),
            )
        self._keys[:, :, start : self.length] = key
        self._values[:, :, start : self.length] = value
        return self._keys[:, :, : self.length], self._values[:, :, : self.length]

    def reorder(self, rows: Int[Tensor, " R"]) -> None:
        """Keep these rows, in this order; a row may come several times (beam search) or not at all."""
        if self._keys is not None and self._values is not None:
            self._keys = _moved(self._keys, rows, self.length)
            self._values = _moved(self._values, rows, self.length)


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

    def __init__(self, num_layers: int) -> None:
        self.own = [LayerCache() for _ in range(num_layers)]
        self.cross = [CrossCache() for _ in range(num_layers)]

    @property
    def length(self) -> int:
        """Count the slots filled so far."""
        return self.own[0].length

    def reorder(self, rows: Int[Tensor, " R"], *, cross: bool = True) -> None:
        """Keep these rows of the batch in every layer; `cross=False` where only hypotheses of one source moved."""
        for own in self.own:
            own.reorder(rows)
        for other in self.cross if cross else ():
            other.reorder(rows)


def _grown(old: Tensor | None, new: Tensor, start: int, capacity: int) -> Tensor:
    batch, heads, _, size = new.shape
    room = torch.empty(batch, heads, capacity, size, dtype=new.dtype, device=new.device)
    if old is not None:
        room[:, :, :start] = old[:, :, :start]
    return room


def _moved(old: Tensor, rows: Tensor, length: int) -> Tensor:
    """Copy what is filled of some rows, and leave room behind it for the next tokens."""
    room = old.new_empty(len(rows), *old.shape[1:])
    torch.index_select(old[:, :, :length], 0, rows, out=room[:, :, :length])
    return room
