"""Tag as a verb, with runs of ours, which learned from words: entities, windows, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.tasks.small import SENTENCES, make_parts, translator

from regard.data.tokenizers import Tokenizer
from regard.errors import ConfigError, DataError
from regard.generate.config import SearchConfig
from regard.generate.published import Published
from regard.models.transformer import build
from regard.tasks.base import Parts
from regard.tasks.entities import split_words
from regard.tasks.metrics import score_spans, spans
from regard.tasks.tag import TagTask, check_tag_texts, tag

TASK = TagTask()
TAGS = ("B-X", "B-Y", "I-X", "O")


def tagger(kind: Any = "encoder", words: str = "char", **changes: Any) -> Parts:
    return make_parts(kind, words=words, head="tag", labels=TAGS, **changes)


@torch.no_grad()
def best(parts: Parts, words: list[str]) -> list[str]:
    """Give the tag of each word's first token, as training reads them."""
    ids, numbers = parts.tokenizer.encode_words(words)
    scores = parts.module(torch.tensor([[1, *ids, 2]]))[0, 1:-1].argmax(-1).tolist()
    return [TAGS[scores[numbers.index(word)]] for word in range(len(words))]


@pytest.mark.parametrize("words", ["char", "bpe"])
@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_it_tags_words_as_in_training(kind: str, words: str) -> None:
    parts = tagger(kind, words)
    texts = [*SENTENCES, "a, dog; (runs)", "", "  "]
    number = 0
    for text, result in zip(texts, tag(parts, texts), strict=True):
        places = split_words(text)
        tags = best(parts, [text[start:end] for start, end in places])
        wanted = [
            (name, places[first][0], places[last - 1][1])
            for name, first, last in sorted(spans(tags), key=lambda span: span[1])
        ]
        assert [(one.label, one.start, one.end) for one in result.entities] == wanted
        assert all(text[one.start : one.end] == one.text for one in result.entities)
        single = tag(parts, [text], strategy="none")[0]
        assert [one.label for one in single.entities] == [name for name in tags if name != "O"]
        number += len(wanted)
    assert number > 5
    assert str(tag(parts, [""])[0]) == ""
    assert tag(parts, []) == []


def test_its_f1_is_that_of_the_evaluation(tmp_path: Path) -> None:
    parts = tagger()
    rows = [{"words": text.split(), "tags": ["B-X", "O", *["I-X"] * 20][: len(text.split())]}
            for text in SENTENCES if text == " ".join(text[a:b] for a, b in split_words(text))]  # fmt: skip
    assert len(rows) > 4
    TASK.encode(rows, parts.tokenizer, parts.config, tmp_path)
    metrics = TASK.evaluate(parts, rows, TASK.open_stores(tmp_path), quick=False).metrics
    answers = []
    for row, result in zip(rows, tag(parts, [" ".join(row["words"]) for row in rows]), strict=True):
        tags, place = ["O"] * len(row["words"]), 0
        starts: dict[int, int] = {}
        for i, word in enumerate(row["words"]):
            starts[place] = i
            place += len(word) + 1
        for one in result.entities:
            first, length = starts[one.start], len(one.text.split())
            tags[first : first + length] = [f"B-{one.label}", *[f"I-{one.label}"] * (length - 1)]
        answers.append(tags)
    found = score_spans(answers, [row["tags"] for row in rows])
    assert found == pytest.approx((metrics["precision"], metrics["recall"], metrics["f1"]))


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_each_token_is_tagged_far_from_the_cuts(kind: str) -> None:
    parts = tagger(kind, context=32)
    words = "a b " * 20
    ids, numbers = parts.tokenizer.encode_words(words.split())
    assert len(ids) == 79  # a space belongs to the word after it
    assert list(check_tag_texts(parts, ["a", words])) == [1]
    with pytest.raises(DataError, match=r"text 2 .* has 81 tokens; this model's context is 32"):
        tag(parts, ["a", words])
    result = tag(parts, [words], windows=True, strategy="none")[0]
    starts = [0, 15, 30, 45, 49]  # of windows of 30 tokens

    def far(at: int, place: int) -> float:
        before = float("inf") if at == 0 else place - at
        return min(before, float("inf") if at == 49 or kind == "decoder" else at + 29 - place)

    wanted = {}
    for word in range(40):
        place = numbers.index(word)
        at = max((s for s in starts if s <= place < s + 30), key=lambda s: (far(s, place), -s))
        with torch.no_grad():
            scores = parts.module(torch.tensor([[1, *ids[at : at + 30], 2]]))[0, 1 + place - at]
        wanted[2 * word] = TAGS[int(scores.argmax())]
    found = {one.start: one.label for one in result.entities}
    assert found == {start: name for start, name in wanted.items() if name != "O"}
    assert len(set(wanted.values())) > 1
    assert (result.windows, result.tokens) == (5, 5 * 32)


ALPHABET = "aA é\u0301\u0308👩👍🏽\u200d\ufe0f🇫🇷東京がİß .,'s@\u00a0\t\n\x00\u200b"


@cache
def _lower(kind: str, published: bool) -> Parts:
    """Make a tagger whose tokenizer changes case, and whose random tags are mostly not O."""
    parts = tagger()
    tokens = Tokenizer.train(["the dog was tired été"], kind=kind, vocab_size=300, lowercase=True)
    config = parts.config.replace(vocab_size=tokens.vocab_size, context=24)
    torch.manual_seed(1)
    module = build(config).eval()
    made = replace(parts, module=module, tokenizer=tokens, config=config)
    return (
        replace(made, published=Published(SearchConfig(), None, None, eos=(2,), pad_id=0, start_id=None))
        if published
        else made
    )


@given(st.text(st.one_of(st.sampled_from(ALPHABET), st.characters(exclude_categories=["Cs"])), max_size=20))
@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("kind", ["byte", "wordpiece", "bpe"])
def test_places_are_exact_whatever_the_tokenizer(kind: str, published: bool, text: str) -> None:
    for strategy in ("none", "first") if not published else ("none", "simple", "first", "average", "max"):
        parts = _lower(kind, published)
        last = 0
        for one in tag(parts, [text], strategy=strategy, windows=True)[0].entities:
            assert last <= one.start < one.end <= len(text)
            assert text[one.start : one.end] == one.text
            assert 0 <= one.score <= 1
            last = one.end


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"strategy='frist' is not one of none, .* did you mean 'first'"):
        tag(tagger(), [], strategy="frist")
    with pytest.raises(ConfigError, match="choose none or first"):
        tag(tagger(), [], strategy="average")
    with pytest.raises(DataError, match="a text must be a string, not int: '7'"):
        tag(tagger(), [7])  # type: ignore[list-item]
    with pytest.raises(DataError, match="half a surrogate pair"):
        tag(tagger(), ["a \ud800"])
    with pytest.raises(ConfigError, match="can't tag, which takes a model with a head over tags"):
        tag(translator(), ["a"])
