"""Who may attend to whom, as a value: made of a few facts, combined as booleans, made dense only at the end."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Int
from torch import Tensor


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


def _both(left: Tensor | None, right: Tensor) -> Tensor:
    return right if left is None else left & right
