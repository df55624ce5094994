"""Classifying: the labels, the head, and an evaluation that counts what the model answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tasks.small import SENTENCES, make_parts

from regard.config import Kind
from regard.errors import DataError
from regard.tasks.base import Parts, Stores
from regard.tasks.classify import ClassifyTask

TASK = ClassifyTask()
ROWS = [{"text": text, "label": "abc"[i % 3]} for i, text in enumerate(SENTENCES)]


def classifier(kind: Kind) -> Parts:
    config = make_parts(kind).config
    return make_parts(kind, **TASK.model_changes(config, ("a", "b", "c")))


def stored(parts: Parts, folder: Path, rows: list[dict[str, str]] = ROWS) -> Stores:
    TASK.encode(rows, parts.tokenizer, parts.config, folder)
    return TASK.open_stores(folder)


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_it_counts_what_the_model_answers_for_each_text_alone(tmp_path: Path, kind: Kind) -> None:
    parts = classifier(kind)
    found = TASK.evaluate(parts, ROWS, stored(parts, tmp_path), quick=False)
    answers = []
    for row in ROWS:
        ids = [1, *parts.tokenizer.encode(row["text"]), 2]
        with torch.no_grad():
            answers.append("abc"[int(parts.module(torch.tensor([ids])).argmax())])
    assert len(set(answers)) > 1
    right = sum(answer == row["label"] for answer, row in zip(answers, ROWS, strict=True))
    assert found.metrics["accuracy"] == pytest.approx(right / len(ROWS))
    confusion = found.details["confusion"]
    assert sum(map(sum, confusion)) == len(ROWS)
    for column, label in enumerate("abc"):
        assert sum(line[column] for line in confusion) == answers.count(label)
    assert [line["count"] for line in found.details["per_class"]] == [3, 3, 2]
    assert found.details["labels"] == ["a", "b", "c"]


def test_a_quick_look_gives_the_numbers_alone(tmp_path: Path) -> None:
    parts = classifier("encoder")
    found = TASK.evaluate(parts, ROWS, stored(parts, tmp_path), quick=True)
    assert set(found.metrics) == {"accuracy", "macro_f1"}
    assert found.details == {}


def test_it_may_be_stopped(tmp_path: Path) -> None:
    parts = classifier("encoder")
    found = TASK.evaluate(parts, ROWS, stored(parts, tmp_path), quick=False, should_stop=lambda: True)
    assert 0 <= found.metrics["accuracy"] <= 1


def test_labels_are_sorted_and_at_least_two() -> None:
    assert TASK.labels([{"text": "", "label": name} for name in ("z", "a", "z")]) == ("a", "z")
    with pytest.raises(DataError, match=r"every row has the label 'a'"):
        TASK.labels([{"text": "x", "label": "a"}] * 2)
    assert list(TASK.texts({"text": "x", "label": "secret"})) == ["x"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "a", "label": "d"}, "the label 'd' does not occur in the training data"),
        ({"text": "a" * 63, "label": "a"}, "more than 62 tokens.*63"),
    ],
)
def test_rows_that_do_not_fit_are_named(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        stored(classifier("encoder"), tmp_path, [row])
