"""Parts of a batch that fit in memory, and how to tell that one didn't."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from regard.errors import TrainingError
from regard.training.loss import IGNORED, Batch

__all__ = ["is_out_of_memory", "micro_batches", "next_smaller", "smaller_parts"]

# Fields that are as wide as each other, and the mask or labels that tell how far they reach. Labels tell it
# only where positions and no mask are given: that is causal text, where what follows the last label moves
# nothing that is scored.
_WIDTHS = (
    ("source_mask", ("source", "source_mask")),
    ("target_mask", ("target_in", "target_out", "target_mask")),
    ("key_mask", ("ids", "labels", "key_mask", "positions", "documents")),
    ("labels", ("ids", "labels", "positions", "documents")),
)


def micro_batches(batch: Batch, most_tokens: int | None) -> Iterator[Batch]:
    """Give a batch in parts of whole rows, each of at most `most_tokens` tokens, padding included.

    A row longer than that is a part alone. Columns in which a part has only padding at its end are cut off,
    so the parts of a ragged batch cost less than the batch. The sums of a loss over the parts are its sums
    over the batch.
    """
    rows, width = _size(batch)
    at_once = rows if most_tokens is None else max(1, most_tokens // width)
    if at_once >= rows:
        yield batch
        return
    for start in range(0, rows, at_once):
        part = {
            name: value[start : start + at_once]
            for name, value in batch.items()
            if isinstance(value, Tensor) and value.dim() and len(value) == rows
        }
        yield _trimmed(part)


def next_smaller(batch: Batch, most_tokens: int | None) -> int | None:
    """Give half the tokens that `micro_batches` puts in a part of this batch; None if that is a single row."""
    rows, width = _size(batch)
    at_once = rows if most_tokens is None else min(rows, max(1, most_tokens // width))
    return None if at_once == 1 else at_once * width // 2


def smaller_parts(batch: Batch, most_tokens: int | None) -> int:
    """Give what `next_smaller` does.

    Raises:
        TrainingError: there is nothing smaller.
    """
    smaller = next_smaller(batch, most_tokens)
    if smaller is None:
        raise TrainingError("out of memory with a single row; take shorter texts or a smaller model.")
    return smaller


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an exception means that memory ran out: on an accelerator, or in the CPU's allocator."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("DefaultCPUAllocator" in text or "out of memory" in text)


def _size(batch: Batch) -> tuple[int, int]:
    """Give the number of rows and the width of the widest field."""
    shapes = [value.shape for value in batch.values() if isinstance(value, Tensor) and value.dim() >= 2]
    assert shapes, "a batch has at least one field of shape (B, T)"
    return shapes[0][0], max(1, max(shape[1] for shape in shapes))


def _trimmed(part: dict[str, Tensor]) -> dict[str, Tensor]:
    done: set[str] = set()
    for guide, names in _WIDTHS:
        if guide not in part or part[guide].dim() != 2 or guide in done:
            continue
        if guide == "labels" and "positions" not in part:
            continue
        real = part[guide] != IGNORED if guide == "labels" else part[guide]
        columns = real.any(0).nonzero()
        width = max(1, int(columns[-1]) + 1 if len(columns) else 1)
        for name in names:
            if name in part and part[name].dim() == 2 and name not in done:
                part[name] = part[name][:, :width]
                done.add(name)
    return part
