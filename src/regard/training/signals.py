"""Ctrl-C and SIGTERM: the first asks the run to save and stop, the second stops it at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

__all__ = ["StopRequest"]


class StopRequest:
    """Listen for SIGINT and SIGTERM within a `with` block; `requested()` says whether one came.

    A second signal raises KeyboardInterrupt where the program stands. The handlers from before are put back
    at the end. Python hands signals to the main thread only; in any other this listens for nothing.
    """

    def __init__(self) -> None:
        self._requested = False
        self._before: dict[int, Any] = {}

    def requested(self) -> bool:
        """Say whether the run shall save and stop."""
        return self._requested

    def __enter__(self) -> StopRequest:
        self._requested = False
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            # None stands for a handler that wasn't set from Python and can't be put back from it.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._requested:
            raise KeyboardInterrupt
        self._requested = True
