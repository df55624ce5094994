"""The measures of the field, each by its own name; texts are scored by sacreBLEU, signature included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scores:
    """Hold corpus scores of texts against references.

    Attributes:
        bleu: sacreBLEU, 0 to 100, tokenised "13a".
        chrf: chrF2, 0 to 100.
        signature: sacreBLEU's own account of how `bleu` was computed.
    """

    bleu: float
    chrf: float
    signature: str


def score_texts(hypotheses: Sequence[str], references: Sequence[str], *, lowercase: bool = False) -> Scores:
    """Score texts against one reference each.

    Source: Post 2018, arXiv:1804.08771; Popović 2015 (chrF).
    """
    from sacrebleu.metrics import BLEU, CHRF

    bleu, chrf = BLEU(lowercase=lowercase), CHRF(lowercase=lowercase)
    score = bleu.corpus_score(list(hypotheses), [list(references)]).score
    return Scores(
        score, chrf.corpus_score(list(hypotheses), [list(references)]).score, str(bleu.get_signature())
    )


@dataclass(frozen=True)
class ClassTable:
    """Hold what a classifier gets right.

    Attributes:
        accuracy: the share of right answers, 0 to 1.
        macro_f1: the mean of the classes' F1, 0 to 1.
        confusion: rows are true labels, columns answers, in the order of `labels`.
        per_class: label to (precision, recall, F1, count).
    """

    labels: tuple[str, ...]
    accuracy: float
    macro_f1: float
    confusion: list[list[int]]
    per_class: dict[str, tuple[float, float, float, int]]


def score_classes(answers: Sequence[str], truths: Sequence[str], labels: Sequence[str]) -> ClassTable:
    """Count which label was taken for which."""
    pairs = Counter(zip(truths, answers, strict=True))
    confusion = [[pairs[truth, answer] for answer in labels] for truth in labels]
    per_class = {}
    for i, label in enumerate(labels):
        answered, there = sum(row[i] for row in confusion), sum(confusion[i])
        per_class[label] = (*_prf(confusion[i][i], answered, there), there)
    right = sum(pairs[label, label] for label in labels)
    mean = sum(row[2] for row in per_class.values()) / max(1, len(labels))
    return ClassTable(tuple(labels), right / max(1, len(truths)), mean, confusion, per_class)


def spans(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Give the (type, first word, word after the last) of BIO tags.

    An I- that continues nothing of its type opens a span, as in the CoNLL evaluation; a tag without a prefix is a
    type of its own, and neighbours with the same one are one span.
    """
    found, kind, start = set(), "", 0
    for i, tag in enumerate([*tags, "O"]):
        prefix, _, name = (
            tag.partition("-") if tag[:2] in ("B-", "I-") else ("", "", "" if tag == "O" else tag)
        )
        if kind and (name != kind or prefix == "B"):
            found.add((kind, start, i))
            kind = ""
        if name and not kind:
            kind, start = name, i
    return found


def score_spans(
    answers: Sequence[Sequence[str]], truths: Sequence[Sequence[str]]
) -> tuple[float, float, float]:
    """Give precision, recall and F1 of whole spans over a corpus, each 0 to 1."""
    right = answered = there = 0
    for answer, truth in zip(answers, truths, strict=True):
        ours, theirs = spans(answer), spans(truth)
        right, answered, there = right + len(ours & theirs), answered + len(ours), there + len(theirs)
    return _prf(right, answered, there)


def _prf(right: int, answered: int, there: int) -> tuple[float, float, float]:
    precision, recall = right / max(1, answered), right / max(1, there)
    return precision, recall, 2 * precision * recall / max(1e-12, precision + recall)
