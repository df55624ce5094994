"""From token ids to vectors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from regard.config import ModelConfig

__all__ = ["Shared", "embed", "scored_by", "shared_gradient"]


class Shared:
    """Hold the gradient of a tied embedding between the head, which makes it, and the look-ups, which add to it.

    The head's covers the whole table anyway. The rows that were looked up are added to it where it lies; a second
    table, of zeros but for a few rows, would take as long as a layer. The last look-up lets go of it, so that nobody
    copies it. Both use the weight by an alias of their own: what anything else gives it never meets the gradient here,
    which autograd would else add up with it elsewhere while rows still come.
    """

    def __init__(self, weight: Tensor) -> None:
        self.weight, self.lookups = weight, 0
        self.alias: Tensor | None = None
        self.gradient: Tensor | None = None
        self.is_late = False  # a look-up has given a table of its own

    def hold(self, gradient: Tensor | None) -> None:
        """Let the look-ups of this backward pass add to the head's gradient."""
        if self.lookups and not self.is_late and gradient is not None:
            self.gradient = gradient
            torch.autograd.Variable._execution_engine.queue_callback(self._release)

    def _release(self) -> None:
        self.gradient = None


_shared: ContextVar[Shared | None] = ContextVar("shared", default=None)


@contextmanager
def scored_by(head: nn.Module) -> Iterator[None]:
    """Say that the states made inside are scored inside by a head, which may be tied to the embedding."""
    output = getattr(head, "output", None)
    token = _shared.set(Shared(output.weight) if isinstance(output, nn.Linear) else None)
    try:
        yield
    finally:
        _shared.reset(token)


def shared_gradient(weight: Tensor) -> Shared | None:
    """Give what holds this weight's gradient, where tokens have been looked up in it; None otherwise."""
    shared = _shared.get()
    return shared if shared is not None and shared.weight is weight and shared.lookups else None


def embed(table: nn.Embedding, ids: Int[Tensor, "B T"], config: ModelConfig) -> Float[Tensor, "B T D"]:
    """Look tokens up; scaled by sqrt(D) where the family does so (Vaswani et al. 2017, section 3.4)."""
    shared = _shared.get()
    ours = shared is not None and shared.weight is table.weight and table.weight.requires_grad
    if ours and torch.is_grad_enabled() and not torch.compiler.is_compiling() and ids.device.type == "cpu":
        assert shared is not None
        if shared.alias is None:
            shared.alias = table.weight.view_as(table.weight)
        x = _LookUp.apply(shared.alias, ids, shared)
    else:
        x = table(ids)
    return x * math.sqrt(config.width) if config.scale_embeddings else x


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, shared: Shared) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.rows, ctx.shared = len(weight), shared
        shared.lookups += 1
        return F.embedding(ids, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None]:
        (ids,) = ctx.saved_tensors
        shared: Shared = ctx.shared
        shared.lookups -= 1
        total = shared.gradient
        if total is None:
            shared.is_late = True
            dense: Tensor = torch.ops.aten.embedding_dense_backward(gradient, ids, ctx.rows, -1, False)
            return dense, None, None
        total.index_add_(0, ids.flatten(), gradient.reshape(-1, gradient.shape[-1]).to(total.dtype))
        if not shared.lookups:
            shared.gradient = None
        return None, None, None
