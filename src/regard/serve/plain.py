"""Answers in JSON that nothing can break: no NaN, and no half of a character in a name that a file gave."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import JSONResponse

from regard.serve.events import finite

__all__ = ["Plain"]


class Plain(JSONResponse):
    """Answer with JSON in ASCII; numbers that it hasn't are null."""

    def render(self, content: Any) -> bytes:
        """Write it."""
        return json.dumps(finite(content), separators=(",", ":")).encode()
