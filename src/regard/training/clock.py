"""How long a run has taken, how fast it is, and how long it will go on."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Clock"]


class Clock:
    """Measure one session of a run, which may have had others.

    Args:
        step: the step at which this session begins.
        elapsed: seconds of the sessions before.
    """

    def __init__(self, step: int = 0, elapsed: float = 0.0) -> None:
        self._first_step = step
        self._before = elapsed
        self._started = time.monotonic()
        self._tokens, self._seconds = 0, 0.0
        self._longest = 0.0  # evaluation

    def elapsed(self) -> float:
        """Give the seconds of all sessions, evaluations and saves included."""
        return self._before + time.monotonic() - self._started

    @contextmanager
    def step(self, tokens: int) -> Iterator[None]:
        """Count a step's tokens and time towards the rate."""
        began = time.perf_counter()
        yield
        self._tokens += tokens
        self._seconds += time.perf_counter() - began

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Remember how long an evaluation takes."""
        began = time.monotonic()
        yield
        self._longest = max(self._longest, time.monotonic() - began)

    def over(self, minutes: float) -> bool:
        """Tell whether a run must end to keep its limit: the last evaluation and that of the best weights are in it.

        They are taken to last as long as the longest so far, and get 3 % of the limit at most: a short run would
        else learn too little.
        """
        return self.elapsed() + min(2 * self._longest, 0.03 * minutes * 60) >= minutes * 60

    def rate(self) -> float:
        """Give tokens per second of the steps since the last call; NaN if there was none."""
        rate = self._tokens / self._seconds if self._seconds else math.nan
        self._tokens, self._seconds = 0, 0.0
        return rate

    def remaining(self, step: int, *, horizon: int | None, minutes: float | None) -> float | None:
        """Give the seconds to the earlier of the last step and the time limit, None if neither can be told."""
        ends = [] if minutes is None else [minutes * 60 - self.elapsed()]
        if horizon is not None and step > self._first_step:
            per_step = (self.elapsed() - self._before) / (step - self._first_step)
            ends.append((horizon - step) * per_step)
        return max(0.0, min(ends)) if ends else None
