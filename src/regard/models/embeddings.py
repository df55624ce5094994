"""From token ids to vectors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from regard.config import ModelConfig

__all__ = ["embed", "scored_by"]

_tied: ContextVar[Tensor | None] = ContextVar("tied", default=None)


def embed(table: nn.Embedding, ids: Int[Tensor, "B T"], config: ModelConfig) -> Float[Tensor, "B T D"]:
    """Look tokens up; scaled by sqrt(D) where the family does so (Vaswani et al. 2017, section 3.4)."""
    sparse = table.weight is _tied.get() and not torch.compiler.is_compiling()
    x = F.embedding(ids, table.weight, sparse=True) if sparse else table(ids)
    return x * math.sqrt(config.width) if config.scale_embeddings else x


@contextmanager
def scored_by(head: nn.Module) -> Iterator[None]:
    """Say that the states made inside go on to a head that scores words, and learn from there.

    The head's gradient then covers the whole table of a tied embedding anyway. On a CPU the rows that were looked up
    are added to it as they are, where a second table, of zeros but for a few rows, would take as long as a layer.
    """
    tied = getattr(head, "kind", None) == "lm" and head.output.weight.device.type == "cpu"  # type: ignore[union-attr]
    token = _tied.set(head.output.weight if tied else None)  # type: ignore[union-attr,arg-type]
    try:
        yield
    finally:
        _tied.reset(token)
