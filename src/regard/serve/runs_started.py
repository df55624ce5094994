"""The trainings that were started from the page: processes of their own, which go on when the server ends.

Beside the page's database, `started/NAME.json` says which process it is and `started/NAME.log` has what it wrote, so
that a server that is started again knows them.
"""

from __future__ import annotations

import dataclasses
import json
import re
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any

from regard.checkpoints.files import read_json, write_json_atomic
from regard.errors import ConfigError, RegardError
from regard.serve.house import Settings
from regard.serve.names import wrong_with
from regard.serve.process import born, send, spawn

__all__ = ["LOCK", "SAID", "Started", "Starter", "last_lines"]

SAID = "regard: "
"""Before each complaint of the command line."""
_awaited: set[tuple[int, str]] = set()  # the processes for which a thread of ours waits
LOCK = RLock()
"""Held while a training is chosen a name, started, or told to stop."""

_FORGOTTEN_AFTER = 24 * 3600.0  # seconds, for starts that left no folder
_LOG_BYTES, _LOG_LINES = 16_384, 60
_CONTROLS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_UNHURT = (0, 130, -signal.SIGINT, -signal.SIGTERM, -signal.SIGKILL)


@dataclass(frozen=True)
class Started:
    """Hold what is known of a process.

    Attributes:
        task: what it learns.
        pid, birth: which process it is.
        when: it was started, in seconds since 1970.
        log: the file with what it wrote.
        asked: whether it was asked to stop.
        code: what it ended with, where this was seen.
    """

    task: str
    pid: int
    birth: str
    when: float
    log: Path
    asked: bool = False
    code: int | None = None

    def is_alive(self) -> bool:
        """Tell whether it goes on, or has just ended and its code is about to be noted."""
        is_awaited = (self.pid, self.birth) in _awaited
        return self.code is None and (is_awaited or born(self.pid) == self.birth)

    def complaint(self) -> str | None:
        """Give the last sentence of a process that failed; None where it did not, or its end was not seen."""
        if self.code is None or self.code in _UNHURT or self.asked:
            return None
        return self.last_said() or f"it ended with code {self.code}."

    def last_said(self) -> str | None:
        """Give the last line that it wrote as a complaint; None where there is none."""
        said = [line for line in last_lines(self.log).split("\n") if line.startswith(SAID)]
        return said[-1].removeprefix(SAID) if said else None


def last_lines(log: Path) -> str:
    """Give what was written last, without what a terminal would obey."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _LOG_BYTES))
            text = file.read(_LOG_BYTES).decode(errors="replace")
    except OSError:
        return ""
    text = _CONTROLS.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    return "\n".join(text.split("\n")[-_LOG_LINES:]).strip("\n")


class Starter:
    """Start, stop and know trainings.

    Args:
        settings: says where the runs and the server's own folder are, and how many may be at work at once.
    """

    def __init__(self, settings: Settings) -> None:
        self.runs, self.folder = settings.runs, settings.home / "started"
        self.most = settings.most_trainings

    def known(self, name: str) -> Started | None:
        """Give what is known of a run's process; None where it was not started here."""
        if wrong_with(name):
            return None
        try:
            record = read_json(self.folder / f"{name}.json")
            values = {field: record[field] for field in ("task", "pid", "birth", "when", "asked", "code")}
            found = Started(**values, log=self.folder / f"{name}.log")
        except (RegardError, OSError, ValueError, TypeError, KeyError):
            return None
        numbers = type(found.pid) is int and isinstance(found.when, (int, float))
        return found if numbers and isinstance(found.birth, str) and isinstance(found.task, str) else None

    def names(self) -> list[str]:
        """List the runs that were started here, but for those that failed without a trace long ago."""
        found = []
        for path in sorted(self.folder.glob("*.json")):
            started = self.known(path.stem)
            if started is None:
                continue
            is_old = time.time() - started.when > _FORGOTTEN_AFTER
            if (self.runs / path.stem).is_dir() or not is_old or started.is_alive():
                found.append(path.stem)
        return found

    def alive(self) -> list[str]:
        """List those that go on."""
        return [name for name in self.names() if (one := self.known(name)) is not None and one.is_alive()]

    def start(self, name: str, task: str, words: Sequence[str]) -> bool:
        """Run `regard` with these words; tell whether it was started, or there are as many as may be.

        Raises:
            ConfigError: it goes on already, or nothing can be started.
        """
        with LOCK:
            alive = self.alive()
            if name in alive:
                raise ConfigError(f"{name!r} is at work already.")
            if len(alive) >= self.most:
                return False
            log = self.folder / f"{name}.log"
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                self.runs.mkdir(parents=True, exist_ok=True)
                # -P: nothing is imported from the folder in which it runs.
                command = [sys.executable, "-P", "-m", "regard", *words]
                pid, birth = spawn(
                    command, log=log, folder=self.runs, on_end=lambda pid, code: self._ended(name, pid, code)
                )
            except OSError as error:
                raise ConfigError(f"nothing can be started: {error.strerror or error}.") from None
            # What is gone already was never born: its end is noted by the thread that waits.
            _awaited.add((pid, birth or ""))
            self._write(name, Started(task, pid, birth or "", time.time(), log))
        return True

    def stop(self, name: str, *, at_once: bool = False) -> bool:
        """Ask a training to save and stop, or end it at once; tell whether it was there.

        To be asked a second time would make it end at once. So it isn't, except where it has nothing to save yet.
        """
        with LOCK:
            started = self.known(name)
            if started is None or not started.is_alive():
                return False
            if started.asked and not at_once and (self.runs / name / "regard.json").is_file():
                return True
            self._write(name, dataclasses.replace(started, asked=True))
            return send(started.pid, started.birth, signal.SIGKILL if at_once else signal.SIGINT)

    def _ended(self, name: str, pid: int, code: int) -> None:
        with LOCK:
            started = self.known(name)
            if started is not None and started.pid == pid and started.code is None:
                self._write(name, dataclasses.replace(started, code=code))
            _awaited.difference_update([one for one in _awaited if one[0] == pid])

    def _write(self, name: str, started: Started) -> None:
        values: dict[str, Any] = {**dataclasses.asdict(started)}
        del values["log"]
        try:
            write_json_atomic(self.folder / f"{name}.json", json.loads(json.dumps(values)))
        except (OSError, RegardError):  # the disk is full; the process goes on, only less is known of it
            pass
