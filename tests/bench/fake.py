"""A side that computes nothing, for tests of the processes around it."""

from __future__ import annotations

import sys
from typing import Any


class Side:
    """Answer with what it was given; without standard streams of its own."""

    def __init__(self, *, threads: int = 1, logit: float = 1.0, fault: str = "") -> None:
        self.threads, self.logit, self.fault = threads, logit, fault
        if fault == "library":
            import a_library_that_is_not_installed  # noqa: F401
        if fault == "start":
            raise ValueError("no such weights")

    def check(self) -> dict[str, Any]:
        """Give one logit."""
        print("what a library prints is no answer")
        return {"logits": [[self.logit, 3.0]]}

    def run(self) -> dict[str, Any]:
        """Give a count."""
        if self.fault == "run":
            sys.exit("it broke")
        return {"tokens": 12}
