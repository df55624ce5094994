"""K-fold: as many runs as folds, each with another part of the rows held out, and what they come to together."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from regard.checkpoints.files import read_json, write_json_atomic
from regard.data.sources import Source
from regard.errors import ConfigError, DataError
from regard.tasks.base import DataSize, Task
from regard.tasks.preparation import Part, Rows, whole

__all__ = ["Folds", "begin_folds", "check_fold", "split_fold", "summarise"]


@dataclass(frozen=True)
class Folds:
    """Hold what the runs of all folds came to.

    Attributes:
        path: the folder with a run for each fold, fold-1, fold-2, ..., and folds.json.
        scores: the metrics of each run on its held-out rows.
        mean: of each metric.
        spread: of each metric, the standard deviation over the folds (of a sample: divided by one less).
        best: the folder of the run with the best value of the task's own metric.
    """

    path: Path
    scores: tuple[dict[str, float], ...]
    mean: dict[str, float]
    spread: dict[str, float]
    best: Path


def check_fold(fold: Sequence[int], task: Task, valid: object) -> None:
    """Refuse a fold that can't be.

    Raises:
        ConfigError: it isn't (number from 0, count), there is held-out data beside it, or the task's texts are streams.
    """
    if len(fold) != 2 or not all(type(n) is int for n in fold) or not 0 <= fold[0] < fold[1] or fold[1] < 2:
        raise ConfigError(
            f"fold={tuple(fold)} must be (number, count): a number from 0 below a count of at least 2."
        )
    if task.joins_documents:
        raise ConfigError(
            f"folds are of rows, and {task.name} learns from running text; give --valid instead."
        )
    if valid is not None:
        raise ConfigError("folds hold rows of the data out by themselves; leave --valid out.")


def split_fold(source: Source, task: Task, fold: tuple[int, int]) -> tuple[Part, Part]:
    """Hold a k-th of the rows out, drawn by a fixed seed, so that files in any order are split well.

    Raises:
        DataError: there are fewer rows than folds.
    """
    all_rows = whole(source, task)
    number, count = fold
    rows, characters = all_rows.size.rows, all_rows.size.characters
    if rows < count:
        raise DataError(f"{rows} rows are too few for {count} folds; give fewer.")
    order = list(range(rows))
    random.Random(0).shuffle(order)
    held = frozenset(order[number::count])
    rest = frozenset(range(rows)) - held
    part = characters * len(held) // rows
    return (
        Part(Rows(source, left_out=held), DataSize(len(rest), characters - part)),
        Part(Rows(source, left_out=rest), DataSize(len(held), part)),
    )


def begin_folds(folder: Path, call: Mapping[str, object]) -> None:
    """Make the folder of all folds, or go on in one that the same call began.

    Raises:
        ConfigError: something else is there.
    """
    note = folder / "begun.json"
    words = {name: repr(value) for name, value in call.items() if value is not None}
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if not note.is_file():
            raise ConfigError(f"--out {folder} is not empty; name another folder.")
        before = read_json(note)
        differing = sorted(name for name in {*before, *words} if before.get(name) != words.get(name))
        if differing:
            raise ConfigError(
                f"the folds in {folder} were begun with another {', '.join(differing)}; give what was given then, or "
                "another --out."
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_json_atomic(note, words)


def summarise(path: Path, scores: Sequence[Mapping[str, float]], task: Task) -> Folds:
    """Give mean and spread of the folds' scores, and which fold is best."""
    names = [name for name in scores[0] if all(name in score for score in scores)]
    mean = {name: math.fsum(score[name] for score in scores) / len(scores) for name in names}
    spread = {
        name: math.sqrt(
            math.fsum((score[name] - mean[name]) ** 2 for score in scores) / max(1, len(scores) - 1)
        )
        for name in names
    }
    direction = 1 if task.higher_is_better else -1
    best = max(
        range(len(scores)), key=lambda i: direction * scores[i].get(task.metric, -direction * math.inf)
    )
    return Folds(path, tuple(dict(s) for s in scores), mean, spread, path / f"fold-{best + 1}")
