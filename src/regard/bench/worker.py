"""A side of a comparison in a process of its own, so that its memory and its start are its own.

    with Worker("ours bf16", "regard.bench.gpt2:Ours", {"folder": "...", "precision": "bf16"}) as side:
        side.ask("check")     # {"logits": "...", ...}
        side.ask("run")       # {"seconds": 1.3, "peak_mib": 512.0, ...}

The process makes the object that is named, `load_s` and then waits: it answers a line of its standard input, the name
of one of the object's methods, with a line of JSON. It sleeps while others run. What libraries print goes to a file,
of which the end is shown where the process fails.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from regard.errors import DependencyError, RegardError

_QUIET = {
    "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false",
    "PYTHONWARNINGS": "ignore", "CT2_VERBOSE": "-2",
}  # fmt: skip


class SideError(RegardError):
    """Report a side of a comparison that ended before it had answered."""

    exit_code = 1


class Worker:
    """Hold one side's process.

    Args:
        label: the side's name in the table.
        target: "module:Class" of what the process makes.
        arguments: what the class is called with; JSON.
        threads: how many it computes with.

    Raises:
        DependencyError: a library that it needs is not installed.
        SideError: the process failed; with the last line of what it printed.
    """

    def __init__(self, label: str, target: str, arguments: Mapping[str, Any], *, threads: int) -> None:
        self.label = label
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        words = [sys.executable, "-P", "-m", "regard.bench.worker", target, json.dumps(dict(arguments))]
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
            env=environment(threads),
        )  # fmt: skip
        self.ready = self._answer()

    def ask(self, method: str) -> dict[str, Any]:
        """Call a method there and give what it returns, with `seconds` and `peak_mib` beside."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended, and the answer says why
            self._process.stdin.write(method + "\n")
            self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        found: dict[str, Any] = json.loads(line) if line else {"error": self._last_line()}
        if (missing := found.get("missing")) is not None:
            self.close()
            raise DependencyError(f"{missing} is not installed")
        if (said := found.get("error")) is not None:
            self.close()
            raise SideError(f"{self.label}: {said}")
        return found

    def _last_line(self) -> str:
        self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else f"the process ended with {self._process.returncode}"


def environment(threads: int | None, paths: Iterable[Path] = ()) -> dict[str, str]:
    """Give the environment of a side's process: this one's, its threads, and nothing that shows progress.

    `paths` is where it finds modules before anywhere else; it always finds this package.
    """
    package = Path(__file__).resolve().parents[2]
    path = [*map(str, paths), str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
    counts = {} if threads is None else dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    # How long our own command line lets threads spin is no setting of the others. Packages that were installed are
    # compiled; what stands in a project's folder shall be too after the first time.
    left = {"GOMP_SPINCOUNT", "PYTHONDONTWRITEBYTECODE"}
    kept = {name: value for name, value in os.environ.items() if name not in left}
    return {**kept, **_QUIET, **counts, "PYTHONPATH": os.pathsep.join(path)}


def peak_mib() -> float | None:
    """Give this process's largest resident size in MiB; None where the system doesn't tell.

    The kernel's count of this program alone: what `getrusage` gives includes the program that started it.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def main(words: list[str]) -> None:
    """Make what is named, and answer until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer

    def say(found: Mapping[str, Any]) -> None:
        answers.write(json.dumps(found) + "\n")
        answers.flush()

    try:
        module, _, name = words[0].partition(":")
        began = time.perf_counter()
        side = getattr(importlib.import_module(module), name)(**json.loads(words[1]))
        say({"load_s": time.perf_counter() - began, "peak_mib": peak_mib()})
        for line in sys.stdin:
            method = getattr(side, line.strip())
            began = time.perf_counter()
            found = method()
            seconds = time.perf_counter() - began
            say({"seconds": seconds, "peak_mib": peak_mib(), **(found or {})})
    except ModuleNotFoundError as error:
        say({"missing": (error.name or "a library").partition(".")[0]})
    except RegardError as error:
        say({"error": str(error)})
    except Exception as error:
        import traceback

        traceback.print_exc()
        said = (str(error).strip().splitlines() or [""])[-1]
        say({"error": f"{type(error).__name__}: {said}".rstrip(": ")})


if __name__ == "__main__":
    main(sys.argv[1:])
