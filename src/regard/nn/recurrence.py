"""Recurrence: layers that read a text token by token, each step a function of the token and of the state before it.

    rnn   h = tanh(W x + U h + b)                                         Elman 1990
    lstm  c = f · c + i · g,  h = o · tanh(c)                             Hochreiter and Schmidhuber 1997
          i, f, o = σ(W x + U h + b),  g = tanh(W x + U h + b)            (f: Gers et al. 2000)
    gru   h = (1 - z) · n + z · h,  z, r = σ(W x + U h + b)               Cho et al. 2014, arXiv:1406.1078
          n = tanh(W x + b + r · (U h + b))                               (r after U, as in cuDNN and torch)

Whole sequences go through torch's own layers; `Steps` takes the same weights one step at a time. A state is one tensor
(L, C, B, D): of L layers, C of them (2 for lstm: h and c, else 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from regard.config_recurrent import Cell
from regard.nn.deferred import Product
from regard.nn.layers import Dropout

__all__ = ["Recurrence", "Runs", "Steps", "is_trailing", "runs_of", "step"]

CELLS: Final = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
Carried = tuple[Tensor, ...]
"""One layer's state at one step: (h,), of an lstm (h, c)."""


@dataclass(frozen=True, eq=False)
class Runs:
    """Say which tokens of a batch are read one after the other: its rows without their padding, or its documents.

    Attributes:
        index: (N,), the places of the real tokens among the B x T, step by step, the longest run first.
        sizes: how many runs have a first, a second, ... token; on the CPU.
        rows: (R,), the row of each run.
    """

    index: Int[Tensor, " N"]
    sizes: Int[Tensor, " longest"]
    rows: Int[Tensor, " R"]

    def pick(self, x: Float[Tensor, "B T D"]) -> PackedSequence:
        """Take the real tokens."""
        return PackedSequence(x.flatten(0, 1)[self.index], self.sizes)

    def put(self, data: Float[Tensor, "N D"], shape: Sequence[int]) -> Float[Tensor, "B T D"]:
        """Put them back to their places, with zeros at padding."""
        out = data.new_zeros(shape[0] * shape[1], data.shape[-1])
        return out.index_copy(0, self.index, data).unflatten(0, tuple(shape[:2]))


def runs_of(mask: Bool[Tensor, "B T"], documents: Int[Tensor, "B T"] | None = None) -> Runs:
    """Find the runs of a batch: the real tokens of a row, or of each of its neighbouring documents, in their order."""
    length = mask.shape[1]
    row = torch.arange(len(mask), device=mask.device)[:, None].expand_as(mask)
    owner = row * length
    if documents is not None:
        changes = (documents[:, 1:] != documents[:, :-1]).long().cumsum(1)
        owner = owner + nn.functional.pad(changes, (1, 0))
    places = mask.flatten().nonzero()[:, 0]
    _, run, counts = torch.unique_consecutive(
        owner.flatten()[places], return_inverse=True, return_counts=True
    )
    first = counts.cumsum(0) - counts
    order = counts.argsort(descending=True, stable=True)
    rank = order.argsort()[run]
    when = torch.arange(len(places), device=mask.device) - first[run]
    packed = (when * len(counts) + rank).argsort()
    return Runs(places[packed], when.bincount().cpu(), row.flatten()[places[first[order]]])


def is_trailing(mask: Bool[Tensor, "B T"]) -> bool:
    """Tell whether padding stands behind the tokens alone, where nothing that reads forward can meet it."""
    return bool((mask[:, 1:] <= mask[:, :-1]).all())


def step(cell: Cell, given: Float[Tensor, "B G"], own: Float[Tensor, "B G"], before: Carried) -> Carried:
    """Take one step of a cell.

    Args:
        cell: which.
        given: W x + b, of all gates, in torch's order.
        own: U h + b.
        before: the state before it.
    """
    if cell == "rnn":
        return (torch.tanh(given + own),)
    if cell == "lstm":
        i, f, g, o = (given + own).chunk(4, -1)
        memory = f.sigmoid() * before[1] + i.sigmoid() * g.tanh()
        return o.sigmoid() * memory.tanh(), memory
    size = before[0].shape[-1]
    reset, update = (given[:, : 2 * size] + own[:, : 2 * size]).sigmoid().chunk(2, -1)
    new = torch.tanh(torch.addcmul(given[:, 2 * size :], reset, own[:, 2 * size :]))
    return (torch.lerp(new, before[0], update),)


class Recurrence(nn.Module):
    """Stack layers of a cell; each reads what the one below gives. A bidirectional layer has half the width each way.

    Dropout stands between layers and never between steps (Zaremba et al. 2014, arXiv:1409.2329).
    """

    def __init__(
        self, cell: Cell, *, inputs: int, width: int, num_layers: int, bidirectional: bool = False, dropout: float = 0.0
    ) -> None:  # fmt: skip
        super().__init__()
        self.cell, self.width, self.bidirectional = cell, width, bidirectional
        size = width // 2 if bidirectional else width
        self.blocks = nn.ModuleList(
            CELLS[cell](width if i else inputs, size, batch_first=True, bidirectional=bidirectional)
            for i in range(num_layers)
        )
        self.dropout = Dropout(dropout)

    @property
    def cells(self) -> list[Any]:
        """Give torch's layers, from the lowest."""
        return list(self.blocks)

    def forward(
        self,
        x: Float[Tensor, "B T I"],
        runs: Runs | None = None,
        state: Float[Tensor, "L C B D"] | None = None,
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "L C B D"]]:
        """Read whole sequences from a state (None: zeros); give the last layer's states, and where each row ended.

        With several runs in a row, its documents, all begin with zeros and the state at the end means nothing.
        """
        shape, ends = x.shape, []
        read: Any = x if runs is None else runs.pick(x)
        before = self.zeros(x) if state is None else state
        for i, layer in enumerate(self.cells):
            if i:
                packed = isinstance(read, PackedSequence)
                read = read._replace(data=self.dropout(read.data)) if packed else self.dropout(read)
            own = before[i] if runs is None else before[i][:, runs.rows]
            read, end = layer(read, self._split(own.to(layer.weight_ih_l0.dtype)))
            last = self._join(end)
            ends.append(last if runs is None else before[i].index_copy(1, runs.rows, last.to(before.dtype)))
        out = runs.put(read.data, shape) if runs is not None else read
        return out, torch.stack([end.to(before.dtype) for end in ends])

    def zeros(self, x: Tensor) -> Float[Tensor, "L C B D"]:
        """Give the state before the first token, for as many rows as `x` has."""
        weight = self.cells[0].weight_ih_l0
        count = 2 if self.cell == "lstm" else 1
        return weight.new_zeros(len(self.blocks), count, len(x), self.width)

    def _split(self, state: Float[Tensor, "C B D"]) -> Tensor | Carried:
        """Give a layer's state as torch's layer takes it, (directions, B, size) of h and of c."""
        parts = [part.unflatten(-1, (2, -1)).transpose(0, 1).contiguous() if self.bidirectional else part[None]
                 for part in state]  # fmt: skip
        return (
            (parts[0].contiguous(), parts[1].contiguous()) if self.cell == "lstm" else parts[0].contiguous()
        )

    def _join(self, end: Tensor | Carried) -> Float[Tensor, "C B D"]:
        parts = end if isinstance(end, tuple) else (end,)
        return torch.stack([part.transpose(0, 1).flatten(1) for part in parts])


class Steps:
    """Take the steps of one-way layers one by one, for what must be known between them; see `Product`."""

    def __init__(self, recurrence: Recurrence, state: Float[Tensor, "L C B D"]) -> None:
        assert not recurrence.bidirectional
        self._recurrence = recurrence
        layers = recurrence.cells
        self._own = [(Product(layer.weight_hh_l0.t()), layer.bias_hh_l0) for layer in layers]
        self._given = [(Product(layer.weight_ih_l0.t()), layer.bias_ih_l0) for layer in layers[1:]]
        self._carried: list[Carried] = [tuple(layer.unbind(0)) for layer in state.unbind(0)]

    @property
    def top(self) -> Float[Tensor, "B D"]:
        """Give the last layer's h."""
        return self._carried[-1][0]

    @property
    def state(self) -> Float[Tensor, "L C B D"]:
        """Give the state."""
        return torch.stack([torch.stack(carried) for carried in self._carried])

    def take(
        self, given: Float[Tensor, "B G"], real: Bool[Tensor, " B"] | None = None
    ) -> Float[Tensor, "B D"]:
        """Take a step with the first layer's W x + b; rows that aren't `real` stay as they are. Give the last h."""
        x = given
        for i, (own, bias) in enumerate(self._own):
            if i:
                product, shift = self._given[i - 1]
                given = product(self._recurrence.dropout(x)) + shift
            before = self._carried[i]
            after = step(self._recurrence.cell, given, own(before[0]) + bias, before)
            if real is not None:
                after = tuple(torch.where(real[:, None], a, b) for a, b in zip(after, before, strict=True))
            self._carried[i] = after
            x = after[0]
        return x
