"""Measure a run on data of its task's form."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from regard.errors import ConfigError
from regard.tasks.base import Evaluation
from regard.tasks.folders import load_parts, read_run
from regard.tasks.preparation import Reading, encode_part, first_rows, open_rows, whole
from regard.tasks.record import Data
from regard.tasks.registry import get_task

__all__ = ["evaluate"]


def evaluate(
    run: str | Path,
    data: Data,
    *,
    beams: int | None = None,
    lowercase: bool = False,
    reading: Reading | None = None,
    device: str = "cpu",
) -> Evaluation:
    """Measure a run on data of its task's form.

    A task that writes texts searches with `beams` hypotheses, by default 4, and may score them lower-cased.

    Raises:
        CheckpointError, DataError, ConfigError: the run or the data can't be used.
    """
    record, reading = read_run(Path(run)), reading or Reading()
    task = get_task(record["task"], record["given"].get("label_separator"))
    if not task.writes and (beams is not None or lowercase):
        raise ConfigError(
            f"{'lowercase' if beams is None else 'beams'} has no effect on {task.name}, which is not measured by texts "
            "that it writes; leave it out."
        )
    parts = load_parts(run, device=device)
    if record.get("window"):
        parts = dataclasses.replace(parts, config=parts.config.replace(context=record["window"]))
    part = whole(open_rows(data, task, reading), task, documents=reading.documents)
    with tempfile.TemporaryDirectory() as folder:
        part, left_out = encode_part(
            task, part, parts.tokenizer, parts.config, Path(folder), what="tokenising", skip_long=reading.skip_long,
            fixed_context=True,
        )  # fmt: skip
        rows = list(first_rows(part.rows) if task.joins_documents else part.rows)
        found = task.evaluate(
            parts, rows, task.open_stores(Path(folder)), quick=False, lowercase=lowercase or record["lowercase"],
            beams=4 if beams is None else beams,
        )  # fmt: skip
    details = {"too_long": left_out} if left_out else {}
    return dataclasses.replace(found, details={**found.details, **details})
