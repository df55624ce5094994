"""What the machine can do at most: how fast its memory is read, and how many sums it takes a second."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

from regard.bench.worker import Worker

SECONDS = 0.7
"""How long each of the measurements repeats its work; the quickest repeat counts."""


class Machine:
    """Measure the machine, in a process of its own.

    Args:
        threads: how many to measure with.
        tiny: whether a small product and a small copy are enough.
    """

    def __init__(self, threads: int, tiny: bool = False) -> None:
        import torch

        torch.set_num_threads(threads)
        # Half a GiB is beyond every cache.
        self.numbers = torch.ones(2**18 if tiny else 2**27)
        self.width = 128 if tiny else 2048

    def run(self) -> dict[str, float]:
        """Give bytes a second read (the best of a sum, a product with a vector and a copy), and FLOP a second."""
        import torch

        with torch.inference_mode():
            size = self.numbers.numel() * 4
            square = self.numbers.view(-1, 4096 if self.numbers.numel() >= 2**24 else 64)
            vector, target = torch.ones(square.shape[1]), torch.empty_like(self.numbers)
            reads = [
                size / _best(lambda: self.numbers.sum()),
                size / _best(lambda: square @ vector),
                2 * size / _best(lambda: target.copy_(self.numbers)),  # read once, written once
            ]
            found = {"bandwidth": max(reads)}
            for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
                x = torch.randn(self.width, self.width).to(dtype)
                found[name] = 2 * self.width**3 / _best(lambda x=x: x @ x)  # type: ignore[misc]
        return found


@functools.cache
def measured(threads: int, tiny: bool = False) -> dict[str, float]:
    """Give this machine's `bandwidth` in bytes a second and its `fp32` and `bf16` FLOP a second; measured once."""
    with Worker(
        "machine", "regard.bench.machine:Machine", {"threads": threads, "tiny": tiny}, threads=threads
    ) as one:
        found = one.ask("run")
    return {name: found[name] for name in ("bandwidth", "fp32", "bf16")}


def _best(work: Callable[[], Any]) -> float:
    work()
    best, end = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        begin = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - begin)
    return best
