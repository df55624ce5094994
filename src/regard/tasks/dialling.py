"""The dial in a run: from what is prepared to what is chosen, and the clock by which the run then ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from regard.config import ModelConfig
from regard.data.tokenizers import Tokenizer
from regard.models.transformer import build
from regard.tasks.base import DataSize, Parts, Task
from regard.tasks.dial import Material, dial, ending_of
from regard.tasks.preparation import Working, read_rows
from regard.tasks.starting import begin
from regard.training.clock import Clock
from regard.training.config import TrainConfig
from regard.training.curves import rehearse
from regard.training.events import Warned
from regard.training.precision import choose_device
from regard.training.weighting import make_loss

__all__ = ["is_late", "make_clock", "turn_dial"]

_LEAST = 0.2
"""The part of the time that measuring, training and what comes after get, however long it took to prepare the data."""
_OTHERS = 0.7
"""Seconds that come last beside drawing: loading the best weights, the card, leaving the process."""


def turn_dial(
    task: Task, folder: Path, tokenizer: Tokenizer, config: ModelConfig, training: TrainConfig,
    about: Mapping[str, Any], given: Mapping[str, Any], size: DataSize, rows: int, *, began: float,
    report: Callable[[Any], None],
) -> tuple[dict[str, Any], ModelConfig, TrainConfig]:  # fmt: skip
    """Choose what is trained from a run's prepared data; give what the record keeps, the model and the settings.

    Of the run it takes what is prepared. `size` is that of the training data, `rows` are kept of the held-out data, and
    the time began at `began`, as time.monotonic tells it; where hardly any of it is left, there is a little more.
    """
    report(Working("measuring this machine"))
    assert training.minutes is not None
    left = training.minutes * 60 - (time.monotonic() - began)
    more = max(0.0, _LEAST * training.minutes * 60 - left)
    if more:
        text = (
            f"reading and tokenising took {training.minutes - left / 60:.2g} of {training.minutes:g} minutes, so the "
            f"run takes {more:.0f} s more; give more --minutes."
        )
        report(Warned(text))
    parts = {name: task.open_stores(folder / "data" / name) for name in ("train", "valid")}
    window = about.get("window")

    def objective(model: ModelConfig) -> Any:
        read = model.replace(context=window) if window else model
        return task.objective(parts["train"], tokenizer, read, seed=training.seed)

    def started() -> torch.nn.Module:
        module = build(config)
        begin(module, folder, about)
        return module

    def evaluate(module: torch.nn.Module, model: ModelConfig) -> object:
        read = model.replace(context=window) if window else model
        device = choose_device(training.device)
        kept = read_rows(folder / "data" / "valid.jsonl")
        with torch.no_grad():
            return task.evaluate(Parts(module.to(device), tokenizer, read), kept, parts["valid"], quick=True)

    material = Material(
        task, objective, lambda t, m: make_loss(t, m, parts["train"], hidden=tokenizer.mask_id), size,
        _OTHERS + rehearse(folder), None if task.writes else evaluate, rows if task.writes else 0,
        sum(len(store.flat) for store in parts["valid"].values()),
    )  # fmt: skip
    found = dial(
        material, config, training, left + more, given=given, start=started if about.get("start") else None
    )
    chosen = found.training.replace(precision=found.precision)
    return {**found.to_dict(), "summary": found.summary(), "more": more}, found.config, chosen


def make_clock(
    dialled: Mapping[str, Any] | None, minutes: float | None, began: float, *, resume: bool
) -> Clock:
    """Give the clock of a session: of the whole process where the dial was turned, else of training alone."""
    more = 0.0 if dialled is None or resume else float(dialled["more"])
    if dialled is None or minutes is None:
        return Clock()
    return Clock(began=began + more, ending=ending_of(dialled, minutes))


def is_late(elapsed: float, dialled: Mapping[str, Any] | None, minutes: float | None) -> bool:
    """Tell whether a measurement of the best weights must be cut off, for the process to end with its minutes."""
    return dialled is not None and minutes is not None and elapsed > minutes * 60 * 1.01 - dialled["tail"]
