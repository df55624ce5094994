"""Filling: always the same hidden tokens when it is measured, and the nats of exactly these."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.tasks.small import TEXT, make_parts

from regard.data.batches import Batches
from regard.tasks.base import Parts, Stores
from regard.tasks.fill import FillTask
from regard.training.loss import IGNORED, sequence_loss, validation_loss

TASK = FillTask()
ROWS = [{"text": TEXT}]


def stored(parts: Parts, folder: Path) -> Stores:
    TASK.encode(ROWS, parts.tokenizer, parts.config, folder)
    return TASK.open_stores(folder)


def test_the_measure_is_that_of_training_and_always_the_same(tmp_path: Path) -> None:
    parts = make_parts("encoder")
    stores = stored(parts, tmp_path)
    found = TASK.evaluate(parts, ROWS, stores, quick=False)
    assert found.metrics == TASK.evaluate(parts, ROWS, stores, quick=False).metrics
    examples = Batches(
        TASK.objective(stores, parts.tokenizer, parts.config, seed=0), tokens_per_batch=8192, shuffle=False
    )
    batches = [examples.batch(0, k) for k in range(examples.num_batches(0))]
    assert found.metrics["nats"] == pytest.approx(
        validation_loss(parts.module, batches, sequence_loss)["nll"]
    )
    right = hidden = 0
    for batch in batches:
        with torch.no_grad():
            best = parts.module(batch["ids"], key_mask=batch["key_mask"]).argmax(-1)
        there = batch["labels"] != IGNORED
        right, hidden = right + int((best == batch["labels"])[there].sum()), hidden + int(there.sum())
    assert found.metrics["accuracy"] == pytest.approx(right / hidden)


def test_the_sample_shows_what_was_hidden(tmp_path: Path) -> None:
    parts = make_parts("encoder")
    sample = TASK.evaluate(parts, ROWS, stored(parts, tmp_path), quick=True, should_stop=lambda: True).sample
    assert sample is not None
    assert "[" in sample
