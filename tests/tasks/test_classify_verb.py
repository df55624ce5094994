"""Classify as a verb, with runs of ours: what a text gives, what it costs, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tasks.small import SENTENCES, make_parts, translator

from regard.config import ModelConfig
from regard.errors import ConfigError, DataError
from regard.tasks.base import Parts
from regard.tasks.classify import ClassifyTask, check_classify_texts, classify
from regard.tasks.classify_several import ClassifySeveralTask
from regard.tasks.metrics import score_several
from regard.tasks.registry import get_task
from regard.training.loss import sequence_loss

TASK = ClassifySeveralTask(";")
ROWS = [{"text": text, "label": ("a", "b;c", ";", "c")[i % 4]} for i, text in enumerate(SENTENCES)]


def classifier(kind: Any = "encoder", labels: tuple[str, ...] = ("a", "b", "c"), **changes: Any) -> Parts:
    config = make_parts(kind).config
    return make_parts(kind, **{**ClassifyTask().model_changes(config, labels), **changes})


@torch.no_grad()
def logits(parts: Parts, text: str) -> torch.Tensor:
    ids = torch.tensor([[1, *parts.tokenizer.encode(text), 2]])
    return parts.module(ids)[0].double()


@pytest.mark.parametrize("kind", ["encoder", "decoder", "encoder-decoder"])
def test_it_gives_all_labels_best_first(kind: Any) -> None:
    parts = classifier(kind, pooling="last" if kind != "encoder" else "mean")
    results = classify(parts, [*SENTENCES, ""])
    assert len({result.label for result in results}) > 1
    for text, result in zip([*SENTENCES, ""], results, strict=True):
        wanted = logits(parts, text).softmax(-1)
        assert {c.label: c.score for c in result.scores} == pytest.approx(
            dict(zip("abc", wanted.tolist(), strict=True)), rel=1e-4
        )
        scores = [choice.score for choice in result.scores]
        assert scores == sorted(scores, reverse=True)
        assert (result.label, result.score) == (result.scores[0].label, result.scores[0].score)
        assert str(result) == result.label
        assert result.tokens == len(parts.tokenizer.encode(text)) + 2
    assert classify(parts, ["a dog"], top=2)[0].scores == classify(parts, ["a dog"])[0].scores[:2]
    assert classify(parts, []) == []


def test_a_text_may_have_several_labels_or_none() -> None:
    parts = classifier(multi_label=True)
    found = classify(parts, list(SENTENCES))
    for text, result in zip(SENTENCES, found, strict=True):
        wanted = dict(zip("abc", logits(parts, text).sigmoid().tolist(), strict=True))
        assert {c.label: c.score for c in result.scores} == pytest.approx(wanted, rel=1e-4)
        assert set(result.chosen) == {label for label, score in wanted.items() if score >= 0.5}
    assert len({len(result.chosen) for result in found}) > 1
    assert classify(parts, ["a"], threshold=0)[0].chosen == tuple(
        c.label for c in classify(parts, ["a"])[0].scores
    )
    assert classify(parts, ["a"], threshold=1)[0].chosen == ()
    assert str(classify(parts, ["a"], threshold=1)[0]) == ""


def test_windows_are_averaged_by_their_tokens() -> None:
    parts = classifier(context=32)
    text = "".join(SENTENCES)[:95]
    assert list(check_classify_texts(parts, ["a", text])) == [1]
    assert check_classify_texts(parts, ["a", text], windows=True) == {}
    with pytest.raises(DataError, match=r"text 1 .* has 97 tokens; this model's context is 32"):
        classify(parts, [text])
    result = classify(parts, [text], windows=True)[0]
    starts = [0, 15, 30, 45, 60, 65]
    wanted = torch.stack([logits(parts, text[at : at + 30]).softmax(-1) for at in starts]).mean(0)
    assert {c.label: c.score for c in result.scores} == pytest.approx(
        dict(zip("abc", wanted.tolist(), strict=True)), rel=1e-4
    )
    assert (result.windows, result.tokens) == (6, 6 * 32)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"threshold": 0.5}, "is for texts that may have several labels"),
        ({"template": "x {}"}, "are for labels of your own"),
        ({"multi_label": True}, "are for labels of your own"),
        ({"labels": ["x"]}, "knows entailment; this one's labels are a, b, c"),
        ({"top": 0}, "top=0"),
        ({"batch_tokens": 0}, "batch_tokens=0"),
    ],
)
def test_settings_that_do_nothing_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        classify(classifier(), [], **settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"labels": []}, "a list of different texts"),
        ({"labels": "abc"}, "a list of different texts"),
        ({"labels": ["a", "a"]}, "a list of different texts"),
        ({"labels": ["a"], "template": "none"}, "must hold {}"),
        ({"labels": ["a"], "pair": []}, "leave `pair` out"),
        ({"labels": ["a"], "threshold": 1.5}, "threshold=1.5 is no probability"),
        ({"labels": ["a", "b"], "threshold": 0.5}, "is for texts that may have several labels"),
    ],
)
def test_labels_of_ones_own_are_checked(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        classify(classifier(labels=("contra", "entail")), [], **settings)


def test_what_the_model_is_for_is_said() -> None:
    with pytest.raises(ConfigError, match=r"can't classify, which takes a model with a head over labels"):
        classify(translator(), ["a"])
    with pytest.raises(DataError, match="a text must be a string, not int: '7'"):
        classify(classifier(), [7])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="multi_label is for head='classify'"):
        ModelConfig(kind="encoder", vocab_size=9, multi_label=True)


# ------------------------------------------------------------------------------------------------- several labels


def test_rows_of_several_labels_are_learned_from_and_measured(tmp_path: Path) -> None:
    parts = classifier(multi_label=True)
    assert TASK.model_changes(parts.config, ("a",))["multi_label"] is True
    assert TASK.labels(ROWS) == ("a", "b", "c")
    TASK.encode(ROWS, parts.tokenizer, parts.config, tmp_path)
    stores = TASK.open_stores(tmp_path)
    objective = TASK.objective(stores, parts.tokenizer, parts.config, seed=0)
    batch = objective.collate(torch.arange(4).numpy(), seed=0, epoch=0)
    assert batch["classes"].tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0], [0, 0, 1]]
    scores = [logits(parts, row["text"]) for row in ROWS[:4]]
    sums = sequence_loss(parts.module, batch)
    wanted = sum(
        torch.nn.functional.binary_cross_entropy(s.sigmoid(), c.double(), reduction="sum")
        for s, c in zip(scores, batch["classes"], strict=True)
    )
    assert float(sums.loss.detach()) == pytest.approx(float(wanted), rel=1e-4)
    assert sums.tokens == 4
    right = [bool(((s > 0) == (c > 0)).all()) for s, c in zip(scores, batch["classes"], strict=True)]
    assert sums.correct is not None
    assert int(sums.correct) == sum(right)
    assert float(sequence_loss(parts.module, batch, 0.2).loss.detach()) != pytest.approx(float(wanted))
    found = TASK.evaluate(parts, ROWS, stores, quick=False)
    answers = [set(result.chosen) for result in classify(parts, [row["text"] for row in ROWS])]
    truths = [set(TASK.split(row["label"])) for row in ROWS]
    assert found.metrics == score_several(answers, truths, ("a", "b", "c"))[0]
    assert [row["count"] for row in found.details["per_class"]] == [2, 2, 4]


def test_a_separator_that_does_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="stands in no label of the data"):
        TASK.labels([{"text": "x", "label": "a"}])
    with pytest.raises(DataError, match="no text has a label"):
        TASK.labels([{"text": "x", "label": ";"}])
    with pytest.raises(ConfigError, match="separator of labels is empty"):
        ClassifySeveralTask("")
    with pytest.raises(ConfigError, match="is for classify, not for tag"):
        get_task("tag", ";")
    assert isinstance(get_task("classify", ";"), ClassifySeveralTask)


def test_several_labels_are_scored_as_scikit_learn_does() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    draw = torch.Generator().manual_seed(2)
    answers, truths = (torch.rand(30, 4, generator=draw) < 0.4 for _ in range(2))
    names = "wxyz"

    def sets(rows: torch.Tensor) -> list[set[str]]:
        return [{name for name, yes in zip(names, row, strict=True) if yes} for row in rows.tolist()]

    found, table = score_several(sets(answers), sets(truths), names)
    for kind in ("micro", "macro"):
        assert found[f"{kind}_f1"] == pytest.approx(metrics.f1_score(truths, answers, average=kind))
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(truths, answers))
    assert [table[name][2] for name in names] == pytest.approx(
        metrics.f1_score(truths, answers, average=None).tolist()
    )
