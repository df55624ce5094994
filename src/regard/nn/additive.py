"""Additive attention: a score is what a small network of one layer says of a query and a key.

    score(q, k) = wᵀ tanh(q + k),  q = W s,  k = U h          Bahdanau et al. 2014, arXiv:1409.0473, A.1.2

Its v, W and U are `weight` and the projections that make our queries and keys. In a loop over time the keys stay while
queries come one by one, and tanh would be what costs:

    tanh(q + k) = 1 - 2 / (1 + exp(2q) exp(2k))

turns it into a product and a division, exp(2k) being made once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from regard.nn.attention import Attend, current_listener
from regard.nn.masks import Mask
from regard.nn.positions import Bias

__all__ = ["Additive", "AdditiveScores", "powers_of"]

_LARGEST = 20.0  # of a query's or key's number, up to which the product of exponentials stays in range


@dataclass(frozen=True)
class Additive(Attend):
    """Mix values by additive scores: the same seam, whose scores are no products.

    Attributes:
        weight: (K,), what the network's output sums with.
    """

    weight: Tensor | None = None

    def __call__(
        self,
        query: Float[Tensor, "B H T K"],
        key: Float[Tensor, "B H S K"],
        value: Float[Tensor, "B H S K"],
        mask: Mask,
        bias: Bias | Float[Tensor, "B_or_1 H T S"] | None = None,
    ) -> Float[Tensor, "B H T K"]:
        """Give the mixed values; a query that may attend to nothing gets zeros."""
        listener = current_listener()
        if listener is not None:
            return listener(self, query, key, value, mask, bias)
        return self.reference(query, key, value, mask)[0]

    def reference(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Mask, bias: Tensor | None = None
    ) -> tuple[Float[Tensor, "B H T K"], Float[Tensor, "B H T S"]]:
        """Compute the equation as it is written; give the mixed values and the weights."""
        scores = self.scores(query, key)
        allowed = mask.dense(query.shape[2], key.shape[2], query.device)
        if allowed is not None:
            scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
        weights = scores.softmax(-1)
        if allowed is not None:
            weights = weights * allowed
        return weights.to(value.dtype) @ value, weights

    def scores(
        self, query: Float[Tensor, "... R K"], key: Float[Tensor, "... C K"]
    ) -> Float[Tensor, "... R C"]:
        """Give the scores in single precision (double where given), a query at a time: memory is O(C·K)."""
        assert self.weight is not None
        wide = torch.float64 if query.dtype == torch.float64 else torch.float32
        query, key, weight = query.to(wide), key.to(wide), self.weight.to(query.device, wide)
        if query.shape[-2] == 0:
            return query.new_zeros(*query.shape[:-1], key.shape[-2])
        rows = [torch.tanh(key + one) @ weight for one in query.split(1, -2)]
        return torch.stack(rows, -2)


class AdditiveScores:
    """Score queries that come one by one against keys that stay; gradients of keys and weight are summed over all.

    Args:
        key: k.
        weight: w.
        powers: what `powers_of` gave for the key, where that is known already.
    """

    def __init__(
        self,
        key: Float[Tensor, "B S K"],
        weight: Float[Tensor, " K"],
        powers: Float[Tensor, "B S K"] | None = None,
    ) -> None:
        wide = torch.float64 if key.dtype == torch.float64 else torch.float32
        self.key, self.weight = key.detach().to(wide), weight.detach().to(wide)
        self.powers = powers_of(self.key) if powers is None else powers
        self.of_key: Tensor | None = None
        self.of_weight: Tensor | None = None
        learns = torch.is_grad_enabled() and (key.requires_grad or weight.requires_grad)
        self._ties = _Together.apply(key, weight, self) if learns else None

    def __call__(self, query: Float[Tensor, "B K"]) -> Float[Tensor, "B S"]:
        """Score one query of each row."""
        return _Score.apply(query, self._ties, self)

    def halves(self, query: Float[Tensor, "B K"]) -> Float[Tensor, "B S K"]:
        """Give (1 - tanh(q + k)) / 2."""
        if self.powers is not None and float(query.abs().max()) <= _LARGEST:
            return (self.powers * (2 * query).exp_()[:, None]).add_(1.0).reciprocal_()
        return (1 - torch.tanh(self.key + query[:, None])) / 2


def powers_of(key: Float[Tensor, "B S K"]) -> Float[Tensor, "B S K"] | None:
    """Give exp(2k), with which scores are made; None where it could leave the range, or tanh costs nothing (a GPU)."""
    if key.device.type != "cpu" or key.numel() == 0 or float(key.detach().abs().max()) > _LARGEST:
        return None
    wide = key.detach() if key.dtype == torch.float64 else key.detach().float()
    return (2 * wide).exp_()


class _Together(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, key: Tensor, weight: Tensor, scores: AdditiveScores) -> Tensor:
        ctx.scores, ctx.dtypes = scores, (key.dtype, weight.dtype)
        return scores.key.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor, Tensor, None]:
        scores: AdditiveScores = ctx.scores
        of_key, of_weight = scores.of_key, scores.of_weight
        assert of_key is not None and of_weight is not None
        scores.of_key = scores.of_weight = None
        return (of_key * (4 * scores.weight)).to(ctx.dtypes[0]), of_weight.to(ctx.dtypes[1]), None


class _Score(torch.autograd.Function):
    """With r = (1 - tanh z) / 2 the slope of tanh is 4 r (1 - r); r is made again, not kept: it is large."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, ties: Tensor | None, scores: AdditiveScores) -> Tensor:
        wide = query.to(scores.key.dtype)
        ctx.save_for_backward(wide)
        ctx.scores, ctx.dtype = scores, query.dtype
        with torch.autocast(query.device.type, enabled=False):
            return scores.weight.sum() - 2 * (scores.halves(wide) @ scores.weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        (query,) = ctx.saved_tensors
        scores: AdditiveScores = ctx.scores
        with torch.autocast(gradient.device.type, enabled=False):
            half = scores.halves(query)
            of_weight = gradient.sum() - 2 * (gradient.reshape(-1) @ half.flatten(0, 1))
            slopes = torch.ops.aten.sigmoid_backward(gradient[..., None].expand_as(half), half)
            of_query = (slopes.sum(1) * (4 * scores.weight)).to(ctx.dtype)
        if not ctx.needs_input_grad[1]:
            return of_query, None, None
        scores.of_key = slopes if scores.of_key is None else scores.of_key.add_(slopes)
        scores.of_weight = of_weight if scores.of_weight is None else scores.of_weight + of_weight
        return of_query, gradient.new_zeros(()), None
