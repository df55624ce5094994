"""A run as it goes on: its journal, its states and its process's words, told as they are written.

The server watches the files, so that no client has to ask again. "started" begins the story, and begins it anew where
a run was resumed: what is told after it is all that counts. "ended" closes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from regard.serve.events import encode
from regard.serve.runs_folder import JOURNAL, evaluation, numbered_lines, point, summary
from regard.serve.runs_started import SAID, Started, last_lines
from regard.serve.sentences import Sentences

__all__ = ["Story", "follow"]

_EVERY = 0.25  # seconds
_BLOCK = 1000  # lines that are told at once
_MANY = 8 * 2**20  # bytes of a journal of which all is told
_BUSY = ("running", "preparing")

Find = Callable[[], tuple[Path | None, Started | None]]


class Story:
    """Tell a run's events; each look gives those that are new.

    Args:
        name: the run's.
        find: gives its folder and its process; either may be missing yet.
        say: puts what is wrong with it in a sentence.

    Attributes:
        has_ended: whether all was told.
        is_behind: whether there is more to tell at once.
    """

    def __init__(self, name: str, find: Find, say: Sentences | None = None) -> None:
        self.name, self.find, self.say = name, find, say or Sentences()
        self.has_ended = self.is_behind = False
        self._has_started = False
        self._journal: tuple[int, int] | None = None  # which file
        self._place = self._count = 0
        self._every = 1
        self._saved: set[int] = set()
        self._warned = 0
        self._last_state: dict[str, Any] | None = None

    def look(self) -> list[bytes]:
        """Give what is new."""
        folder, started = self.find()
        # The state first: what the journal says after the end is all that it will ever say.
        now = summary(self.name, folder, started, self.say)
        log = "" if started is None else self.say.plain(last_lines(started.log))
        told = self._state(now, log)
        is_run = folder is not None and now["state"] != "preparing"
        if folder is not None and is_run:
            with suppress(OSError):  # the file has just gone, or can't be read: the state says so
                told += self._measurements(folder, now)
            told += [
                encode("saved", {"step": step}) for step in now["checkpoints"] if step not in self._saved
            ]
            self._saved |= set(now["checkpoints"])
        told += self._warnings(log)
        if now["state"] not in _BUSY and not self.is_behind:
            told.append(encode("ended", now))
            self.has_ended = True
        return told

    def _state(self, now: dict[str, Any], log: str) -> list[bytes]:
        names = ("state", "stopping", "stoppable", "resumable", "problem", "steps", "minutes")
        state = {name: now[name] for name in names}
        if now["state"] == "preparing":
            state["log"] = log
        if state == self._last_state:
            return []
        self._last_state = state
        return [encode("state", state)]

    def _measurements(self, folder: Path, now: dict[str, Any]) -> list[bytes]:
        path = folder / JOURNAL
        found: tuple[int, int] | None = None
        if path.is_file() and not path.is_symlink():
            about = path.stat()
            found = (about.st_dev, about.st_ino)
        told = []
        is_other = self._journal is not None and (found != self._journal or about.st_size < self._place)
        if not self._has_started or is_other:
            self._place = self._count = 0
            self._has_started, self._saved = True, set()
            size = 0 if found is None else about.st_size
            self._every = 1 + size // _MANY
            told.append(encode("started", {name: now[name] for name in ("name", "task", "steps", "minutes")}))
        self._journal, self.is_behind = found, False
        if found is None:
            return told
        for number, (line, place) in enumerate(numbered_lines(path, self._place), 1):
            self._place = place
            self._count += 1
            if line is not None and line["kind"] == "valid":
                told.append(encode("evaluated", evaluation(line)))
            elif line is not None and (self._every == 1 or self._count % self._every == 0):
                told.append(encode("stepped", point(line)))
            if number == _BLOCK:
                self.is_behind = True
                return told
        self._every = 1  # what comes from now on comes one by one
        return told

    def _warnings(self, log: str) -> list[bytes]:
        said = [line.removeprefix(SAID) for line in log.split("\n") if line.startswith(SAID)]
        new = said[self._warned :]
        self._warned = len(said)
        return [encode("warned", {"text": text}) for text in new]


async def follow(story: Story) -> AsyncIterator[bytes]:
    """Give a story's events as they come, until it ends."""
    while True:
        for event in await asyncio.to_thread(story.look):
            yield event
        if story.has_ended:
            return
        if not story.is_behind:
            await asyncio.sleep(_EVERY)
