"""Kernels in C, for what torch's own do slowly: compiled on this machine the first time that one is wanted, then kept.

They are an addition and never a need: where there is no C compiler, no place to keep what it makes, or a processor
that a kernel wasn't written for, `load` gives None, and what asked for it goes on without. `REGARD_NATIVE=0` says no.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad

__all__ = ["half_of_turned", "is_free", "load", "log_sum_exp", "long_attention"]

_FLAGS = (
    "-O3 -fPIC -std=c11 -fopenmp -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16 -mavx512vnni -mfma"
)
_DIGEST = 32  # bytes
_PATIENCE = 60  # seconds for a compiler
_ROWS = 1920  # rows of a head that a thread takes at a time
_TILE = 64  # what the size of a head is a multiple of

LongAttention = Callable[..., tuple[Tensor, Tensor]]


def long_attention(
    query: Float[Tensor, "B H T K"], key: Float[Tensor, "B G S K"], value: Float[Tensor, "B G S K"]
) -> LongAttention | None:
    """Give the kernel for long texts in bfloat16 where there is one for these tensors; None otherwise.

    It is called as `attend(query, key, value, scale, causal)`, and gives what each head mixes, (B, H, T, K), and the
    log-sum-exp of each row's scores, (B, H, T). Causal, there must be as many keys as queries.
    """
    all_of_them = query, key, value
    size = query.shape[-1]
    if size == 0 or size % _TILE or key.shape[-1] != size or value.shape != key.shape:
        return None
    if any(x.dtype != torch.bfloat16 or x.device.type != "cpu" for x in all_of_them):
        return None
    # It reads and writes memory itself: nothing for gradients, nor for tensors that only stand for numbers.
    if torch.is_grad_enabled() and any(x.requires_grad for x in all_of_them):
        return None
    if any(type(x) is not Tensor or x.is_neg() for x in all_of_them):
        return None
    library = load("long_attention")
    return None if library is None else functools.partial(_attend, library)


def log_sum_exp(x: Float[Tensor, "... V"]) -> Float[Tensor, "..."]:
    """Do as `torch.logsumexp` over the last dimension, without gradients: on a processor five times as fast."""
    fits = x.device.type == "cpu" and x.dtype == torch.float32 and is_free()
    library = load("step") if fits else None
    if library is None or not x.is_contiguous() or x.numel() == 0:
        return x.logsumexp(-1)
    out = torch.empty(x.shape[:-1], dtype=torch.float32, device="cpu")
    numbers = (out.numel(), x.shape[-1], torch.get_num_threads())
    library.log_sum_exp(
        ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(out.data_ptr()), *map(ctypes.c_int64, numbers)
    )
    return out


def half_of_turned(x: Float[Tensor, "N K"]) -> Float[Tensor, "N K"] | None:
    """Give a transposed matrix in bfloat16 with its rows one by one: in a quarter of torch's time.

    None where it isn't one, or there is no kernel.
    """
    if x.ndim != 2 or x.dtype != torch.float32 or x.device.type != "cpu":
        return None
    if x.is_contiguous() or not x.t().is_contiguous() or x.requires_grad or type(x) is not Tensor:
        return None
    library = load("turning") if is_free() else None
    if library is None:
        return None
    out = torch.empty(x.shape, dtype=torch.bfloat16, device="cpu")
    sizes = (x.shape[1], x.shape[0], torch.get_num_threads())
    library.turned(
        ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(out.data_ptr()), *map(ctypes.c_int64, sizes)
    )
    return out


def is_free() -> bool:
    """Tell whether a kernel may read and write memory itself: nobody traces, transforms or stands in for tensors."""
    return not (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or forward_ad._current_level >= 0
        or torch._C._len_torch_dispatch_stack()
        or torch._C._functorch.peek_interpreter_stack() is not None
    )


@functools.cache
def load(name: str) -> ctypes.CDLL | None:
    """Compile a kernel of this folder, or take what was compiled before; None where that can't be."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    fits = os.name == "posix" and platform.machine() == "x86_64"
    if compiler is None or not fits or os.environ.get("REGARD_NATIVE") == "0":
        return None
    source = Path(__file__).with_name(f"{name}.c")
    try:
        code = b"".join(part.read_bytes() for part in (source, *sorted(source.parent.glob("*.h"))))
        mark = hashlib.sha256(code + os.fsencode(f"{compiler} {_FLAGS}")).hexdigest()[:16]
        made = _folder() / f"{name}-{mark}.so"
        if not _is_whole(made):
            _compile(compiler, source, made)
        library = ctypes.CDLL(str(made))
        return library if library.usable() else None
    except (OSError, RuntimeError, AttributeError, subprocess.SubprocessError):
        return None


def _folder() -> Path:
    """Give the place of compiled kernels, this user's alone: what lies there is run."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("regard", "native"):
        folder = folder / name
        folder.mkdir(exist_ok=True, mode=0o700)
        found = folder.stat()
        if found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise PermissionError(f"{folder} belongs to others too")
    return folder


def _is_whole(made: Path) -> bool:
    """Tell whether a compiled kernel is there as it was written: half of one would end the process."""
    code = made.read_bytes() if made.exists() else b""
    return hashlib.sha256(code[:-_DIGEST]).digest() == code[-_DIGEST:]


def _compile(compiler: str, source: Path, made: Path) -> None:
    """Compile beside the place and move there, so that two processes never see half of a file.

    The digest of the code stands behind it, where the loader doesn't look.
    """
    with tempfile.TemporaryDirectory(dir=made.parent) as folder:
        fresh = Path(folder) / made.name
        # Threads are those that torch has: linked without OpenMP, a kernel finds torch's, and no second team spins.
        between = str(fresh.with_suffix(".o"))
        for words in (
            [*_FLAGS.split(), "-c", str(source), "-o", between],
            ["-shared", between, "-o", str(fresh), "-lm"],
        ):
            subprocess.run(
                [compiler, *words],
                check=True,
                capture_output=True,
                stdin=subprocess.DEVNULL,
                timeout=_PATIENCE,
            )
        code = fresh.read_bytes()
        fresh.write_bytes(code + hashlib.sha256(code).digest())
        ctypes.CDLL(str(fresh)).usable()
        fresh.replace(made)


def _attend(
    library: ctypes.CDLL, query: Tensor, key: Tensor, value: Tensor, scale: float, causal: bool
) -> tuple[Float[Tensor, "B H T K"], Float[Tensor, "B H T"]]:
    query, key, value = (x.contiguous() for x in (query, key, value))
    batch, heads, length, size = query.shape
    keys, groups = key.shape[2], heads // key.shape[1]
    mixed = torch.empty_like(query)
    assert scale > 0
    assert keys == length or not causal, "a triangle needs as many keys as queries"
    normaliser = torch.empty(batch, heads, length, dtype=torch.float32, device="cpu")
    wide, whole, real = ctypes.c_int64, ctypes.c_void_p, ctypes.c_float
    library.packed_pairs.restype = wide
    packed = torch.empty(library.packed_pairs(wide(keys), wide(size)), dtype=torch.int32, device="cpu")

    def some(b: int, head: int, first: int) -> None:
        failed = library.attend(
            whole(query[b, head].data_ptr()), whole(packed.data_ptr()), whole(mixed[b, head].data_ptr()),
            whole(normaliser[b, head].data_ptr()), wide(keys), wide(size), wide(first),
            wide(min(first + _ROWS, length)), real(scale), ctypes.c_int(causal),
        )  # fmt: skip
        if failed:
            raise MemoryError("no memory for a block of attention")

    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for b in range(batch):
            for head in range(heads):
                if head % groups == 0:
                    near, far = (whole(x[b, head // groups].data_ptr()) for x in (key, value))
                    library.pack(near, far, whole(packed.data_ptr()), wide(keys), wide(size))
                # The last rows see most: they go first, so that no thread is left with a long one at the end.
                list(threads.map(functools.partial(some, b, head), range(0, length, _ROWS)[::-1]))
    return mixed, normaliser
