"""What went wrong, as the page says it: one sentence, with the names that the page knows in place of folders."""

from __future__ import annotations

import re
from pathlib import Path

from regard.errors import RegardError
from regard.serve.house import Missing, Settings, Unkept

__all__ = ["Sentences", "sentences_of"]

_BEFORE = r"(?<![\w./~-])"  # a path begins here, and goes on nowhere before
_FLAG = re.compile(r"; [^;'\"]*(?<!\S)--[a-z][^;'\"]*$")  # advice for the command line, which a page hasn't


class Sentences:
    """Say errors and other words without the folders of this machine: a run's path becomes its name.

    Args:
        folders: what is cut off the paths below them.
    """

    def __init__(self, *folders: Path) -> None:
        found = {str(way) for one in folders for way in (one, one.absolute(), one.resolve())} - {".", "/"}
        ways = sorted(found, key=len, reverse=True)
        whole = [way for way in ways if way.startswith("/")]
        below = "|".join(re.escape(way) for way in ways)
        alone = "|".join(re.escape(way) for way in whole)
        text = rf"{_BEFORE}(?:(?:{below})/+|(?P<alone>{alone})(?![\w/-]))"
        self._paths = re.compile(text) if whole else None

    def __call__(self, error: BaseException) -> str:
        """Say in one sentence what went wrong; what isn't the client's fault is not told in detail."""
        said = " ".join(str(error).split())
        if isinstance(error, RegardError):
            return self.plain(_FLAG.sub(".", said))
        if isinstance(error, (Missing, Unkept)):
            return said
        if isinstance(error, MemoryError):
            return "there is too little memory for this."
        return f"this failed on the server ({type(error).__name__}); its log says more."

    def plain(self, text: str) -> str:
        """Put names in place of paths."""
        return text if self._paths is None else self._paths.sub(_named, text)


def _named(found: re.Match[str]) -> str:
    return Path(found["alone"]).name if found["alone"] else ""


def sentences_of(settings: Settings) -> Sentences:
    """Give the sentences of a server: without the folders of its runs, its data and its own."""
    folders = (settings.runs, settings.data, settings.home, settings.uploads)
    return Sentences(*(one for one in folders if one is not None))
