"""Names that come from a client and become a file's or a folder's: one safe segment below one root, or refused."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from regard.errors import ConfigError
from regard.serve.house import Missing

__all__ = ["check_new", "find", "wrong_with"]

MOST_BYTES = 200
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # controls; marks of direction and of no width; lines


def wrong_with(name: str) -> str:
    """Say what forbids a name; nothing where it may be one."""
    if not name or name != name.strip() or name.startswith("."):
        return "is empty, begins with a dot, or has a space at an end"
    if "/" in name or "\\" in name:
        return "holds a slash"
    if any(unicodedata.category(character) in _UNSEEN for character in name):
        return "holds a character that can't be seen"
    if len(name.encode()) > MOST_BYTES:
        return f"is longer than {MOST_BYTES} bytes"
    return ""


def check_new(name: str, what: str) -> str:
    """Give a name that something new shall have.

    Raises:
        ConfigError: it can't be one.
    """
    if wrong := wrong_with(name):
        raise ConfigError(f"the {what}'s name {wrong}; give it another.")
    return name


def find(root: Path, name: str, what: str) -> Path:
    """Find what has a name below a root; links are followed, and what they lead to must lie there too.

    Raises:
        Missing: there is nothing of this name, or it lies elsewhere.
    """
    if not wrong_with(name):
        try:
            base, path = root.resolve(strict=True), (root / name).resolve(strict=True)
        except (OSError, RuntimeError):  # not there, or links in a ring
            pass
        else:
            if path != base and path.is_relative_to(base):
                return path
    raise Missing(f"there is no {what} of this name.")
