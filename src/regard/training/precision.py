"""Where to compute and in which precision, found out by measuring rather than by the processor's name."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, get_args

import torch
from torch import nn

from regard.errors import ConfigError

__all__ = ["Precision", "autocast", "choose_device", "choose_precision", "compiled", "measure_bf16_gain"]

Precision = Literal["fp32", "bf16"]
WORTHWHILE = 1.3
"""How much faster bf16 must be before it is worth its eight bits of mantissa."""


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


def choose_precision(asked: str, device: torch.device, attempt: Callable[[], object]) -> Precision:
    """Resolve `auto`: bf16 on a CUDA device that has it, and on a CPU that is found to be faster at it; else fp32.

    On a CPU, `attempt` is timed: the forward and backward pass of a small part of the run's own data through its own
    model. A matrix product alone would mislead, as narrow models lose more in casts and attention than they win.
    A run records the answer, because a second measurement may differ and a resumed run must not.
    """
    if asked == "fp32" or asked == "bf16":
        return "bf16" if asked == "bf16" else "fp32"
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and measure_bf16_gain(attempt) >= WORTHWHILE else "fp32"


def measure_bf16_gain(attempt: Callable[[], object], *, rounds: int = 4, seconds: float = 1.0) -> float:
    """Time `attempt` on the CPU in fp32 and under bf16 autocast; give fp32's time over bf16's.

    The two alternate and the shortest of each counts, so that other work on the machine weighs little. The first round,
    which sets up the kernels, isn't counted; after `seconds` no new round begins.
    """
    cpu = torch.device("cpu")
    best: dict[Precision, float] = {}
    began = time.perf_counter()
    for number in range(rounds + 1):
        if len(best) == 2 and time.perf_counter() - began > seconds:
            break
        for precision in get_args(Precision):
            start = time.perf_counter()
            with autocast(precision, cpu):
                attempt()
            if number:
                best[precision] = min(best.get(precision, math.inf), time.perf_counter() - start)
    return best["fp32"] / best["bf16"]


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
