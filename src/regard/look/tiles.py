"""Maps of whole attention matrices, of any size: pooled in cells, streamed in blocks, at every zoom.

A cell of c x c tokens has the mean and the maximum of its weights: a mean alone hides a needle. Level k of a pyramid
has cells of base · 2ᵏ tokens; the base is the smallest cell with at most 4,096 cells a side, and what is finer is
computed when a window asks for it. Until the pyramid is there, windows of coarse cells are sampled from some of their
rows, exactly over all columns where that is quick enough, and say so.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from regard.errors import ConfigError
from regard.look.capture import Captured

__all__ = ["Grid", "Pyramid", "corpus_map"]

Kind = Literal["mean", "max"]

_SIDE = 4096  # cells a side, at most, of the finest level that is kept
_ROWS, _COLUMNS = 256, 2048  # tokens of a block: 2 MiB of weights, which a core holds in its cache
_WINDOW = 2**26  # weights that a window may compute before it samples


@dataclass(frozen=True, eq=False)
class Grid:
    """Hold a window of a map.

    Attributes:
        values: (R, C), each cell's mean or maximum.
        cell: tokens along a side of a cell.
        row, column: the first token of the window in each direction.
        kind: "mean" or "max".
        sampled: how many of a cell's rows were computed, where not all were; None: the values are exact.
        how: the same in words.
    """

    values: Float[Tensor, "R C"]
    cell: int
    row: int
    column: int
    kind: Kind
    sampled: int | None
    how: str


class Pyramid:
    """Map one head, or the mean of several with the same tokens.

    Args:
        heads: the layers with the numbers of their heads; their mean is mapped.

    Attributes:
        base: tokens along a side of the finest cells that are kept.
        done: rows that the pyramid has so far, in tokens; all of them once `build` has ended.
    """

    def __init__(self, heads: Sequence[tuple[Captured, int]]) -> None:
        if not heads:
            raise ConfigError("a map needs at least one head.")
        self.heads = list(heads)
        self._layers = list(dict.fromkeys(layer for layer, _ in heads))
        self.shape = heads[0][0].shape
        if any(layer.shape != self.shape for layer, _ in heads):
            raise ConfigError("heads of one map must have the same rows and columns.")
        longest = max(self.shape)
        self.base = 1 << max(0, math.ceil(math.log2(longest / _SIDE))) if longest else 1
        self.done = 0
        self._levels: dict[Kind, list[Tensor]] = {}
        self._working = threading.Lock()

    @property
    def complete(self) -> bool:
        """Tell whether every level is exact."""
        return self.done >= self.shape[0]

    @property
    def nbytes(self) -> int:
        """Count the bytes of what it has built."""
        return sum(level.nbytes for levels in list(self._levels.values()) for level in list(levels))

    def build(
        self,
        *,
        progress: Callable[[int, int], None] = lambda done, rows: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Fill every level, exactly, in one pass over the matrix; a build that was stopped goes on where it stood.

        Args:
            progress: told after each block how many rows of how many are done.
            stop: asked after each block.

        Returns:
            Whether it came to the end.
        """
        with self._working:
            if not self._levels:
                cells = [-(-size // self.base) for size in self.shape]
                self._levels = {"mean": [torch.zeros(*cells)], "max": [torch.zeros(*cells)]}
            size = -(-_ROWS // self.base) * self.base
            while not self.complete:
                rows = slice(self.done, min(self.done + size, self.shape[0]))
                first = self.done // self.base
                for column, mean, most in self._pooled(rows, slice(0, self.shape[1]), self.base):
                    place = slice(first, first + len(mean)), slice(column, column + mean.shape[1])
                    self._levels["mean"][0][place], self._levels["max"][0][place] = mean, most
                if rows.stop == self.shape[0]:
                    self._coarsen()
                self.done = rows.stop
                progress(self.done, self.shape[0])
                if stop():
                    break
            return self.complete

    def start(self) -> threading.Thread:
        """Build in the background; windows become exact as it goes on."""
        thread = threading.Thread(target=self.build, daemon=True)
        thread.start()
        return thread

    @property
    def largest_cell(self) -> int:
        """Give the side of the smallest cell that holds the whole matrix, in tokens: a power of two."""
        return 1 << (max(self.shape) - 1).bit_length()

    def window(
        self,
        row: int = 0,
        column: int = 0,
        *,
        cell: int = 1,
        rows: int = 512,
        columns: int = 512,
        kind: Kind = "mean",
        exact: bool = False,
        most: int | None = None,
    ) -> Grid:
        """Give a window of cells; what reaches beyond the matrix is left out.

        Args:
            row: the first token of the rows; a multiple of the cell.
            column: the first token of the columns; a multiple of the cell.
            cell: tokens along a side of a cell, a power of two.
            rows: cells down.
            columns: cells across.
            kind: each cell's mean or its maximum.
            exact: compute what isn't there yet, however long it takes, rather than sample.
            most: weights that may be computed before it samples, first some rows of each cell, then of one row some
                columns; None: some seconds' worth.

        Raises:
            ConfigError: the cell is no power of two, the window doesn't begin at one, or there is no such kind.
        """
        if cell < 1 or cell & (cell - 1):
            raise ConfigError(f"cell={cell} is no power of two.")
        if kind not in get_args(Kind):
            raise ConfigError(f"kind={kind!r} is neither mean nor max.")
        if row % cell or column % cell or row < 0 or column < 0 or rows < 1 or columns < 1:
            raise ConfigError(f"a window of cells of {cell} begins at a multiple of {cell} and isn't empty.")
        down = slice(row, min(row + rows * cell, self.shape[0]))
        across = slice(column, min(column + columns * cell, self.shape[1]))
        if down.start >= down.stop or across.start >= across.stop:
            raise ConfigError(f"the window lies outside the matrix of {self.shape[0]:,} x {self.shape[1]:,}.")
        cell = min(cell, self.largest_cell)
        if cell >= self.base and self._has(down, cell):
            return self._kept(down, across, cell, kind)
        most, high = _WINDOW if most is None else most, (down.stop - down.start) // cell + 1
        taken = min(cell, max(1, most // high // (across.stop - across.start)))
        if exact or taken == cell or cell == 1:
            values = torch.cat(
                [mean if kind == "mean" else peak for _, mean, peak in self._pooled(down, across, cell)], 1
            )
            return Grid(values, cell, row, column, kind, None, _EXACT.format(cell=cell, kind=kind))
        wide = min(cell, max(1, most // high // (-(-(across.stop - across.start) // cell))))
        return self._sampled(down, across, cell, kind, (taken, cell if taken > 1 else wide))

    def preview(self, side: int = 512, *, kind: Kind = "mean") -> Grid:
        """Give the whole map in at most so many cells a side: sampled while the pyramid isn't there.

        Raises:
            ConfigError: a side of no cells, or no such kind.
        """
        _check_side(side)
        cell = 1 << max(0, math.ceil(math.log2(max(self.shape) / side)))
        return self.window(cell=cell, rows=side, columns=side, kind=kind)

    def _has(self, rows: slice, cell: int) -> bool:
        return self.complete or (cell == self.base and rows.stop <= self.done)

    def _kept(self, rows: slice, columns: slice, cell: int, kind: Kind) -> Grid:
        level = (cell // self.base).bit_length() - 1
        levels = self._levels[kind]
        values = levels[min(level, len(levels) - 1)]
        for _ in range(level - len(levels) + 1):
            values = _coarser(values, kind, self.shape, cell // 2)
        part = values[
            rows.start // cell : -(-rows.stop // cell), columns.start // cell : -(-columns.stop // cell)
        ]
        return Grid(part, cell, rows.start, columns.start, kind, None, _EXACT.format(cell=cell, kind=kind))

    def _coarsen(self) -> None:
        """Make each level from the one below; means count the tokens of cells at the edges."""
        for kind, levels in self._levels.items():
            cell = self.base
            while max(levels[-1].shape) > 1:
                levels.append(_coarser(levels[-1], kind, self.shape, cell))
                cell *= 2

    def _sampled(self, rows: slice, columns: slice, cell: int, kind: Kind, taken: tuple[int, int]) -> Grid:
        """Compute some rows of each cell, evenly spaced, over all its columns or over some."""
        high, wide = taken
        found = []
        size = cell * max(1, _ROWS // high)
        for first in range(rows.start, rows.stop, size):
            some = _spread(slice(first, min(first + size, rows.stop)), cell, high)
            line = []
            for part in _parts(columns, cell, wide):
                block = self._block(some, part if wide == cell else _spread(part, cell, wide))
                line.append(_pool(block, high, wide)[0 if kind == "mean" else 1])
            found.append(torch.cat(line, 1))
        every = "all columns" if wide == cell else f"{wide} of their columns"
        how = f"{kind} of cells of {cell} x {cell} tokens, sampled: {high} of {cell} rows of each, {every}"
        return Grid(torch.cat(found), cell, rows.start, columns.start, kind, high, how)

    def _pooled(self, rows: slice, columns: slice, cell: int) -> Iterable[tuple[int, Tensor, Tensor]]:
        """Pool a part of the matrix; give strips of columns, each with the number of its first cell."""
        for part in _parts(columns, cell):
            means, mosts = [], []
            size = -(-_ROWS // cell) * cell
            for start in range(rows.start, rows.stop, size):
                some = slice(start, min(start + size, rows.stop))
                high, wide = -(-(some.stop - some.start) // cell), -(-(part.stop - part.start) // cell)
                if self._nothing(some, part):
                    means.append(torch.zeros(high, wide))
                    mosts.append(means[-1])
                    continue
                mean, most = _pool(self._block(some, part), cell, cell)
                means.append(mean)
                mosts.append(most)
            yield part.start // cell, torch.cat(means), torch.cat(mosts)

    def _nothing(self, rows: slice, columns: slice) -> bool:
        """Tell whether no query of these rows may attend to any of these columns."""
        return all(
            int(spans[:, 0].min()) >= columns.stop or int(spans[:, 1].max()) <= columns.start
            for spans in (layer.spans[rows] for layer in self._layers)
        )

    def _block(self, rows: slice | Tensor, columns: slice | Tensor) -> Float[Tensor, "R C"]:
        found = self.heads[0][0].weights(self.heads[0][1], rows, columns)
        for layer, head in self.heads[1:]:
            found += layer.weights(head, rows, columns)
        return found if len(self.heads) == 1 else found.div_(len(self.heads))


def _check_side(side: int) -> None:
    if side < 1:
        raise ConfigError(f"side={side} is no number of cells; give 1 or more.")


_EXACT = "{kind} of cells of {cell} x {cell} tokens, exact"


def _parts(columns: slice, cell: int, taken: int | None = None) -> list[slice]:
    """Cut columns into parts of whole cells, of which so many columns each are computed."""
    size = -(-_COLUMNS // (taken or cell)) * cell
    return [slice(at, min(at + size, columns.stop)) for at in range(columns.start, columns.stop, size)]


def _spread(places: slice, cell: int, taken: int) -> Tensor:
    """Choose so many tokens of each cell, evenly spaced; of a smaller one at the edge some twice."""
    starts = torch.arange(places.start, places.stop, cell)
    sizes = (places.stop - starts).clamp(max=cell)
    steps = (torch.arange(taken, dtype=torch.float64) + 0.5) / taken
    return (starts[:, None] + (sizes[:, None] * steps).long()).flatten()


def _pool(block: Tensor, high: int, wide: int) -> tuple[Tensor, Tensor]:
    """Give the mean and the maximum of each cell of `high` rows and `wide` columns; those at the edges are smaller."""
    rows, columns = block.shape
    high, wide = min(high, max(1, rows)), min(wide, max(1, columns))  # a cell ends where the block does
    if high == wide == 1:
        return block, block
    pad = (-columns % wide, -rows % high)
    if any(pad):
        block = torch.nn.functional.pad(block, (0, pad[0], 0, pad[1]))
    down = block.view(-1, high, block.shape[1])
    total = down.sum(1).view(down.shape[0], -1, wide).sum(2)
    most = down.amax(1).view(down.shape[0], -1, wide).amax(2)
    return total.div_(_counts(rows, high)[:, None] * _counts(columns, wide)), most


def _counts(size: int, cell: int) -> Tensor:
    """Count the tokens of each cell along a side."""
    starts = torch.arange(0, size, cell)
    return (size - starts).clamp(max=cell).float()


def _coarser(values: Tensor, kind: Kind, shape: tuple[int, int], cell: int) -> Tensor:
    """Join cells of `cell` tokens two by two."""
    if kind == "max":
        return _pool(values, 2, 2)[1]
    weights = _counts(shape[0], cell)[:, None] * _counts(shape[1], cell)
    total = _pool(values * weights, 2, 2)[0] * _pool(torch.ones_like(weights), 2, 2)[0]
    count = _counts(values.shape[0], 2)[:, None] * _counts(values.shape[1], 2)
    return total * count / (_counts(shape[0], 2 * cell)[:, None] * _counts(shape[1], 2 * cell))


def corpus_map(heads: Iterable[Sequence[tuple[Captured, int]]], *, side: int = 64) -> tuple[Tensor, int]:
    """Give the mean of the maps of several texts on one grid, (side, side), and how many texts there were.

    Texts differ in length, so a cell is a share of a text: row r holds what stands between r/side and (r+1)/side of it.
    Each cell is the mean over its share of the mass that a row gives to a share of the columns; a row sums to one.

    Args:
        heads: for each text the heads whose mean is mapped.
        side: cells a side.

    Raises:
        ConfigError: a side of no cells.
    """
    _check_side(side)
    total, count = torch.zeros(side, side, dtype=torch.float64), 0
    for some in heads:
        pyramid = Pyramid(some)
        high, wide = (_shares(size, side) for size in pyramid.shape)
        for start in range(0, pyramid.shape[0], _ROWS):
            rows = slice(start, min(start + _ROWS, pyramid.shape[0]))
            block = pyramid._block(rows, slice(0, pyramid.shape[1])).double()
            total += high[:, rows] @ block @ (wide > 0).double().mul(wide / wide.sum(0).clamp(min=1e-30)).T
        count += 1
    return (total / max(1, count)).float(), count


def _shares(size: int, side: int) -> Tensor:
    """Give (side, size), how much each token counts in each cell: the overlap of their shares; a row sums to one."""
    edges = torch.arange(side + 1, dtype=torch.float64) * size / side
    tokens = torch.arange(size, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], tokens + 1) - torch.maximum(edges[:-1, None], tokens)
    overlap = overlap.clamp(min=0)
    return overlap / overlap.sum(1, keepdim=True)
