"""What every comparison shares: taking turns, medians, a ratio of which more is better, and the evidence.

    figures = alternate({"ours": timed(ours), "plain torch": timed(plain)}, rounds=options.rounds)
    return summarize("train-char", figures, unit="s", better="less", aims={"plain torch": 8.0}, options=options)

A side is a function without arguments that returns its own figure.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from regard.errors import CheckpointError, ConfigError, DataError

Report = Callable[[str], None]
SOURCE = Path(__file__).resolve().parents[2]
"""The folder that holds the package; other processes find it there."""


def silent(line: str) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Options:
    """Say how a comparison is run.

    Attributes:
        rounds: how often each side runs.
        seed: of weights, data and prompts.
        threads: how many every side computes with.
        work: the folder for the models that are compared, made where they aren't there.
        tiny: sizes for a test; the figures mean nothing.
        precision: of our side, in place of the comparison's own.
        settings: the comparison's own settings.
        report: is told, line by line, how it goes.
    """

    rounds: int = 3
    seed: int = 0
    threads: int = 1
    work: Path = Path("bench-models")
    tiny: bool = False
    precision: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    report: Report = silent


def timed(work: Callable[[], Any]) -> Callable[[], float]:
    """Turn a piece of work into a measurement of the seconds that it takes."""

    def measure() -> float:
        begin = time.perf_counter()
        work()
        return time.perf_counter() - begin

    return measure


def alternate(
    sides: Mapping[str, Callable[[], float]],
    *,
    rounds: int = 3,
    warmup: int = 0,
    report: Report = silent,
) -> dict[str, list[float]]:
    """Measure every side once a round, so that whatever else the machine does falls on all alike.

    Each side returns its own figure, a time or a rate. Every second round goes in reverse order. `warmup`
    rounds are run and forgotten.

    Raises:
        ConfigError: fewer than one round.
    """
    if rounds < 1:
        raise ConfigError(f"--rounds {rounds} measures nothing; give at least 1.")
    figures: dict[str, list[float]] = {name: [] for name in sides}
    for k in range(-warmup, rounds):
        for name in list(sides) if k % 2 == 0 else list(sides)[::-1]:
            figure = float(sides[name]())
            label = "warm-up" if k < 0 else f"{k + 1}/{rounds}"
            report(f"  {label}  {name}: {figure:.4g}")
            if k >= 0:
                figures[name].append(figure)
    return figures


def summarize(
    name: str,
    figures: Mapping[str, Sequence[float]],
    *,
    unit: str,
    better: Literal["less", "more"],
    options: Options,
    aims: Mapping[str, float] | None = None,
    goal: float | None = None,
    libraries: Iterable[str] = (),
    ours: str = "ours",
    beside: Iterable[str] = (),
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Make the result of a comparison from the figures of each side.

    `aims` are a comparison's (see registry.py). `against` has, for each peer aimed at, how many `times` as good our
    median is and its `aim`; `absent` has the aims whose peers took no part. `ratio` is the least of times / aim: where
    it reaches `target`, 1, every aim is met that could be tried; it is null where none could. Without aims it compares
    with `goal`, the figure aimed at, and without that with the best peer, which sets no target. `ours` is the name of
    our side, `beside` are sides that are no peers, such as ours in another precision. `libraries` adds to the versions
    that are recorded; `more` adds figures of its own, such as the loss that was reached.
    """
    medians = {side: statistics.median(values) for side, values in figures.items() if values}
    own = medians.pop(ours)
    peers = {side: figure for side, figure in medians.items() if side not in set(beside)}
    against: dict[str, dict[str, float]] = {}
    absent: dict[str, float] = {}
    for aimed, aim in (aims or {}).items():
        met = {side: figure for side, figure in peers.items() if f"{side} ".startswith(f"{aimed} ")}
        best = best_side(met, better)
        times = None if best is None else _times(own, met[best], better)
        if best is None or times is None:
            absent[aimed] = aim
        else:
            against[best] = {"times": times, "aim": aim}
    target = 1.0 if aims or goal is not None else None
    if aims:
        ratio = min((one["times"] / one["aim"] for one in against.values()), default=None)
    else:
        best = best_side(peers, better)
        other = goal if goal is not None or best is None else peers[best]
        ratio = None if other is None else _times(own, other, better)
    return {
        "name": name,
        "ours": own,
        "peers": peers,
        "against": against,
        **({"absent": absent} if absent else {}),
        "ratio": ratio,
        "target": target,
        "unit": unit,
        "better": better,
        "runs": {side: list(values) for side, values in figures.items()},
        "machine": machine(),
        "versions": versions(libraries),
        "command": command(name, options),
        "commit": commit(),
        "seed": options.seed,
        **({} if goal is None else {"goal": goal}),
        **(more or {}),
    }


def best_side(figures: Mapping[str, float], better: str) -> str | None:
    """Name the side with the best figure; None where there is no side."""
    if not figures:
        return None
    return (min if better == "less" else max)(figures, key=figures.__getitem__)


def _times(own: float, other: float, better: str) -> float | None:
    """Say how many times as good as another figure ours is; None where that can't be said."""
    if own <= 0 or other <= 0:
        return None
    found = other / own if better == "less" else own / other
    return found if math.isfinite(found) else None


def is_met(result: Mapping[str, Any]) -> bool | None:
    """Tell whether a result reaches its target; None where it has none, or nothing to compare with."""
    ratio, target = result.get("ratio"), result.get("target")
    return None if ratio is None or target is None else bool(ratio >= target)


def results_folder() -> Path:
    """Give where results are kept: benchmarks/results of the repository that one stands in, else the user's cache."""
    if Path("benchmarks", "results").is_dir() and Path("src", "regard", "bench").is_dir():
        return Path("benchmarks", "results")
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "regard" / "bench"


def write_result(result: Mapping[str, Any], folder: Path) -> Path:
    """Write a result to its file, whole or not at all.

    Raises:
        CheckpointError: the folder can't be written.
    """
    path = folder / f"{result['name']}.json"
    partial = path.with_suffix(".partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise CheckpointError(f"{path} can't be written: {error.strerror or error}") from error
    return path


def read_result(name: str, folder: Path) -> dict[str, Any] | None:
    """Read the last result of a comparison; None where there is none that can be read."""
    try:
        found = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("name") == name else None


def run_process(
    words: Sequence[str],
    *,
    threads: int | None = None,
    paths: Iterable[Path] = (),
    folder: Path | None = None,
) -> tuple[float, str]:
    """Run a process; gives the seconds from its start to its end, and what it printed.

    Raises:
        SideError: it failed; with the last line of what it said.
    """
    from regard.bench.worker import SideError, environment

    given = environment(threads, paths)
    begin = time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True, env=given, cwd=folder, check=False)
    seconds = time.perf_counter() - begin
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise SideError(lines[-1] if lines else f"{words[0]} ended with {done.returncode}")
    return seconds, done.stdout


def regard_json(*words: object, threads: int | None = None) -> tuple[float, dict[str, Any]]:
    """Run a verb as a process of its own; gives its seconds and its JSON object."""
    line = [sys.executable, "-P", "-m", "regard", *map(str, words), "--json"]
    seconds, printed = run_process(line, threads=threads)
    found: dict[str, Any] = json.loads(printed)
    return seconds, found


def put_between(path: Path, marks: tuple[str, str], text: str) -> bool:
    """Put a text between two marks of a document; gives whether that changed anything.

    Raises:
        DataError: the document can't be read or written, or has no marks.
    """
    try:
        whole = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} can't be read: {getattr(error, 'strerror', None) or error}") from error
    before, begin, rest = whole.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not begin or not end:
        raise DataError(f"{path} has no place for the results: a line {marks[0]}, and one {marks[1]}.")
    made = f"{before}{begin}\n\n{text}\n\n{end}{after}"
    if made == whole:
        return False
    try:
        path.write_text(made, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path} can't be written: {error.strerror or error}") from error
    return True


def machine() -> dict[str, Any]:
    """Describe the machine by what a timing depends on."""
    found: dict[str, Any] = {"processor": _processor(), "cores": cores(), "system": platform.system()}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory_gib"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    return found


def is_installed(library: str) -> bool:
    """Tell whether a library is there, without loading it."""
    return find_spec(library) is not None


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions(libraries: Iterable[str] = ()) -> dict[str, str]:
    """Give the versions of Python, torch, Regard and the libraries named, as far as they are installed."""
    found = {"python": platform.python_version()}
    for library in dict.fromkeys(["regard", "torch", *libraries]):
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def command(name: str, options: Options) -> str:
    """Give the command that runs a comparison again."""
    words = [
        "regard",
        "bench",
        name.partition(":")[0],
        "--rounds",
        str(options.rounds),
        "--seed",
        str(options.seed),
    ]
    if options.precision:
        words += ["--precision", options.precision]
    for key, value in options.settings.items():
        shown = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else value
        words += [] if value is None else ["--set", f"{key}={shown}"]
    return shlex.join([*words, *(["--tiny"] if options.tiny else [])])


def commit() -> str | None:
    """Give the commit that is checked out, marked where files differ from it; None outside a repository."""
    if not (SOURCE.parent / ".git").exists():
        return None
    words = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(words, cwd=SOURCE, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


def _processor() -> str:
    """Name the processor; the kernel knows it better than Python where there is /proc."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
