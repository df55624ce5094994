"""Cut token ids out of a store into padded arrays, and make tensors of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from regard.data.store import TokenStore
from regard.errors import DataError

__all__ = ["IGNORED", "Batch", "Ids", "cut", "fitting", "gather", "join", "tensors"]

IGNORED = -100  # the label of a position that is not scored, as in torch.nn.functional.cross_entropy

Ids = NDArray[np.int64]
Batch = dict[str, Any]


def fitting(costs: Ids, context: int | None, skip_long: bool) -> tuple[Ids, int]:
    """Give the numbers of the examples that fit, and how many do not; raise unless those may be left out."""
    long = costs > context if context is not None else np.zeros(len(costs), bool)
    number = int(long.sum())
    if number and not skip_long:
        first = int(np.flatnonzero(long)[0])
        raise DataError(
            f"example {first + 1} has {costs[first]} tokens with its marks, and {number} of {len(costs)} have more "
            f"than the context of {context}; make the context {int(costs.max())}, or leave long examples out"
        )
    kept = np.flatnonzero(~long)
    if not len(kept):
        raise DataError(
            "there are no examples" + (f" within the context of {context} tokens" if number else "")
        )
    return kept, number


def gather(
    store: TokenStore, numbers: Ids, *, pad: int, first: int | None = None, last: int | None = None
) -> tuple[Ids, NDArray[np.bool_]]:
    """Give sequences of a store as rows, padded on the right, an id before or after each; and what is real."""
    before, after = int(first is not None), int(last is not None)
    sizes = store.lengths[numbers] + before + after
    ids, real = cut(store.flat, store.offsets[numbers] - before, sizes, pad)
    if first is not None:
        ids[:, 0] = first
    if last is not None:
        ids[np.arange(len(numbers)), sizes - 1] = last
    return ids, real


def cut(flat: NDArray[Any], starts: Ids, sizes: Ids, pad: int) -> tuple[Ids, NDArray[np.bool_]]:
    """Give pieces of a stream as rows, padded on the right, and what is real."""
    steps = np.arange(sizes.max(initial=0))
    real = steps[None] < sizes[:, None]
    # The places before a first token and after a last one may lie outside; what is read there is overwritten.
    places = np.clip(starts[:, None] + steps[None], 0, max(len(flat) - 1, 0))
    ids = flat[places].astype(np.int64) if len(flat) else np.zeros(real.shape, np.int64)
    ids[~real] = pad
    return ids, real


def join(
    rows: Sequence[Ids], *, pad: int, first: int | None = None, last: int | None = None
) -> tuple[Ids, NDArray[np.bool_]]:
    """Do what `gather` does for sequences that are not in a store."""
    sizes = np.array([len(row) for row in rows])
    flat = np.concatenate(rows) if len(rows) else np.zeros(0, np.int64)
    store = TokenStore(flat, np.concatenate(([0], np.cumsum(sizes))), vocab_size=0)
    return gather(store, np.arange(len(rows)), pad=pad, first=first, last=last)


def tensors(index: Ids, tokens: int, **fields: NDArray[Any]) -> Batch:
    """Make a batch: a tensor for each field (without a copy), `tokens` and `index`."""
    batch: Batch = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in fields.items()}
    return batch | {"tokens": tokens, "index": torch.from_numpy(np.array(index, np.int64))}
