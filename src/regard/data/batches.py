"""Cut examples into batches: which ones form batch k of an epoch depends on (seed, epoch, k) alone.

So a run can stop anywhere and go on with the very next batch, on any number of workers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regard.errors import ConfigError, DataError

__all__ = ["Batches"]

Ids = NDArray[np.int64]
Batch = dict[str, Any]
POOL = 1 << 16  # examples sorted by length together; their order is drawn anew for each epoch


class Batches:
    """Give the batches of any epoch, by number or in order.

    Each epoch holds every example exactly once, over all workers together.
    """

    def __init__(
        self,
        examples: Any,
        *,
        collate: Callable[..., Batch] | None = None,
        lengths: Sequence[int] | NDArray[Any] | None = None,
        tokens_per_batch: int | None = None,
        batch_size: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
        bucket: bool = True,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """Plan over an objective, or over other examples with `collate(index, seed=, epoch=)` and `lengths`.

        tokens_per_batch
            At most so many tokens, padding included: examples times the longest (the longest source and the
            longest target, where there are both). An example with more is a batch of its own.
        batch_size
            Or so many examples.
        shuffle
            Draw the order anew for each epoch; otherwise it is always the same.
        bucket
            Put examples of like length together. Without `shuffle` and `bucket` the order is that of the
            data.
        rank, world
            Which of how many workers this is. Each has as many batches as the others.

        Raises ConfigError for settings that can't be, DataError where there are no examples.
        """
        if (tokens_per_batch is None) == (batch_size is None):
            raise ConfigError("give either tokens_per_batch or batch_size, and not both")
        for name, value in (("tokens_per_batch", tokens_per_batch), ("batch_size", batch_size)):
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value} must be at least 1")
        if not 0 <= rank < world:
            raise ConfigError(f"rank={rank} must be at least 0 and less than world={world}")
        if seed < 0:
            raise ConfigError(f"seed={seed} must not be negative")
        self._collate = examples.collate if collate is None else collate
        self._given = None if lengths is None else np.asarray(lengths, np.int64)
        self._examples = examples
        self._budget, self._rows = tokens_per_batch, batch_size
        self.seed, self._shuffle, self._bucket = seed, shuffle, bucket
        self._rank, self._world = rank, world
        self._latest: tuple[int, list[Ids]] | None = None

    def num_batches(self, epoch: int) -> int:
        """Count this worker's batches in an epoch."""
        return len(self.plan(epoch))

    def plan(self, epoch: int) -> list[Ids]:
        """Give the numbers of the examples in each batch of this worker in an epoch."""
        if self._latest is None or self._latest[0] != epoch:
            self._latest = epoch, self._plan(epoch)
        return self._latest[1]

    def batch(self, epoch: int, k: int) -> Batch:
        """Assemble batch k of an epoch."""
        index = self.plan(epoch)[k]
        return self._collate(index, seed=self.seed, epoch=epoch)

    def iterate(self, epoch: int, start: int = 0, prefetch: int = 2) -> Iterator[Batch]:
        """Give the batches of an epoch in order from number `start`.

        A thread assembles up to `prefetch` batches ahead; 0 does without. What goes wrong there is raised
        here, at the batch where it did. The thread ends with the iteration, also with one that is left early.
        """
        number = self.num_batches(epoch)
        if prefetch < 1:
            for k in range(start, number):
                yield self.batch(epoch, k)
            return
        waiting: deque[Future[Batch]] = deque()
        ahead = iter(range(start, number))
        worker = ThreadPoolExecutor(1, thread_name_prefix="regard-batches")
        try:
            for k in ahead:
                waiting.append(worker.submit(self.batch, epoch, k))
                if len(waiting) > prefetch:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            worker.shutdown(wait=True, cancel_futures=True)

    def _plan(self, epoch: int) -> list[Ids]:
        costs = self._given if self._given is not None else self._examples.lengths(self.seed, epoch)
        if costs.ndim == 1:
            costs = costs[:, None]
        if not len(costs):
            raise DataError("there are no examples to make batches of")
        rng = np.random.default_rng([self.seed, epoch, 2])
        order = rng.permutation(len(costs)) if self._shuffle else np.arange(len(costs))
        batches: list[Ids] = []
        for begin in range(0, len(order), POOL):
            pool = order[begin : begin + POOL]
            if self._bucket:
                pool = pool[np.argsort(_sort_key(costs[pool]), kind="stable")]
            batches += self._cut(pool, costs[pool])
        if self._shuffle:
            batches = [batches[k] for k in rng.permutation(len(batches))]
        if self._world > 1:
            batches = _even(batches, costs.sum(axis=1), self._world)
        return batches[self._rank :: self._world]

    def _cut(self, order: Ids, costs: Ids) -> list[Ids]:
        """Cut an order of examples, with the cost of each, into batches as large as may be."""
        if self._rows is not None:
            return [order[k : k + self._rows] for k in range(0, len(order), self._rows)]
        assert self._budget is not None
        batches = []
        begin = 0
        while begin < len(order):
            most = max(1, self._budget // max(1, int(costs[begin].sum())))
            longest = np.maximum.accumulate(costs[begin : begin + most], axis=0).sum(axis=1)
            sizes = longest * np.arange(1, len(longest) + 1)
            number = max(1, int(np.searchsorted(sizes, self._budget, side="right")))
            batches.append(order[begin : begin + number])
            begin += number
        return batches


def _sort_key(costs: Ids) -> Ids:
    """Give numbers whose order puts examples together that differ little in every column.

    By the first column; within it by the second, upwards and downwards in turn, so that it does not jump
    where the first one changes.
    """
    if costs.shape[1] == 1:
        return costs[:, 0]
    first, second = costs[:, 0], costs[:, 1]
    wave = np.where(np.cumsum(np.bincount(first) > 0)[first] % 2, second, -second)
    return first * (2 * int(second.max(initial=0)) + 1) + wave


def _even(batches: list[Ids], costs: Ids, world: int) -> list[Ids]:
    """Halve the most costly batches until every worker has the same number."""
    batches = list(batches)
    for _ in range(-len(batches) % world):
        best = max(range(len(batches)), key=lambda k: (len(batches[k]) > 1, costs[batches[k]].sum()))
        halved = batches[best]
        if len(halved) < 2:
            raise DataError(f"there are too few examples to give {world} workers a batch each")
        middle = len(halved) // 2
        batches[best] = halved[:middle]
        batches.append(halved[middle:])
    return batches
