"""The measures of the field, each by its own name; texts are scored by sacreBLEU, signature included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass

from regard.errors import DataError


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

    Raises:
        DataError: there is nothing to score.

    Source: Post 2018, arXiv:1804.08771; Popović 2015 (chrF).
    """
    if not hypotheses or len(hypotheses) != len(references):
        raise DataError(
            f"{len(hypotheses)} texts can't be scored against {len(references)} references; give as many, at least one."
        )
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
        macro_f1: the mean F1 of the classes that occur, among the truths or the answers; 0 to 1.
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
    occur = {*truths, *answers}
    mean = sum(row[2] for label, row in per_class.items() if label in occur) / max(1, len(occur))
    return ClassTable(tuple(labels), right / max(1, len(truths)), mean, confusion, per_class)


def score_several(
    answers: Sequence[Set[str]], truths: Sequence[Set[str]], labels: Sequence[str]
) -> tuple[dict[str, float], dict[str, tuple[float, float, float, int]]]:
    """Score texts with any number of labels.

    Returns:
        `micro_f1` (over all labels of all texts), `macro_f1` (the mean of the labels that occur) and `accuracy` (the
        share of texts with all labels right), each 0 to 1; and label to (precision, recall, F1, count).
    """
    right, answered, there = Counter[str](), Counter[str](), Counter[str]()
    for answer, truth in zip(answers, truths, strict=True):
        right.update(answer & truth)
        answered.update(answer)
        there.update(truth)
    table = {label: (*_prf(right[label], answered[label], there[label]), there[label]) for label in labels}
    occur = [label for label in labels if answered[label] or there[label]]
    whole = sum(answer == truth for answer, truth in zip(answers, truths, strict=True))
    return {
        "micro_f1": _prf(right.total(), answered.total(), there.total())[2],
        "macro_f1": sum(table[label][2] for label in occur) / max(1, len(occur)),
        "accuracy": whole / max(1, len(truths)),
    }, table


def spans(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Give the (type, first word, word after the last) of BIO or IOBES tags.

    The rules are those of the CoNLL evaluation: a span of one type is opened by B- and S-, by a tag that stands after
    an ended span or after another type, and is ended by E- and S- (L- and U- in the BILOU scheme). A tag without a
    prefix is a type of its own, and neighbours with the same one are one span.
    Source: Tjong Kim Sang and De Meulder 2003, conlleval.
    """
    found, kind, start, ended = set(), "", 0, False
    for i, tag in enumerate([*tags, "O"]):
        prefix, name = (tag[0], tag[2:]) if tag[1:2] == "-" and tag[0] in "BIELSU" else ("I", tag)
        name = "" if tag == "O" else name
        if kind and (ended or name != kind or prefix in "BSU"):
            found.add((kind, start, i))
            kind = ""
        if name and not kind:
            kind, start = name, i
        ended = prefix in "ELSU"
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
    """Give precision, recall and F1, each 0 where it would be a division by nothing."""
    return right / max(1, answered), right / max(1, there), 2 * right / max(1, answered + there)
