"""Tagging: a tag for every word, whatever pieces the words are cut into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tasks.small import make_parts

from regard.errors import DataError
from regard.tasks.base import Parts, Stores
from regard.tasks.metrics import score_spans
from regard.tasks.tag import TagTask

TASK = TagTask()
TAGS = ("B-X", "I-X", "O")
ROWS = [
    {"words": ["the", "animal", "didn't"], "tags": ["O", "B-X", "I-X"]},
    {"words": ["a"], "tags": ["O"]},
    {"words": ["dog", "runs", ",", "a", "cat", "sleeps"], "tags": ["B-X", "O", "O", "B-X", "I-X", "I-X"]},
]


def tagger(kind: Any = "encoder", words: str = "char") -> Parts:
    changes = TASK.model_changes(make_parts(kind).config, TAGS)
    return make_parts(kind, words=words, **{**changes, "head_transitions": False})


def stored(parts: Parts, folder: Path, rows: list[dict[str, Any]] = ROWS) -> Stores:
    TASK.encode(rows, parts.tokenizer, parts.config, folder)
    return TASK.open_stores(folder)


@pytest.mark.parametrize("words", ["char", "bpe"])
@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_it_reads_the_tag_of_each_words_first_token(tmp_path: Path, kind: str, words: str) -> None:
    parts = tagger(kind, words)
    answers = []
    for row in ROWS:
        ids, numbers = parts.tokenizer.encode_words(row["words"])
        with torch.no_grad():
            best = parts.module(torch.tensor([[1, *ids, 2]]))[0].argmax(-1)[1:-1].tolist()
        answers.append([TAGS[best[numbers.index(word)]] for word in range(len(row["words"]))])
    found = TASK.evaluate(parts, ROWS, stored(parts, tmp_path), quick=False).metrics
    truths = [row["tags"] for row in ROWS]
    assert (found["precision"], found["recall"], found["f1"]) == pytest.approx(score_spans(answers, truths))
    right = sum(a == t for x, y in zip(answers, truths, strict=True) for a, t in zip(x, y, strict=True))
    assert found["accuracy"] == pytest.approx(right / 10)


def test_it_may_be_stopped(tmp_path: Path) -> None:
    parts = tagger()
    found = TASK.evaluate(parts, ROWS, stored(parts, tmp_path), quick=True, should_stop=lambda: True)
    assert set(found.metrics) == {"f1", "precision", "recall", "accuracy"}


def test_tags_are_sorted_and_at_least_two() -> None:
    assert TASK.labels(ROWS) == TAGS
    with pytest.raises(DataError, match="every word has the tag 'O'"):
        TASK.labels(ROWS[1:2])
    assert list(TASK.texts(ROWS[0])) == ["the animal didn't"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"words": ["a"], "tags": ["B-Y"]}, "the label 'B-Y' does not occur"),
        ({"words": ["a" * 40, "b" * 40], "tags": ["O", "O"]}, r"the longest has 8[01]"),
    ],
)
def test_rows_that_do_not_fit_are_named(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        stored(tagger(), tmp_path, [row])
