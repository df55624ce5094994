"""One matrix that multiplies at many steps: its gradient is made once, of all steps together.

A loop over time uses the same weights at each step. Left to autograd, each step makes a gradient as large as the
matrix and adds it to the last; here a step only keeps its factors, and one product at the end sums over all of them.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["Product"]


class Product:
    """Give x M for one M, (K, N) or (B, K, N), as often as it is asked for.

    Args:
        matrix: M; its gradient is that of all calls.
        narrow: multiply in the type of a surrounding autocast, M being turned into it once. Else in M's own.
    """

    def __init__(self, matrix: Float[Tensor, "*B K N"], *, narrow: bool = True) -> None:
        kind = matrix.device.type
        as_is = not narrow or not torch.is_autocast_enabled(kind)
        self._matrix = matrix.detach().to(matrix.dtype if as_is else torch.get_autocast_dtype(kind))
        self._factors: list[tuple[Tensor, Tensor]] = []
        learns = torch.is_grad_enabled() and matrix.requires_grad
        self._ties = _Together.apply(matrix, self._factors) if learns else None

    def __call__(self, x: Float[Tensor, "*B R K"]) -> Float[Tensor, "*B R N"]:
        """Multiply, and give the result in the type of `x`."""
        return _Step.apply(x, self._ties, self._matrix, self._factors)


class _Together(torch.autograd.Function):
    """Hand out what ties all steps to M, so that its backward pass comes after theirs."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, factors: list[tuple[Tensor, Tensor]]) -> Tensor:
        ctx.factors, ctx.dtype = factors, matrix.dtype
        return matrix.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor, None]:
        given, gradients = zip(*ctx.factors, strict=True)
        ctx.factors.clear()
        with torch.autocast(gradients[0].device.type, enabled=False):
            whole = torch.cat(given, -2).transpose(-1, -2) @ torch.cat(gradients, -2)
        return whole.to(ctx.dtype), None


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, ties: Tensor | None, matrix: Tensor, factors: list[tuple[Tensor, Tensor]]
    ) -> Tensor:
        narrow = x.to(matrix.dtype)
        ctx.save_for_backward(narrow, matrix)
        ctx.factors, ctx.dtype = factors, x.dtype
        with torch.autocast(x.device.type, enabled=False):
            return (narrow @ matrix).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, matrix = ctx.saved_tensors
        gradient, of_x = gradient.to(matrix.dtype), None
        with torch.autocast(gradient.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                of_x = (gradient @ matrix.transpose(-1, -2)).to(ctx.dtype)
        if not ctx.needs_input_grad[1]:
            return of_x, None, None, None
        ctx.factors.append((x, gradient))
        return of_x, gradient.new_zeros((), dtype=ctx.dtype), None, None
