"""Who may attend to whom, as a value: made of a few facts, combined as booleans, made dense only at the end."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from regard.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Mask:
    """Say which keys each query may attend to; True means that it may.

    Queries stand at slots `offset`, `offset + 1`, ... among the keys' slots. Every fact that is given must hold.

    Attributes:
        causal: a query attends to its own slot and to earlier ones.
        window: a query attends to the keys fewer than `window` slots before it (and, if not causal, after it).
        keys: (B, S), the keys that are real; padding is False.
        documents: (B, T) and (B, S), document numbers; a query attends within its own document only.
        prefix: (B,), the first so many slots are seen by everybody, whatever `causal` says (a prefix LM).
        offset: the first query's slot, an int; None puts the last query at the last key.
    """

    causal: bool = False
    window: int | None = None
    keys: Bool[Tensor, "B S"] | None = None
    documents: tuple[Int[Tensor, "B T"], Int[Tensor, "B S"]] | None = None
    prefix: Int[Tensor, " B"] | None = None
    offset: int | None = None
    _made: dict[tuple[int, int], Tensor | None] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    _runs: dict[tuple[int, int], Tensor | None] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def is_empty(self) -> bool:
        """Tell whether everybody may attend to everything."""
        return not self.causal and self.window is None and self.keys is None and self.documents is None

    def can_blank_a_row(self, num_queries: int, num_keys: int) -> bool:
        """Tell whether some query may be left with no key at all."""
        if self.keys is not None or self.documents is not None:
            return True
        first = num_keys - num_queries if self.offset is None else self.offset
        if self.window is not None and (
            first <= -self.window or first + num_queries - num_keys >= self.window
        ):
            return True
        return self.causal and first < 0

    def is_plain_causal(self, num_queries: int, num_keys: int) -> bool:
        """Tell whether this is the triangle and nothing else, which fused kernels know by name."""
        covered = self.window is None or self.window >= num_keys
        facts = self.keys is not None or self.documents is not None or self.prefix is not None
        return self.causal and covered and not facts and num_queries == num_keys and not self.offset

    def dense(
        self, num_queries: int, num_keys: int, device: torch.device | str
    ) -> Bool[Tensor, "B_or_1 1 T S"] | None:
        """Make the boolean matrix, or None where everything is allowed; all layers of a pass share one."""
        if self.is_empty:
            return None
        if (num_queries, num_keys) not in self._made:
            self._made[num_queries, num_keys] = self._make(num_queries, num_keys, device)
        return self._made[num_queries, num_keys]

    def _make(self, num_queries: int, num_keys: int, device: torch.device | str) -> Tensor | None:
        allowed: Tensor | None = None
        offset = num_keys - num_queries if self.offset is None else self.offset
        query = torch.arange(offset, offset + num_queries, device=device)[:, None]
        key = torch.arange(num_keys, device=device)[None, :]
        if self.causal and not (num_queries == 1 and offset == num_keys - 1):
            allowed = key <= query
            if self.prefix is not None:
                allowed = allowed | (key < self.prefix[:, None, None])
        if self.window is not None and max(offset + num_queries, num_keys - offset) > self.window:
            allowed = _both(allowed, (query - key).abs() < self.window)
        allowed = allowed[None] if allowed is not None and allowed.ndim == 2 else allowed
        if self.keys is not None:
            allowed = _both(allowed, self.keys[:, None, :])
        if self.documents is not None:
            queries, keys = self.documents
            allowed = _both(allowed, queries[:, :, None] == keys[:, None, :])
        return None if allowed is None else allowed[:, None].expand(-1, 1, num_queries, num_keys)

    def runs(
        self, num_queries: int, num_keys: int, device: torch.device | str
    ) -> Int[Tensor, "B_or_1 T 2"] | None:
        """Give `spans`, or None where a row's keys are in several parts; all layers of a pass share one."""
        if (num_queries, num_keys) not in self._runs:
            try:
                found = self.spans(num_queries, num_keys, device).contiguous()
            except ConfigError:
                found = None
            self._runs[num_queries, num_keys] = found
        return self._runs[num_queries, num_keys]

    def spans(self, num_queries: int, num_keys: int, device: torch.device | str) -> Int[Tensor, "B_or_1 T 2"]:
        """Give for each query the keys that it may attend to as [first, last + 1), in memory of O(T + S).

        Every fact of a mask leaves one run of keys, so long as padding stands at the ends and the tokens of a document
        side by side. A query without any key has an empty run.

        Raises:
            ConfigError: there are holes within a row's keys, or a document is in several parts.
        """
        offset = num_keys - num_queries if self.offset is None else self.offset
        query = torch.arange(offset, offset + num_queries, device=device)[None]
        first, last = torch.zeros_like(query), torch.full_like(query, num_keys)
        if self.causal:
            last = query + 1
            if self.prefix is not None:
                last = torch.maximum(last, self.prefix[:, None])
        if self.window is not None:
            first, last = first.maximum(query - self.window + 1), last.minimum(query + self.window)
        if self.keys is not None:
            begin, end = _run(self.keys)
            first, last = first.maximum(begin[:, None]), last.minimum(end[:, None])
        if self.documents is not None:
            queries, keys = self.documents
            runs = [_runs_of(*pair, num_keys) for pair in zip(queries, keys, strict=True)]
            first = first.maximum(torch.stack([run[0] for run in runs]))
            last = last.minimum(torch.stack([run[1] for run in runs]))
        first, last = torch.broadcast_tensors(first.clamp(0, num_keys), last.clamp(0, num_keys))
        return torch.stack((first, first.maximum(last)), dim=-1)


def _run(keys: Bool[Tensor, "B S"]) -> tuple[Tensor, Tensor]:
    """Give the first key and the one after the last of each row, between which there are no others."""
    begin = keys.int().argmax(1)
    count = keys.sum(1)
    end = keys.shape[1] - keys.flip(1).int().argmax(1)
    if bool(((end - begin != count) & (count > 0)).any()):
        raise ConfigError(
            "keys that are masked stand between others; only padding at the ends can be looked at."
        )
    return begin, torch.where(count > 0, end, begin)


def _runs_of(queries: Int[Tensor, " T"], keys: Int[Tensor, " S"], num_keys: int) -> tuple[Tensor, Tensor]:
    """Give for each query the run of keys of its document; an empty one where its document has no key."""
    numbers, counts = keys.unique_consecutive(return_counts=True)
    if len(numbers) != len(numbers.unique()):
        raise ConfigError("a document stands in several parts; it can't be looked at.")
    ends = counts.cumsum(0)
    order = numbers.argsort()
    place = torch.searchsorted(numbers[order], queries).clamp(max=len(numbers) - 1)
    found = order[place]
    there = numbers[found] == queries
    return torch.where(there, ends[found] - counts[found], 0), torch.where(there, ends[found], 0)


def _both(left: Tensor | None, right: Tensor) -> Tensor:
    return right if left is None else left & right
