"""The look of a verb's help page: two aligned columns of plain text, like the root page."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from cyclopts.help import PlainFormatter

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

__all__ = ["Columns", "default_text"]

_INDENT, _GAP, _WIDEST_LABEL = 2, 2, 26


class Columns(PlainFormatter):
    """Print a panel of a cyclopts help page: labels to the left, wrapped descriptions to the right."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Print one panel."""
        if not panel.entries:
            return
        rows = [(_label(entry), _description(entry)) for entry in panel.entries]
        left = min(max(len(label) for label, _ in rows), _WIDEST_LABEL)
        column = _INDENT + left + _GAP
        width = max(min(console.width, 100) - column, 20)
        lines = [f"{panel.title}:"] if panel.title else []
        for label, description in rows:
            wrapped = textwrap.wrap(description, width) or [""]
            if len(label) > left:
                lines.append(" " * _INDENT + label)
                label = ""
            lines.append(f"{' ' * _INDENT}{label:{left}}{' ' * _GAP}{wrapped[0]}".rstrip())
            lines += [" " * column + line for line in wrapped[1:]]
        # One newline after each panel sets it apart from the next.
        console.print("\n".join(lines) + "\n", highlight=False, markup=False, soft_wrap=True)


def default_text(value: Any) -> str | None:
    """Write a default for the help page, or None where it would say nothing: an unset value or a flag."""
    if value is None or isinstance(value, bool) or value == () or value == []:
        return None
    if isinstance(value, (list, tuple)):
        return " ".join(str(item) for item in value)
    return str(value) if value != "" else '""'


def _label(entry: HelpEntry) -> str:
    return ", ".join(entry.display_labels_with_metavar)


def _description(entry: HelpEntry) -> str:
    """Join what the docstring says with what the types say."""
    source = getattr(entry.description, "primary_renderable", entry.description)
    parts = [" ".join(str(getattr(source, "plain", "") or "").split())]
    if entry.choices:
        parts.append(f"({', '.join(entry.choices)})")
    if entry.default is not None:
        parts.append(f"[default: {entry.default}]")
    return " ".join(part for part in parts if part)
