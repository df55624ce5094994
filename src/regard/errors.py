"""The errors a user of Regard may see.

    RegardError                 everything below: one clear sentence, never a wall of text
    ├── ConfigError             a setting that can't be, or that would be ignored
    ├── DataError               a file, a row, a label or a text that can't be used
    ├── CheckpointError         a model directory that is missing, broken or unsafe
    ├── DependencyError         an optional library that is not installed
    └── TrainingError           a run that must stop: the input was fine, the numbers were not

A message says what was given, what is allowed and what to do, on one line. The command line prints it after
`regard: ` and exits with the error's `exit_code`: 2 where the input was wrong, 1 where the work failed. What
a caller of ours did wrong inside the library is an `assert`, not one of these.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DependencyError",
    "RegardError",
    "TrainingError",
    "suggest",
]


class RegardError(Exception):
    """Be the parent of every error that Regard raises for its users; catch this one to catch them all."""

    exit_code: int = 2


class ConfigError(RegardError):
    """Report a setting that can't be, that contradicts another, or that would have no effect."""


class DataError(RegardError):
    """Report a file, row, label or text that can't be used, with its `path:line:` where there is one."""


class CheckpointError(RegardError):
    """Report a model directory or weight file that is missing, damaged, unsafe or of another architecture."""


class DependencyError(RegardError):
    """Report a library that this call needs and that is not installed, and how to install it."""


class TrainingError(RegardError):
    """Report a run that must stop although its input was valid, as after repeated infinite losses."""

    exit_code: int = 1


def suggest(name: str, choices: Iterable[str]) -> str:
    """Name the nearest allowed word for one that is not known.

    Letter case is ignored. Returns `did you mean 'x'?`, or an empty string where nothing is near enough to be
    a help; join it to a message with a space and strip the end.
    """
    import difflib

    by_folded: dict[str, str] = {}
    for choice in choices:
        by_folded.setdefault(choice.casefold(), choice)
    near = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.6)
    return f"did you mean {by_folded[near[0]]!r}?" if near else ""
