"""Attention over short texts on a processor: the plain products, and their gradient, in as few passes as there are.

Where a text is short the scores fit in the cache, and what costs is going over them again: to scale, to mask, to
widen. Here they are written by one product, get what is added to them in place, and turn into weights in one pass;
the backward pass keeps these weights and nothing else of their size.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from regard.nn.masks import Mask
from regard.nn.native import is_free

__all__ = ["attend_short", "is_short"]


def is_short(
    query: Float[Tensor, "B H T K"], key: Float[Tensor, "B G S K"], mask: Mask, bias: Tensor | None, most: int
) -> bool:
    """Tell whether to train with `attend_short`: on a CPU, up to `most` tokens, and where it can do what is asked."""
    return (
        query.device.type == "cpu"
        and query.requires_grad
        and query.shape[2] * key.shape[2] <= most * most
        and (bias is None or not bias.requires_grad)
        and not mask.can_blank_a_row(query.shape[2], key.shape[2])
        and is_free()
    )


def attend_short(
    query: Float[Tensor, "B H T K"],
    key: Float[Tensor, "B G S K"],
    value: Float[Tensor, "B G S K"],
    mask: Mask,
    bias: Float[Tensor, "B_or_1 H T S"] | None,
    scale: float,
) -> Float[Tensor, "B H T K"]:
    """Mix values by the softmax of the scaled scores, to which `bias`, which gets no gradient, is added.

    The mask must leave every query something to attend to. The products are of the inputs' type and the softmax sums
    in fp32.
    """
    if torch.is_autocast_enabled("cpu"):
        query, key, value = (x.to(torch.get_autocast_dtype("cpu")) for x in (query, key, value))
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    allowed = mask.dense(query.shape[2], key.shape[2], query.device)
    added = None if bias is None else bias.to(query.dtype)
    if allowed is not None:
        zero = query.new_zeros(()) if added is None else added
        added = torch.where(allowed, zero, -math.inf)
    mixed: Tensor = _Short.apply(query.contiguous(), key.contiguous(), value.contiguous(), added, scale)
    return mixed


class _Short(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, added: Tensor | None, scale: float
    ) -> Tensor:
        scores = (query * scale) @ key.mT  # (B, H, T, S)
        if added is not None:
            scores += added
        weights = scores.softmax(-1)
        ctx.save_for_backward(query, key, value, weights)
        ctx.scale = scale
        return weights @ value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, weights = ctx.saved_tensors
        out = gradients[0].contiguous()
        scores = torch._softmax_backward_data(out @ value.mT, weights, -1, weights.dtype)
        return (
            (scores @ key) * ctx.scale,
            (scores.mT @ query) * ctx.scale,
            weights.mT @ out,
            None,
            None,
        )
