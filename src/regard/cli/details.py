"""What a measurement found beside its numbers, as tables: each class, and which was taken for which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regard.cli.show import Output

__all__ = ["show_details"]

_WIDEST_CONFUSION = 12  # labels; a larger table is in the JSON alone, and in the picture of a run


def show_details(out: Output, details: Mapping[str, Any]) -> None:
    """Print texts and numbers a line each, a table of the classes, and the confusion of few enough labels."""
    for name, value in details.items():
        if isinstance(value, (str, int, float)):
            out.line(f"{name}: {value}")
        elif isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            out.line(f"\n{name.replace('_', ' ')}:")
            out.table(value)
    labels = details.get("labels", [])
    if 2 <= len(labels) <= _WIDEST_CONFUSION and "confusion" in details:
        out.line("\ntrue label (rows), answer (columns):")
        rows = zip(labels, details["confusion"], strict=True)
        out.table([{"": label, **dict(zip(labels, counts, strict=True))} for label, counts in rows])
