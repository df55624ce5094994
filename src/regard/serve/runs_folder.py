"""What a run's folder says: its state, its measurements; of whatever lies in it, however broken."""

from __future__ import annotations

import json
import math
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any

from regard.errors import RegardError
from regard.runs import describe, read_run
from regard.serve.house import Missing
from regard.serve.names import find, wrong_with
from regard.serve.runs_started import Started, last_lines
from regard.serve.sentences import Sentences
from regard.tasks.folders import is_locked, was_being_prepared
from regard.tasks.registry import get_task
from regard.training.state import StateStore

__all__ = [
    "Standing",
    "about",
    "curve",
    "find_run",
    "has_ended",
    "numbered_lines",
    "run_names",
    "standing",
    "summary",
]

JOURNAL = "metrics.jsonl"
_BROKEN = (RegardError, OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError)
_MOST_POINTS = 4000  # of a curve; there may be twice as many
_MOST_EVALUATIONS = 1000
_MOST_LINE = 2**20
_BLOCK = 2**18
_MOST_RUNS = 1000
_SAY = Sentences()

Line = dict[str, Any]


@dataclass
class Standing:
    """Hold what a journal says of where a run stands.

    Attributes:
        step: the last that is told of.
        seconds: time over all sessions.
        best: the metrics of the best evaluation.
        file: which file the journal is.
        place: the byte up to which it was read.
    """

    step: int = 0
    seconds: float | None = None
    best: dict[str, Any] = field(default_factory=dict)
    file: tuple[int, int] = (0, 0)
    place: int = 0


def find_run(root: Path, name: str) -> Path:
    """Find a run's folder: NAME, or NAME/PART as folds are.

    Raises:
        Missing: there is none, or it lies elsewhere.
    """
    first, slash, rest = name.partition("/")
    folder = find(root, first, "run")
    found = find(folder, rest, "run") if slash else folder
    if not found.is_dir() or found.is_relative_to(root.resolve() / ".serve"):
        raise Missing(f"there is no run {name!r}.")
    return found


def run_names(root: Path) -> list[str]:
    """List the folders below the runs that are runs, or were to be; of folders of folds those in them."""
    found: list[str] = []
    for child in _folders(root):
        if _is_run(child):
            found.append(child.name)
        else:
            found += [f"{child.name}/{inner.name}" for inner in _folders(child) if _is_run(inner)]
        if len(found) >= _MOST_RUNS:
            break
    return found[:_MOST_RUNS]


def _folders(root: Path) -> list[Path]:
    try:
        children = sorted(root.iterdir())
        return [c for c in children if not wrong_with(c.name) and not c.is_symlink() and c.is_dir()]
    except OSError:
        return []


def _is_run(folder: Path) -> bool:
    try:
        return was_being_prepared(folder) or any(
            (folder / name).exists() for name in ("regard.json", JOURNAL, "checkpoints")
        )
    except OSError:
        return False


def summary(name: str, folder: Path | None, started: Started | None, say: Sentences = _SAY) -> dict[str, Any]:
    """Say how a run stands.

    Args:
        name: its name.
        folder: where it is; None where it was started and has no folder yet.
        started: what is known of its process, where it was started here.
        say: puts what is wrong with it in a sentence.
    """
    told: dict[str, Any] = {
        "name": name, "task": None if started is None else started.task, "state": "failed", "step": 0, "steps": None,
        "minutes": None, "best": {}, "metric": None, "seconds": None, "checkpoints": [], "resumable": False,
        "problem": None, "stoppable": False, "stopping": False, "when": None if started is None else started.when,
    }  # fmt: skip
    is_alive = started is not None and started.is_alive()
    told |= {"stoppable": is_alive, "stopping": bool(is_alive and started and started.asked)}
    try:
        is_busy = is_alive or (folder is not None and is_locked(folder))
        if folder is None or not (folder / "regard.json").is_file():
            told |= _unprepared(folder, started, is_busy)
        else:
            told |= _recorded(folder, started, is_busy)
    except _BROKEN as error:
        told |= {"state": "failed", "problem": _sentence(error, say)}
    told["problem"] = told["problem"] and say.plain(told["problem"])
    return told


def _unprepared(folder: Path | None, started: Started | None, is_busy: bool) -> dict[str, Any]:
    if is_busy:
        return {"state": "preparing"}
    if started is not None and started.asked:
        return {"state": "stopped", "problem": "it was stopped while its data was prepared; begin it again."}
    if folder is not None and was_being_prepared(folder):
        why = "it ended while its data was prepared; begin it again."
    else:
        why = "this folder holds no run: it has no regard.json."
    return {"state": "failed", "problem": (started and (started.complaint() or started.last_said())) or why}


def _recorded(folder: Path, started: Started | None, is_busy: bool) -> dict[str, Any]:
    _refuse_links(folder)
    record = read_run(folder)
    training, result = record["training"], _mapping(record.get("result"))
    stands = standing(folder)
    saved = StateStore(folder / "checkpoints", keep=1, warn=lambda text: None)
    checkpoints = sorted({step for path in saved.states() if (step := _step_of(path.name)) is not None})
    ended = has_ended(record, stands.step)
    problem = None
    if is_busy:
        state = "running"
    elif ended:
        state = "finished"
    else:
        problem = started.complaint() if started is not None else None
        state = "failed" if problem else "stopped"
    return {
        "task": str(record["task"]), "metric": _metric(record), "state": state,
        "step": max(stands.step, _whole(result.get("steps")) or 0),
        "steps": _whole(training.get("steps")), "minutes": _number(training.get("minutes")),
        "best": (_mapping(result.get("metrics")) if ended else {}) or stands.best,
        "seconds": _number(result.get("seconds")) if ended else stands.seconds,
        "checkpoints": checkpoints, "resumable": not is_busy, "problem": problem,
        "reason": result["reason"] if ended else None,
        "when": (folder / "regard.json").stat().st_mtime,
    }  # fmt: skip


def has_ended(record: Mapping[str, Any], step: int) -> bool:
    """Tell whether a run came to its end; one that was ended, resumed and killed since has not.

    Args:
        record: of the run.
        step: the last that its journal tells of.
    """
    result = _mapping(record.get("result"))
    reason, steps = result.get("reason"), _whole(result.get("steps"))
    return isinstance(reason, str) and reason != "interrupted" and (steps is None or steps >= step)


def about(name: str, folder: Path | None, started: Started | None, say: Sentences = _SAY) -> dict[str, Any]:
    """Say everything of one run: its summary, its settings, its measurements, and what its process wrote last."""
    told = summary(name, folder, started, say)
    points: list[Line] = []
    evaluations: list[Line] = []
    if folder is not None:
        try:
            _refuse_links(folder)
            points, evaluations = curve(folder)
            if (folder / "regard.json").is_file():
                told = {**_plain(describe(folder), say), **told}
        except _BROKEN as error:
            told["problem"] = told["problem"] or _sentence(error, say)
    return told | {
        "curve": points, "evaluations": evaluations,
        "log": "" if started is None else say.plain(last_lines(started.log)),
    }  # fmt: skip


_standings: OrderedDict[Path, Standing] = OrderedDict()
_lock = Lock()


def standing(folder: Path) -> Standing:
    """Say where a run stands; of its journal only what is new is read."""
    path = folder / JOURNAL
    if not path.is_file():
        return Standing()
    about = path.stat()
    file = (about.st_dev, about.st_ino)
    with _lock:
        known = _standings.get(path)
        if known is None or known.file != file or known.place > about.st_size:
            known = Standing(file=file)
        found = replace(known)
        for line, place in numbered_lines(path, known.place):
            found.place = place
            if line is None:
                continue
            found.step = max(found.step, line["step"])
            found.seconds = _number(line.get("elapsed")) or found.seconds
            if line["kind"] == "valid" and line.get("improved") is True:
                found.best = evaluation(line)["metrics"]
        _standings[path] = found
        _standings.move_to_end(path)
        while len(_standings) > _MOST_RUNS:
            _standings.popitem(last=False)
    return found


def curve(folder: Path) -> tuple[list[Line], list[Line]]:
    """Read a run's journal: its lines of training, thinned where they are many, and its last evaluations."""
    path = folder / JOURNAL
    if not path.is_file():
        return [], []
    points: list[Line] = []
    evaluations: deque[Line] = deque(maxlen=_MOST_EVALUATIONS)
    every, count, last = 1, 0, None
    for line, _ in numbered_lines(path):
        if line is None:
            continue
        if line["kind"] == "valid":
            evaluations.append(evaluation(line))
            continue
        last = point(line)
        if count % every == 0:
            points.append(last)
        count += 1
        if len(points) >= 2 * _MOST_POINTS:
            points, every = points[::2], 2 * every
    if last is not None and points[-1] is not last:
        points.append(last)
    return points, list(evaluations)


def numbered_lines(path: Path, start: int = 0) -> Iterator[tuple[Line | None, int]]:
    """Give a journal's lines, None for what isn't one, each with the byte at which the next begins."""
    place, rest = start, b""
    with path.open("rb") as file:
        file.seek(start)
        while block := file.read(_BLOCK):
            *whole, rest = (rest + block).split(b"\n")
            for text in whole:
                place += len(text) + 1
                yield _parsed(text), place
            if len(rest) > _MOST_LINE:  # no journal of ours
                return


def _parsed(text: bytes) -> Line | None:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    is_one = (
        isinstance(line, dict) and type(line.get("step")) is int and line.get("kind") in ("train", "valid")
    )
    return line if is_one else None


def point(line: Line) -> Line:
    """Give a line of training as the page has it."""
    names = ("step", "epoch", "loss", "nll", "lr", "grad_norm", "tokens_per_second", "elapsed")
    return {name: line["step"] if name == "step" else _number(line.get(name)) for name in names}


def evaluation(line: Line) -> Line:
    """Give a line of an evaluation as the page has it."""
    beside = ("kind", "step", "improved", "elapsed", "sample")
    sample = line.get("sample")
    return {
        "step": line["step"],
        "metrics": {name: _number(value) for name, value in line.items() if name not in beside},
        "improved": line.get("improved") is True, "elapsed": _number(line.get("elapsed")),
        "sample": sample if isinstance(sample, str) else None,
    }  # fmt: skip


def _refuse_links(folder: Path) -> None:
    """Refuse a folder whose own files lie elsewhere."""
    for name in ("regard.json", "config.json", "tokenizer.json", JOURNAL):
        if (folder / name).is_symlink():
            raise ValueError(f"{name} is a link")


def _metric(record: Mapping[str, Any]) -> str | None:
    """Name the metric that decides which weights are the best; None of a task that isn't known."""
    try:
        return get_task(record["task"], record["given"].get("label_separator")).metric
    except (RegardError, TypeError, AttributeError):
        return None


def _step_of(name: str) -> int | None:
    number = name.removeprefix("step-").removesuffix(".old")
    return int(number) if number.isascii() and number.isdigit() and len(number) < 16 else None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, Mapping) else {}  # type: ignore[return-value]


def _whole(value: Any) -> int | None:
    return value if type(value) is int else None


def _number(value: Any) -> float | int | None:
    is_one = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_one and math.isfinite(value) and abs(value) < 1e300 else None


def _plain(groups: dict[str, dict[str, Any]], say: Sentences) -> dict[str, dict[str, Any]]:
    """Put names in place of the paths among what describes a run."""
    return {
        group: {name: say.plain(value) if isinstance(value, str) else value for name, value in values.items()}
        for group, values in groups.items()
    }


def _sentence(error: BaseException, say: Sentences) -> str:
    if isinstance(error, RegardError):
        return say(error)
    return f"this folder can't be read ({error if isinstance(error, ValueError) else type(error).__name__})."
