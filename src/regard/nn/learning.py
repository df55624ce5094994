"""Attention that learns in bfloat16 on a CPU, by a kernel of our own in both directions."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from regard.nn.native import is_free, load

__all__ = ["attend_learning", "kernel_for"]

_TILE = 64  # what the size of a head is a multiple of


class _Heads(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), *((n, ctypes.c_int64) for n in ("batch", "head", "row")))


def kernel_for(
    query: Float[Tensor, "B H T K"], key: Float[Tensor, "B G S K"], value: Float[Tensor, "B G S K"]
) -> ctypes.CDLL | None:
    """Give the kernel where there is one for these tensors and something learns; None otherwise."""
    all_of_them = query, key, value
    if not torch.is_grad_enabled() or not any(x.requires_grad for x in all_of_them):
        return None
    if not is_free() or query.shape[-1] % _TILE or value.shape != key.shape:
        return None
    if query.numel() == 0 or key.numel() == 0 or key.shape[-1] != query.shape[-1]:
        return None
    if any(
        type(x) is not Tensor or x.dtype != torch.bfloat16 or x.device.type != "cpu" or x.is_neg()
        for x in all_of_them
    ):
        return None
    return _library()


def attend_learning(
    query: Float[Tensor, "B H T K"],
    key: Float[Tensor, "B G S K"],
    value: Float[Tensor, "B G S K"],
    runs: Int[Tensor, "B_or_1 T 2"],
    scale: float,
) -> Float[Tensor, "B H T K"]:
    """Mix values; query t attends to the keys [first, last) of `runs`, and gets zeros where that is empty."""
    mixed: Tensor = _Learning.apply(query, key, value, runs, scale)
    return mixed


class _Learning(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, runs: Tensor, scale: float) -> Tensor:
        query, key, value = (_in_rows(x.detach()) for x in (query, key, value))
        batch, count, rows, _ = query.shape
        mixed = _like(query)
        normaliser = torch.empty(batch, count, rows, dtype=torch.float32, device="cpu")
        library = _library()
        assert library is not None
        failed = library.attend(
            *map(_heads, (query, key, value, mixed)), normaliser.data_ptr(), *_sizes(query, key, runs), scale
        )
        if failed:
            raise MemoryError("no memory for a block of attention")
        ctx.save_for_backward(query, key, value, mixed, normaliser, runs)
        ctx.scale = scale
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, mixed, normaliser, runs = ctx.saved_tensors
        found = _like(query), _like(key), _like(value)
        gradient = _in_rows(gradient.bfloat16())
        library = _library()
        assert library is not None
        failed = library.gradients(
            *map(_heads, (query, key, value, mixed, gradient)), normaliser.data_ptr(),
            *map(_heads, found), *_sizes(query, key, runs), ctx.scale,
        )  # fmt: skip
        if failed:
            raise MemoryError("no memory for a block of attention")
        return *found, None, None


def _in_rows(x: Tensor) -> Tensor:
    """Give x with each row's numbers side by side, and rows at places that are divisible by two."""
    fits = x.stride(-1) == 1 and all(step % 2 == 0 for step in x.stride()[:-1]) and x.data_ptr() % 4 == 0
    return x if fits else x.contiguous()


def _like(x: Tensor) -> Tensor:
    """Make room for (B, H, T, K) with the heads of a token side by side, as the layers around have them."""
    batch, heads, rows, size = x.shape
    return torch.empty(batch, rows, heads, size, dtype=x.dtype, device="cpu").transpose(1, 2)


def _heads(x: Tensor) -> Any:
    return ctypes.byref(_Heads(x.data_ptr(), *x.stride()[:3]))


def _sizes(query: Tensor, key: Tensor, runs: Tensor) -> tuple[int, ...]:
    batch, count, rows, size = query.shape
    assert runs.is_contiguous() and runs.shape[0] in (1, batch) and runs.dtype == torch.int64
    return runs.data_ptr(), int(runs.shape[0] > 1), batch, count, key.shape[1], rows, key.shape[2], size


@functools.cache
def _library() -> ctypes.CDLL | None:
    library = load("learning_attention")
    if library is not None:
        place, wide, whole, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_float
        library.attend.argtypes = [*[place] * 6, whole, *[wide] * 6, real]
        library.gradients.argtypes = [*[place] * 10, whole, *[wide] * 6, real]
    return library
