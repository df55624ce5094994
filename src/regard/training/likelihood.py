"""The cross-entropy of final states by kernels of our own: no more than a part of the logits is ever in memory.

The gradient of a sum is known with the sum, so a part's logits turn into their gradient where they lie, and from there
into the gradients of states and weights, before the next part begins. After Liger Kernel, arXiv:2410.10989.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from regard.models.embeddings import Shared, shared_gradient
from regard.models.transformer import Head
from regard.nn.linear import Linear, Products, products_for
from regard.nn.native import load

__all__ = ["output_of", "scored_in_parts"]

_AT_ONCE = 1 << 26  # logits in memory
_LANES = 32


def output_of(head: Callable[[Tensor], Tensor], hidden: Tensor) -> Linear | None:
    """Give the output layer of a head that `scored_in_parts` can stand in for; None where it can't."""
    if not isinstance(head, Head) or head.kind != "lm" or head.softcap is not None:
        return None
    output = head.output
    fits = type(output) is Linear and products_for(hidden, output.weight, output.bias) is not None
    return output if fits and _library() is not None else None


def scored_in_parts(
    hidden: Tensor, output: Linear, labels: Tensor, *, smoothing: float = 0.0, chunk: int | None = None
) -> tuple[Tensor, Tensor]:
    """Give the summed loss, with gradient, and the summed nll of states (N, D) with labels (N,), all of them scored.

    Args:
        hidden: what the output layer gets.
        output: the layer, for which `output_of` said yes.
        labels: (N,), each a word of the vocabulary.
        smoothing: the part of the target that is spread over all words.
        chunk: states whose logits are in memory at once; None: as many as 2^26 logits allow.
    """
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < output.out_features:
        raise IndexError(f"a label is outside of the vocabulary of {output.out_features} words")
    shared = shared_gradient(output.weight)
    weight = output.weight if shared is None else shared.alias
    loss, nll = _InParts.apply(hidden, weight, output.bias, labels.long(), smoothing, chunk, shared)
    return loss, nll


class _InParts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, smoothing: float,
        chunk: int | None, shared: Shared | None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        library, products, words = _library(), Products(weight), len(weight)
        assert library is not None
        states, labels = hidden.detach().bfloat16().contiguous(), labels.contiguous()
        step = -(-words // _LANES) * _LANES
        chunk = max(1, min(len(states), chunk or _AT_ONCE // step))
        logits = torch.empty(chunk, step, dtype=torch.bfloat16, device="cpu")
        of_states = torch.empty(states.shape, dtype=torch.float32, device="cpu")
        of_weight = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        of_bias = torch.zeros(words, dtype=torch.float32, device="cpu") if ctx.needs_input_grad[2] else None
        losses = torch.empty(2, len(states), dtype=torch.float64, device="cpu")
        for begin in range(0, len(states), chunk):
            some = states[begin : begin + chunk]
            own = logits[: len(some)]
            products.forward(some, bias, own)
            library.score(
                own.data_ptr(), step, labels[begin:].data_ptr(), len(some), words, smoothing,
                *(row[begin:].data_ptr() for row in losses),
            )  # fmt: skip
            products.input_gradient(own, of_states[begin : begin + chunk])
            if of_weight is not None:
                columns = None if of_bias is None else torch.empty_like(of_bias)
                products.weight_gradient(own, some, of_weight, columns, add=begin > 0)
                if of_bias is not None and columns is not None:
                    of_bias += columns
        ctx.gradients, ctx.dtype = (of_states, of_weight, of_bias), hidden.dtype
        ctx.shared = shared
        loss, nll = (row.sum().float() for row in losses)
        ctx.mark_non_differentiable(nll)
        return loss, nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        assert ctx.gradients is not None, (
            "this loss can be differentiated once; its gradient is made in place"
        )
        gradients, ctx.gradients = ctx.gradients, None
        scaled = [None if g is None else g.mul_(grad_loss) for g in gradients]
        assert scaled[0] is not None
        if ctx.shared is not None:
            ctx.shared.hold(scaled[1])
        return scaled[0].to(ctx.dtype), scaled[1], scaled[2], None, None, None, None


@functools.cache
def _library() -> ctypes.CDLL | None:
    library = load("likelihood")
    if library is not None:
        place, wide = ctypes.c_void_p, ctypes.c_int64
        library.score.argtypes = [place, wide, place, wide, wide, ctypes.c_float, place, place]
        library.score.restype = None
    return library
