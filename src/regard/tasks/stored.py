"""What a run keeps of its data: token files, written once and opened each time that it goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from regard.config import ModelConfig
from regard.data.sources import Source
from regard.data.tokenizers import Tokenizer
from regard.errors import CheckpointError, DataError
from regard.tasks.base import Stores, Task, Values
from regard.tasks.preparation import Part, Reading, encode_part, read_rows
from regard.training.events import Warned

__all__ = ["open_prepared", "store_part", "tell_alike", "tell_skipped"]


def store_part(
    task: Task, name: str, part: Part, words: Tokenizer, config: ModelConfig, folder: Path, reading: Reading,
    report: Callable[[Any], None],
) -> tuple[list[str], Part, int]:  # fmt: skip
    """Write a part's token files; give their names, what is left of the part, and how many rows are left out."""
    place = folder / "data" / name
    place.mkdir(parents=True)
    what = "tokenising" if name == "train" else "tokenising the held-out data"
    part, left_out = encode_part(
        task, part, words, config, place, what=what, skip_long=reading.skip_long, tell=report
    )
    if left_out:
        texts = "text is" if left_out == 1 else "texts are"
        report(
            Warned(f"{left_out} {texts} longer than the context of {config.context} and left out ({name}).")
        )
    return sorted(task.open_stores(place)), part, left_out


def open_prepared(
    folder: Path, task: Task, record: Mapping[str, Any]
) -> tuple[dict[str, Stores], list[Values]]:
    """Open the token files and rows that were prepared.

    Raises:
        CheckpointError: something is missing or damaged.
    """
    try:
        stores = {part: task.open_stores(folder / "data" / part) for part in ("train", "valid")}
    except DataError as error:
        raise CheckpointError(f"{error}; the run needs it, so begin the run again.") from error
    for part, found in stores.items():
        if missing := [name for name in record["stores"][part] if name not in found]:
            raise CheckpointError(
                f"{folder / 'data' / part / missing[0]}.tokens is missing; the run needs it, so begin the run again."
            )
    return stores, read_rows(folder / "data" / "valid.jsonl")


def tell_skipped(source: Source, held_out: Source | None, report: Callable[[Any], None]) -> dict[str, int]:
    """Say which broken rows were left out, in the pass that has just counted all of them."""
    skipped = {}
    for part, read in (("train", source), ("valid", held_out)):
        if read is not None and read.skipped:
            skipped[f"bad_{part}"] = read.skipped
            rows = "1 broken row is" if read.skipped == 1 else f"{read.skipped} broken rows are"
            report(Warned(f"{rows} left out, first {read.faults[0]}."))
    return skipped


def tell_alike(labels: Iterable[str], report: Callable[[Any], None]) -> None:
    """Name labels that differ in letter case or in spaces alone: they are learned apart, and seldom meant to be."""
    alike: dict[str, list[str]] = {}
    for label in labels:
        alike.setdefault("".join(label.casefold().split()), []).append(label)
    found = [" and ".join(map(repr, group)) for group in alike.values() if len(group) > 1]
    if found:
        more = f", and {len(found) - 3} more such groups" if len(found) > 3 else ""
        report(Warned(f"these labels differ in letter case or spaces alone: {', '.join(found[:3])}{more}."))
