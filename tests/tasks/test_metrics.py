"""The measures against hand-made numbers, the CoNLL rules, and the libraries that define them."""

from __future__ import annotations

import math
import random
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regard.errors import DataError
from regard.tasks.metrics import score_classes, score_spans, score_texts, spans

TAGS = ["O", *(f"{prefix}-{kind}" for prefix in "BI" for kind in ("PER", "LOC"))]
IOBES = [*TAGS, *(f"{prefix}-{kind}" for prefix in "ES" for kind in ("PER", "LOC"))]


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("", set()),
        ("O O O", set()),
        ("B-PER I-PER O", {("PER", 0, 2)}),
        ("B-PER B-PER", {("PER", 0, 1), ("PER", 1, 2)}),
        ("I-PER I-PER", {("PER", 0, 2)}),  # IOB1: a span may open with I-
        ("O I-LOC", {("LOC", 1, 2)}),
        ("B-PER I-LOC", {("PER", 0, 1), ("LOC", 1, 2)}),
        ("B-PER O I-PER", {("PER", 0, 1), ("PER", 2, 3)}),
        ("B-PER I-PER I-PER B-LOC", {("PER", 0, 3), ("LOC", 3, 4)}),
        ("S-PER S-PER", {("PER", 0, 1), ("PER", 1, 2)}),
        ("B-PER I-PER E-PER I-PER", {("PER", 0, 3), ("PER", 3, 4)}),
        ("B-PER L-PER U-LOC", {("PER", 0, 2), ("LOC", 2, 3)}),
        ("E-PER E-PER", {("PER", 0, 1), ("PER", 1, 2)}),
        ("NOUN NOUN VERB O", {("NOUN", 0, 2), ("VERB", 2, 3)}),
        ("B-a-b I-a-b", {("a-b", 0, 2)}),
    ],
)
def test_spans_by_hand(tags: str, found: set[tuple[str, int, int]]) -> None:
    assert spans(tags.split()) == found


@given(st.lists(st.sampled_from(IOBES), max_size=12))
def test_spans_cover_every_tagged_word_once(tags: list[str]) -> None:
    found = sorted(spans(tags), key=lambda span: span[1])
    covered = [i for _, start, end in found for i in range(start, end)]
    assert covered == [i for i, tag in enumerate(tags) if tag != "O"]
    assert all(tags[i][2:] == kind for kind, start, end in found for i in range(start, end))


@given(st.lists(st.tuples(st.sampled_from(["PER", "LOC"]), st.integers(1, 3), st.integers(0, 2)), max_size=5))
def test_spans_come_back_from_their_tags(drawn: list[tuple[str, int, int]]) -> None:
    tags: list[str] = []
    wanted = set()
    for kind, length, gap in drawn:
        tags += ["O"] * gap
        wanted.add((kind, len(tags), len(tags) + length))
        tags += [f"B-{kind}", *[f"I-{kind}"] * (length - 1)]
    assert spans(tags) == wanted


@pytest.mark.parametrize("tags", [TAGS, IOBES], ids=["BIO", "IOBES"])
def test_span_scores_are_seqevals(tags: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = pytest.importorskip("seqeval.metrics")
    draw = random.Random(3)
    for _ in range(40):
        truths = [[draw.choice(tags) for _ in range(draw.randrange(1, 12))] for _ in range(4)]
        answers = [[tag if draw.random() < 0.6 else draw.choice(tags) for tag in row] for row in truths]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wanted = [
                getattr(theirs, f"{name}_score")(truths, answers) for name in ("precision", "recall", "f1")
            ]
        assert score_spans(answers, truths) == pytest.approx(wanted)


def test_span_scores_by_hand() -> None:
    # There are three spans; three are answered, one of them with a wrong end.
    truths = [["B-PER", "I-PER", "O", "B-LOC"], ["B-LOC", "O"]]
    answers = [["B-PER", "I-PER", "O", "B-LOC"], ["B-LOC", "I-LOC"]]
    assert score_spans(answers, truths) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert score_spans([["O"]], [["O"]]) == (0, 0, 0)
    assert score_spans([["B-A"]], [["O"]]) == (0, 0, 0)
    assert score_spans([], []) == (0, 0, 0)


@given(st.lists(st.lists(st.sampled_from(TAGS), max_size=6), min_size=1, max_size=4))
def test_right_answers_score_one_and_order_changes_nothing(truths: list[list[str]]) -> None:
    perfect = 1.0 if any(tag != "O" for row in truths for tag in row) else 0.0
    assert score_spans(truths, truths) == (perfect, perfect, perfect)
    answers = [row[::-1] for row in truths]
    precision, recall, f1 = score_spans(answers, truths)
    assert score_spans(answers[::-1], truths[::-1]) == (precision, recall, f1)
    assert score_spans(truths, answers) == (recall, precision, f1)


def test_the_table_of_classes_by_hand() -> None:
    truths = ["a", "a", "a", "b", "b", "c"]
    answers = ["a", "a", "b", "b", "a", "a"]
    table = score_classes(answers, truths, ["a", "b", "c", "never"])
    assert table.accuracy == pytest.approx(3 / 6)
    assert table.confusion == [[2, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert table.per_class["a"] == pytest.approx((2 / 4, 2 / 3, 4 / 7, 3))
    assert table.per_class["b"] == pytest.approx((1 / 2, 1 / 2, 1 / 2, 2))
    assert table.per_class["c"] == (0, 0, 0, 1)
    assert table.per_class["never"] == (0, 0, 0, 0)
    assert table.macro_f1 == pytest.approx((4 / 7 + 1 / 2 + 0) / 3)  # over the classes that occur
    assert score_classes([], [], ["a", "b"]).accuracy == 0


@given(st.lists(st.tuples(*[st.sampled_from("abc")] * 2), min_size=1, max_size=20))
def test_the_table_of_classes_is_scikit_learns(pairs: list[tuple[str, str]]) -> None:
    theirs = pytest.importorskip("sklearn.metrics")
    answers, truths = [a for a, _ in pairs], [t for _, t in pairs]
    table = score_classes(answers, truths, ["a", "b", "c"])
    assert table.accuracy == pytest.approx(theirs.accuracy_score(truths, answers))
    assert table.macro_f1 == pytest.approx(theirs.f1_score(truths, answers, average="macro", zero_division=0))
    assert table.confusion == theirs.confusion_matrix(truths, answers, labels=["a", "b", "c"]).tolist()
    assert sum(map(sum, table.confusion)) == len(pairs)


def test_bleu_is_sacrebleus_own() -> None:
    import sacrebleu

    ours = ["The dog runs fast.", "A cat sleeps on the mat, it seems", "nothing alike"]
    theirs = ["The dog is running fast.", "A cat sleeps on the mat", "something else"]
    for lowercase in (False, True):
        found = score_texts(ours, theirs, lowercase=lowercase)
        assert found.bleu == sacrebleu.corpus_bleu(ours, [theirs], lowercase=lowercase).score
        # One reference a text, given as one stream of references.
        assert found.chrf == pytest.approx(
            sacrebleu.metrics.CHRF(lowercase=lowercase).corpus_score(ours, [theirs]).score
        )
        assert f"case:{'lc' if lowercase else 'mixed'}" in found.signature
        assert "tok:13a" in found.signature


def test_bleu_by_hand() -> None:
    # 6 of 6 words, 5 of 5 pairs, 4 of 4 triples, 3 of 3 quadruples: only the brevity penalty is left.
    found = score_texts(["a b c d e f"], ["a b c d e f g h"])
    assert found.bleu == pytest.approx(100 * math.exp(1 - 8 / 6))
    assert score_texts(["a b c d"], ["a b c d"]).bleu == pytest.approx(100)
    assert score_texts([""], ["a b c d"]).bleu == 0
    assert score_texts(["A B C D"], ["a b c d"], lowercase=True).bleu == pytest.approx(100)


@given(st.lists(st.text(alphabet="ab ,.", min_size=1, max_size=12), min_size=1, max_size=4))
def test_texts_score_best_against_themselves(texts: list[str]) -> None:
    found = score_texts(texts, texts)
    assert 0 <= found.bleu <= 100.0001
    assert 0 <= score_texts(texts, texts[::-1]).bleu <= found.bleu + 1e-6


def test_nothing_is_no_score() -> None:
    with pytest.raises(DataError, match="0 texts can't be scored against 0 references"):
        score_texts([], [])
    with pytest.raises(DataError, match="1 texts can't be scored against 2"):
        score_texts(["a"], ["a", "b"])
