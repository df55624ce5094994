"""GELU by its tanh, which in bfloat16 on a CPU torch takes a quarter of the product before it for; our kernel less."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from regard.nn.native import is_free, load

__all__ = ["gelu_tanh"]


def gelu_tanh(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Give x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2; where it learns in bfloat16 on a CPU, by our own kernel."""
    learns = torch.is_grad_enabled() and x.requires_grad and x.dtype == torch.bfloat16
    plain = type(x) is Tensor and x.device.type == "cpu" and x.is_contiguous() and not x.is_neg()
    if learns and plain and is_free() and _library() is not None:
        out: Tensor = _Learning.apply(x)
        return out
    return F.gelu(x, approximate="tanh")


class _Learning(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        out, library = torch.empty_like(x), _library()
        assert library is not None
        library.forward(x.data_ptr(), out.data_ptr(), x.numel())
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        out, gradient, library = torch.empty_like(x), gradient.contiguous(), _library()
        assert library is not None
        library.backward(x.data_ptr(), gradient.data_ptr(), out.data_ptr(), x.numel())
        return out


@functools.cache
def _library() -> ctypes.CDLL | None:
    library = load("gelu")
    if library is not None:
        place, wide = ctypes.c_void_p, ctypes.c_int64
        library.forward.argtypes, library.forward.restype = [place, place, wide], None
        library.backward.argtypes, library.backward.restype = [place, place, place, wide], None
    return library
