"""The results that a claim has on the disk, read again: what shows them needs nothing of what makes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from regard.errors import DataError

__all__ = ["COMMITTED", "read_result"]

COMMITTED = Path(__file__).parent / "results"
"""The project's own results, of laptop size."""

_NEEDED = (
    "id",
    "question",
    "verdict",
    "status",
    "effect",
    "interval",
    "seeds",
    "command",
    "commit",
    "size",
    "figure",
)


def read_result(name: str, folder: Path) -> dict[str, Any] | None:
    """Read the result of a claim below a folder; None where there is none.

    Raises:
        DataError: there is a file that holds something else.
    """
    path = folder / name / "result.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it holds no JSON"
        raise DataError(f"{path} can't be read: {why}; remove it, and run {name} again.") from None
    if not isinstance(found, dict) or found.get("id") != name or any(key not in found for key in _NEEDED):
        raise DataError(f"{path} is no result of {name}; remove it, and run {name} again.")
    return found
