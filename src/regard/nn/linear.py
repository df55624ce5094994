"""The linear layer, and its three products when it learns in bfloat16 on a CPU.

torch rounds each weight to bfloat16 on its own, multiplies, and widens each gradient on its own. Our kernel
(native/learning_products.c) does it on the way: weights stay in single precision, and their gradients never leave it.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from regard.nn.native import is_free, load

__all__ = ["Linear", "Products", "linear", "products_for"]

_FEWEST = 64  # rows from which laying weights out pays
_DEEPEST = 4096  # what may be summed over in one go


class Linear(nn.Linear):
    """Give x Wᵀ + b."""

    def forward(self, input: Float[Tensor, "... D"]) -> Float[Tensor, "... E"]:  # noqa: A002 - torch's own name
        """Multiply, with kernels of our own where they are faster."""
        return linear(input, self.weight, self.bias)


def linear(x: Float[Tensor, "... D"], weight: Tensor, bias: Tensor | None) -> Float[Tensor, "... E"]:
    """Give x Wᵀ + b; where it learns in bfloat16 on a CPU, by our own kernel if there is one."""
    if weight.shape[0] % 2 or weight.shape[0] > _DEEPEST or products_for(x, weight, bias) is None:
        return F.linear(x, weight, bias)
    out: Tensor = _Learning.apply(x, weight, bias)
    return out


class _Learning(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        products = Products(weight)
        rows = x.detach().reshape(-1, x.shape[-1]).bfloat16().contiguous()
        ctx.save_for_backward(rows, weight)
        ctx.dtype, ctx.shape = x.dtype, x.shape
        out = torch.empty(len(rows), len(weight), dtype=torch.bfloat16, device="cpu")
        products.forward(rows, bias, out)
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors
        gradient = gradient.reshape(len(rows), -1).contiguous()
        products, of_x, of_weight, of_bias = Products(weight), None, None, None
        if ctx.needs_input_grad[0]:
            of_x = torch.empty(rows.shape, dtype=ctx.dtype, device="cpu")
            products.input_gradient(gradient, of_x)
            of_x = of_x.view(ctx.shape)
        if ctx.needs_input_grad[2]:
            of_bias = torch.empty(len(weight), dtype=torch.float32, device="cpu")
        if ctx.needs_input_grad[1]:
            of_weight = torch.empty(weight.shape, dtype=torch.float32, device="cpu")
            products.weight_gradient(gradient, rows, of_weight, of_bias)
        elif of_bias is not None:
            of_bias = gradient.float().sum(0)
        return of_x, of_weight, of_bias


def products_for(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> ctypes.CDLL | None:
    """Give the kernel for a layer that learns from `x` where there is one for these tensors; None otherwise."""
    if not torch.is_grad_enabled() or not (x.requires_grad or weight.requires_grad):
        return None
    if x.device.type != "cpu" or weight.device.type != "cpu" or not is_free():
        return None
    # What doesn't fit is for torch to refuse, or to spread out.
    if x.shape[-1:] != weight.shape[1:] or (bias is not None and bias.shape != weight.shape[:1]):
        return None
    if not torch.is_autocast_enabled("cpu") or torch.get_autocast_dtype("cpu") != torch.bfloat16:
        return None
    if weight.shape[1] % 2 or weight.shape[1] > _DEEPEST or x.numel() < _FEWEST * weight.shape[1]:
        return None
    if type(x) is not Tensor or x.dtype not in (torch.float32, torch.bfloat16):
        return None
    for given in (weight, bias):
        if given is not None and (
            type(given) not in (Tensor, nn.Parameter)
            or given.dtype != torch.float32
            or not given.is_contiguous()
        ):
            return None
    return _library()


class Products:
    """The three products with a weight (N, K) in single precision; everything else is (M, N) or (M, K)."""

    def __init__(self, weight: Tensor) -> None:
        library = _library()
        assert library is not None, "products_for says whether there is a kernel"
        self.library, self.weight = library, weight.detach()

    def forward(self, x: Tensor, bias: Tensor | None, out: Tensor) -> None:
        """Write x Wᵀ + b to `out`, in bfloat16; its rows may be further apart than they are wide."""
        rows, depth = x.shape
        _check(
            self.library.forward(
                x.data_ptr(), self.weight.data_ptr(), 1, None if bias is None else bias.data_ptr(), out.data_ptr(),
                out.stride(0), rows, len(self.weight), depth,
            )
        )  # fmt: skip

    def input_gradient(self, gradient: Tensor, out: Tensor) -> None:
        """Write g W to `out`, in either precision; what is behind a row of `gradient` up to the next is zeros."""
        columns, depth = self.weight.shape[1], len(self.weight)
        _check(
            self.library.input_gradient(
                gradient.data_ptr(), gradient.stride(0), self.weight.data_ptr(), 1, out.data_ptr(),
                int(out.dtype == torch.float32), len(gradient), columns, depth,
            )
        )  # fmt: skip

    def weight_gradient(
        self, gradient: Tensor, x: Tensor, out: Tensor, sums: Tensor | None, *, add: bool = False
    ) -> None:
        """Write gᵀ x to `out`, or add it there, and each column's sum of g to `sums`, both in single precision."""
        _check(
            self.library.weight_gradient(
                gradient.data_ptr(), gradient.stride(0), x.data_ptr(), out.data_ptr(), int(add),
                None if sums is None else sums.data_ptr(), len(self.weight), x.shape[1], len(x),
            )
        )  # fmt: skip


@functools.cache
def _library() -> ctypes.CDLL | None:
    library = load("learning_products")
    if library is not None:
        place, wide, whole = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
        library.forward.argtypes = [place, place, whole, place, place, *[wide] * 4]
        library.input_gradient.argtypes = [place, wide, place, whole, place, whole, *[wide] * 3]
        library.weight_gradient.argtypes = [place, wide, place, place, whole, place, *[wide] * 3]
    return library


def _check(failed: int) -> None:
    if failed:
        raise MemoryError("no memory to lay out the factors of a product")
