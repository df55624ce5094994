"""How long a run has taken, how fast it is, and how long it will go on."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Clock"]

_MOST_FOR_THE_LAST = 0.03
"""Of a limit, at most, where nothing is known of what comes after training: a short run would else learn too little."""

_LEAST_FOR_STEPS = 0.3
"""Of what is left of a limit when training begins: what comes after must then be cut off, or takes longer."""


class Clock:
    """Measure one session of a run, which may have had others.

    A run that is to be over, with all that comes before and after training, when its minutes are, says when the session
    began and what comes after. Then the seconds of all sessions are those of whole processes; else of training alone.

    Args:
        began: when the session began, as `now` tells it; None: when training does.
        ending: gives the seconds that what comes after training will take, from those of the latest evaluation (None
            before the first); None: an evaluation of the best weights, which takes as long as the longest so far.
        now: tells the time, in seconds.
    """

    def __init__(
        self, *, began: float | None = None, ending: Callable[[float | None], float] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._now, self._began, self._ending = now, began, ending
        self._before, self._first_step = 0.0, 0
        self._started = now() if began is None else began
        self._trains_since = now()
        self._tokens, self._seconds = 0, 0.0
        self._steps: deque[float] = deque(maxlen=5)
        self._latest: float | None = None  # evaluation
        self._longest = self._saving = self._ready = 0.0

    def start(self, step: int, elapsed: float) -> None:
        """Begin to train at a step, after so many seconds of sessions before."""
        self._first_step, self._before = step, elapsed
        self._trains_since = self._now()
        self._started = self._trains_since if self._began is None else self._began
        self._ready = self.elapsed()

    def elapsed(self) -> float:
        """Give the seconds of all sessions, evaluations and saves included."""
        return self._before + self._now() - self._started

    @contextmanager
    def step(self, tokens: int) -> Iterator[None]:
        """Count a step's tokens and time towards the rate."""
        began = self._now()
        yield
        self._steps.append(self._now() - began)
        self._tokens += tokens
        self._seconds += self._steps[-1]

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Remember how long an evaluation takes."""
        began = self._now()
        yield
        self._latest = self._now() - began
        self._longest = max(self._longest, self._latest)

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Remember how long it takes to save the state."""
        began = self._now()
        yield
        self._saving = self._now() - began

    def end(self, minutes: float) -> float:
        """Give how many seconds must have passed when the last step ends, for the run to keep its limit."""
        limit = minutes * 60
        if self._ending is None:
            return limit - min(2 * self._longest, _MOST_FOR_THE_LAST * limit)
        least = self._ready + _LEAST_FOR_STEPS * (limit - self._ready)
        return max(least, limit - (self._latest or 0.0) - self._saving - self._ending(self._latest))

    def over(self, minutes: float) -> bool:
        """Tell whether the steps are over. A step is begun where most of it is likely to be within the limit."""
        half = (
            0.0 if self._ending is None or not self._steps else sorted(self._steps)[len(self._steps) // 2] / 2
        )
        return self.elapsed() + half >= self.end(minutes)

    def share(self, minutes: float, *, since: float) -> float:
        """Give the part, from 0 to 1, that has passed of the time for steps; they began after `since` seconds."""
        room = self.end(minutes) - since
        return 1.0 if room <= 0 else min(1.0, max(0.0, (self.elapsed() - since) / room))

    def rate(self) -> float:
        """Give tokens per second of the steps since the last call; NaN if there was none."""
        rate = self._tokens / self._seconds if self._seconds else math.nan
        self._tokens, self._seconds = 0, 0.0
        return rate

    def remaining(self, step: int, *, horizon: int | None, minutes: float | None) -> float | None:
        """Give the seconds to the earlier of the last step and the time limit, None if neither can be told."""
        ends = [] if minutes is None else [minutes * 60 - self.elapsed()]
        if horizon is not None and step > self._first_step:
            per_step = (self._now() - self._trains_since) / (step - self._first_step)
            ends.append((horizon - step) * per_step)
        return max(0.0, min(ends)) if ends else None
