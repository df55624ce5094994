"""What every benchmark shares: taking turns, medians, a ratio of which more is better, and the evidence.

    options = parser(__doc__, seed=0).parse_args()
    figures = alternate({"ours": timed(ours), "plain torch": timed(plain)}, rounds=options.rounds)
    result = summarize("train_char", figures, unit="s", better="less", target=2.0, seed=options.seed)
    finish(result, json=options.json)

A side is a function without arguments that returns its own figure.
"""

from __future__ import annotations

import argparse
import json as json_module
import math
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

REPO = Path(__file__).resolve().parents[1]
RESULTS = REPO / "benchmarks" / "results"


def parser(description: str | None, *, seed: int = 0, rounds: int = 3) -> argparse.ArgumentParser:
    """Make the command line that every benchmark has: --json, --rounds and --seed; add what one needs."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    made.add_argument("--rounds", type=int, default=rounds, help="how often each side runs")
    made.add_argument("--seed", type=int, default=seed, help="seed of data and weights")
    return made


def timed(work: Callable[[], Any]) -> Callable[[], float]:
    """Turn a piece of work into a measurement of the seconds that it takes."""

    def measure() -> float:
        begin = time.perf_counter()
        work()
        return time.perf_counter() - begin

    return measure


def alternate(
    sides: Mapping[str, Callable[[], float]], *, rounds: int = 3, warmup: int = 0
) -> dict[str, list[float]]:
    """Measure every side once a round, so that whatever else the machine does falls on all alike.

    Each side returns its own figure, a time or a rate. Every second round goes in reverse order. `warmup`
    rounds are run and forgotten. Progress goes to standard error.
    """
    if rounds < 1:
        raise SystemExit(f"--rounds {rounds} measures nothing; give at least 1")
    figures: dict[str, list[float]] = {name: [] for name in sides}
    for k in range(-warmup, rounds):
        for name in list(sides) if k % 2 == 0 else list(reversed(sides)):
            figure = float(sides[name]())
            label = "warm-up" if k < 0 else f"{k + 1}/{rounds}"
            print(f"  {label}  {name}: {figure:.4g}", file=sys.stderr, flush=True)
            if k >= 0:
                figures[name].append(figure)
    return figures


def summarize(
    name: str,
    figures: Mapping[str, Sequence[float]],
    *,
    unit: str,
    better: Literal["less", "more"],
    seed: int,
    target: float | None = None,
    libraries: Iterable[str] = (),
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Make the result of a comparison from the figures of each side, of which one is called "ours".

    `ratio` compares our median with the best peer's and is null where there is no peer. `libraries` adds to
    the versions that are recorded; `more` adds figures of its own, such as the loss that was reached.
    """
    medians = {side: statistics.median(values) for side, values in figures.items()}
    ours = medians.pop("ours")
    ratio = None
    if medians:
        ratio = min(medians.values()) / ours if better == "less" else ours / max(medians.values())
    return {
        "name": name,
        "ours": ours,
        "peers": medians,
        "ratio": ratio if ratio is None or math.isfinite(ratio) else None,
        "target": target,
        "unit": unit,
        "better": better,
        "runs": {side: list(values) for side, values in figures.items()},
        "machine": machine(),
        "versions": versions(libraries),
        "command": command(),
        "commit": commit(),
        "seed": seed,
        **(more or {}),
    }


def finish(result: Mapping[str, Any], *, json: bool, folder: Path = RESULTS) -> None:
    """Write a result to its file in `folder` and print it: one JSON object under --json, else a few lines."""
    text = json_module.dumps(result, indent=2, allow_nan=False)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result['name']}.json"
    partial = path.with_suffix(".partial")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)
    if json:
        print(json_module.dumps(result, allow_nan=False))
        return
    print(f"{result['name']}: ours {result['ours']:.4g} {result['unit']}")
    for peer, figure in result["peers"].items():
        print(f"  {peer}: {figure:.4g} {result['unit']}")
    if result["ratio"] is not None:
        aim = "" if result["target"] is None else f" (target {result['target']:g})"
        print(f"  ratio {result['ratio']:.3g}{aim}; more is better")


def shared(*parts: str) -> Path:
    """Find a data set that is not part of the project, or end with a line that says what is missing."""
    named = os.environ.get("REGARD_SHARED")
    path = (Path(named) if named else REPO.parent / "shared").joinpath(*parts)
    if not path.exists():
        raise SystemExit(f"no {'/'.join(parts)}: set REGARD_SHARED to the folder that holds the data sets")
    return path


def machine() -> dict[str, Any]:
    """Describe the machine by what a timing depends on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found: dict[str, Any] = {"processor": _processor(), "cores": cores, "system": platform.system()}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory_gib"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    torch = sys.modules.get("torch")
    if torch is not None:
        found["threads"] = torch.get_num_threads()
        found["accelerator"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return found


def versions(libraries: Iterable[str] = ()) -> dict[str, str]:
    """Give the versions of Python, torch, Regard and the libraries named, as far as they are installed."""
    found = {"python": platform.python_version()}
    for library in dict.fromkeys(["regard", "torch", *libraries]):
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def command() -> str:
    """Give the command that was typed, from the repository's root."""
    script = Path(sys.argv[0]).resolve()
    name = script.relative_to(REPO).as_posix() if script.is_relative_to(REPO) else script.name
    return shlex.join(["python", name, *sys.argv[1:]])


def commit() -> str | None:
    """Give the commit that is checked out, marked where files differ from it; None outside a repository."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=REPO,
            capture_output=True,
            text=True,
            check=False,
        )
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
