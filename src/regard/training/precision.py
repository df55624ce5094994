"""Where to compute and in which precision, found out by measuring rather than by the processor's name."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.functional import linear

from regard.errors import ConfigError

__all__ = ["Precision", "autocast", "choose_device", "choose_precision", "compiled", "measure_bf16_gain"]

Precision = Literal["fp32", "bf16"]
WORTHWHILE = 1.3
"""How much faster a bf16 product must be before bf16 is worth its casts and its eight bits of mantissa."""


def choose_device(name: str) -> torch.device:
    """Give the device that a name stands for; `auto` is CUDA, else MPS, else the CPU.

    Raises:
        ConfigError: no such device, or it isn't there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device={name!r} is unknown; use auto, cpu, cuda, cuda:N or mps.") from None
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ConfigError(f"device={name!r} isn't there: torch sees {count} CUDA devices; use auto or cpu.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device='mps' isn't there; use auto or cpu.")
    return device


def choose_precision(asked: str, device: torch.device) -> Precision:
    """Resolve `auto`: bf16 on a CUDA device that has it, and on a CPU that is found to be faster at it; else fp32.

    A run records the answer, because a second measurement may differ and a resumed run must not.
    """
    if asked == "fp32" or asked == "bf16":
        return "bf16" if asked == "bf16" else "fp32"
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and measure_bf16_gain() >= WORTHWHILE else "fp32"


def measure_bf16_gain(size: int = 384, repeats: int = 7) -> float:
    """Time a linear layer's forward product in fp32 and under bf16 autocast on the CPU; give fp32's time over bf16's.

    The two alternate and the shortest of `repeats` counts, so that other work on the machine weighs little.
    It takes some tens of milliseconds, of which the first products, which set up the kernels, aren't counted.
    """
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(512, size, generator=generator)
    weight = torch.randn(size, size, generator=generator)
    half = weight.bfloat16()
    fp32 = bf16 = float("inf")
    with torch.inference_mode():
        for repeat in range(repeats + 1):
            start = time.perf_counter()
            linear(states, weight)
            middle = time.perf_counter()
            # A real batch is so much longer than this one that the cast of its weights is lost beside it.
            linear(states.bfloat16(), half)
            if repeat:
                fp32 = min(fp32, middle - start)
                bf16 = min(bf16, time.perf_counter() - middle)
    return fp32 / bf16


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Give the context in which a forward pass runs; parameters, gradients and optimizer state stay fp32."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


@contextmanager
def compiled(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Compile a model for the length of a `with` block, if that is wanted.

    The objectives call `hidden`, not the model, so that they can leave the unscored positions out of the
    head; so that is what is compiled.
    """
    if not wanted:
        yield
        return
    open_model: Any = model
    open_model.hidden = torch.compile(open_model.hidden)
    try:
        yield
    finally:
        del open_model.hidden
