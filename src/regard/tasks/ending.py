"""How a run ends: the best weights are measured on all that is held out, and what came of it is written down."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from regard.checkpoints.files import write_json_atomic
from regard.config import ModelConfig
from regard.errors import TrainingError
from regard.tasks.base import Evaluation, Stores, Task, Values
from regard.tasks.card import write_card
from regard.tasks.confusion import draw_confusion
from regard.tasks.folders import load_parts
from regard.tasks.record import finite
from regard.tasks.starting import START
from regard.training.curves import draw_curves
from regard.training.events import Result, Warned
from regard.training.journal import Journal
from regard.training.signals import StopRequest

__all__ = ["finish", "measure_best"]


def measure_best(
    folder: Path, record: Mapping[str, Any], task: Task, rows: Sequence[Values], stores: Stores, read: ModelConfig, *,
    device: str, is_late: Callable[[], bool] = lambda: False, report: Callable[[Any], None],
) -> Evaluation | None:  # fmt: skip
    """Measure a run's best weights on what is held out, all of it unless the time is up before; None if asked to stop.

    Raises:
        TrainingError: no weights were kept.
    """
    if not (folder / "model.safetensors").exists():
        raise TrainingError(
            f"no evaluation gave a number for {task.metric}, so no weights were kept; "
            "begin again with a lower lr or in fp32."
        )
    was_late = False
    with StopRequest() as stop:

        def should_stop() -> bool:
            nonlocal was_late
            was_late = was_late or is_late()
            return was_late or stop.requested()

        best = load_parts(folder, device=device)
        found = task.evaluate(
            dataclasses.replace(best, config=read), rows, stores, quick=False, should_stop=should_stop,
            lowercase=record["lowercase"],
        )  # fmt: skip
    if stop.requested():
        return None
    if was_late:
        report(
            Warned("the minutes were over before all held-out data was measured; the scores are of a part.")
        )
        found = dataclasses.replace(
            found, details={**found.details, "measured": "a part of the held-out data"}
        )
    return found


def finish(
    folder: Path,
    record: dict[str, Any],
    result: Result,
    final: Evaluation,
    task: Task,
    report: Callable[[Any], None],
) -> None:
    """Write down what the run came to; the picture and the card are worth a warning, not a failure."""
    numbers = {
        name: value for name, value in dataclasses.asdict(result).items() if name not in ("best", "last")
    }
    record["result"] = {**numbers, "metrics": final.metrics, "details": final.details}
    write_json_atomic(folder / "regard.json", finite(record))
    try:
        if result.reason != "interrupted":
            (folder / START).unlink(missing_ok=True)  # every saved state has all weights
        if "confusion" in final.details:
            draw_confusion(folder / "confusion.png", final.details["confusion"], final.details["labels"])
        if (folder / "model.safetensors").exists():
            write_card(folder, record)
        journal = folder / "metrics.jsonl"
        if any(
            line.get("kind") == "train" for line in Journal(journal).read()
        ):  # else stopped before the first
            draw_curves(journal, folder / "curves.png", metric=task.metric, title=folder.name)
    except OSError as error:
        report(Warned(f"the curves or the card could not be written: {error.strerror or error}."))
