"""Processes that outlive this one: started in a session of their own, and known again by number and time of birth."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["born", "send", "spawn"]


def born(pid: int) -> str | None:
    """Give what tells a living process from a later one of the same number; None where none lives."""
    if pid <= 0:
        return None
    try:
        # "pid (name) state ..."; the name may hold anything, spaces and brackets too.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return None if fields[0] in "ZX" else f"{boot}:{fields[19]}"
    except (OSError, IndexError):
        return None if Path("/proc/self/stat").exists() else _asked(pid)


def _asked(pid: int) -> str | None:
    """Ask `ps`, where there is no /proc."""
    try:
        done = subprocess.run(
            ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, timeout=10, check=False
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    state, _, began = done.stdout.strip().partition(" ")
    return " ".join(began.split()) or None if state and not state.startswith("Z") else None


def spawn(
    command: Sequence[str], *, log: Path, folder: Path, on_end: Callable[[int, int], None]
) -> tuple[int, str | None]:
    """Start a process in a session of its own, whose output goes to a file; give its number and birth.

    It goes on when this one ends. While this one lives, a thread waits for it and calls `on_end` with its number and
    exit code.

    Raises:
        OSError: it can't be started.
    """
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=folder,
            env=environment, start_new_session=True,
        )  # fmt: skip
    birth = born(process.pid)

    def wait() -> None:
        on_end(process.pid, process.wait())

    threading.Thread(target=wait, name=f"wait-{process.pid}", daemon=True).start()
    return process.pid, birth


def send(pid: int, birth: str, number: signal.Signals) -> bool:
    """Send a signal to the process that was born so, and to no other; tell whether it was there."""
    if not hasattr(os, "pidfd_open"):
        if born(pid) != birth:
            return False
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        return True
    try:
        held = os.pidfd_open(pid)  # from here on the number can't become another's
    except OSError:
        return False
    try:
        if born(pid) != birth:
            return False
        signal.pidfd_send_signal(held, number)
        return True
    except OSError:
        return False
    finally:
        os.close(held)
