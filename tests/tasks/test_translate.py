"""Translating: each text by itself whatever its neighbours, n best, limits, and what is never written."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from tests.tasks.small import SENTENCES, make_parts, tokenizer, translator

from regard.errors import ConfigError, DataError
from regard.tasks.base import Parts
from regard.tasks.translate import Translation, check_texts, translate, translate_stream
from regard.tasks.verbs import check_verb, never_written, verb_of


def same(ours: list[Translation], theirs: list[Translation]) -> None:
    for left, right in zip(ours, theirs, strict=True):
        assert [c.text for c in left.candidates] == [c.text for c in right.candidates]
        assert (left.tokens, left.source_tokens, left.finished) == (
            right.tokens,
            right.source_tokens,
            right.finished,
        )
        assert [c.score for c in left.candidates] == pytest.approx(
            [c.score for c in right.candidates], abs=1e-4
        )


@pytest.mark.parametrize(
    "settings", [{"beams": 1}, {"beams": 3, "num_return": 3, "length_penalty": 0.6}], ids=str
)
def test_a_text_gives_the_same_alone_and_among_others(settings: dict[str, object]) -> None:
    parts, texts = translator(), list(SENTENCES)
    together = translate(parts, texts, max_tokens=12, **settings)
    assert len({found.text for found in together}) > 3  # what the texts say matters
    same(together, [translate(parts, [text], max_tokens=12, **settings)[0] for text in texts])
    for budget in (1, 40, 10**6):
        same(together, translate(parts, texts, max_tokens=12, batch_tokens=budget, **settings))
    order = list(range(len(texts)))
    random.Random(2).shuffle(order)
    mixed = translate(parts, [texts[i] for i in order], max_tokens=12, **settings)
    same([together[i] for i in order], mixed)
    same(together, list(translate_stream(parts, iter(texts), chunk=3, max_tokens=12, **settings)))


def test_the_usual_limit_follows_from_the_text_alone() -> None:
    parts = translator()
    texts = [*SENTENCES[:4], SENTENCES[2] * 2]
    same(translate(parts, texts, beams=2), [translate(parts, [text], beams=2)[0] for text in texts])


def test_a_run_whose_targets_are_long_may_write_as_much() -> None:
    parts = make_parts("encoder-decoder", context=96)
    with torch.no_grad():
        parts.module.head.output.weight[2] = 0  # type: ignore[union-attr, index, operator]
    longest = {
        stretch: max(one.tokens for one in translate(replace(parts, stretch=stretch), ["a", "dog"], beams=2))
        for stretch in (2, 4, 9)
    }
    assert longest == {2: 52, 4: 84, 9: 96}


def test_the_n_best_are_in_order_and_scored_by_the_model() -> None:
    parts = translator()
    (found,) = translate(parts, ["a dog runs"], beams=4, num_return=4, max_tokens=6)
    assert len(found.candidates) == 4
    assert found.candidates[0].text == found.text == str(found)
    assert found.candidates[0].score == found.score
    scores = [candidate.score for candidate in found.candidates]
    assert scores == sorted(scores, reverse=True)
    assert len({candidate.text for candidate in found.candidates}) > 1
    assert found.tokens <= 6
    assert found.source_tokens == len(parts.tokenizer.encode("a dog runs")) + 1


def test_a_larger_length_penalty_never_gives_a_shorter_best() -> None:
    parts = translator()
    short = translate(parts, SENTENCES, beams=4, length_penalty=0.0, max_tokens=15)
    long = translate(parts, SENTENCES, beams=4, length_penalty=3.0, max_tokens=15)
    assert sum(found.tokens for found in short) <= sum(found.tokens for found in long)


@pytest.mark.parametrize("text", ["", " ", "\t \n", "\u3000"])
def test_a_text_of_nothing_gives_nothing(text: str) -> None:
    calls: list[int] = []
    first, second, third = translate(translator(), [text, "a dog", text], max_tokens=5, on_done=calls.append)
    assert (first.text, first.score, first.tokens, first.finished) == ("", 0.0, 0, True)
    assert first == third
    assert len(first.candidates) == 1
    same([second], translate(translator(), ["a dog"], max_tokens=5))
    assert sum(calls) == 3


def test_no_texts_give_no_translations() -> None:
    assert translate(translator(), []) == []


def test_a_text_that_is_too_long_is_named_with_its_length_and_the_limit() -> None:
    parts = translator()
    long = "zq " * 50
    count = len(parts.tokenizer.encode(long)) + 1
    with pytest.raises(DataError, match=rf"text 2 \('zq zq .*…'\) has {count} tokens .* at most 64\. Split"):
        translate(parts, ["a dog", long, "a cat"])
    assert list(check_texts(parts, ["a dog", long, long])) == [1, 2]
    with pytest.raises(DataError, match=r"text 4 \('zq"):
        list(translate_stream(parts, ["a", "a", "a", long], chunk=2, max_tokens=2))
    fits = "z" * 63
    assert len(parts.tokenizer.encode(fits)) == 63
    assert check_texts(parts, [fits, fits + "z"]).keys() == {1}
    assert translate(parts, [fits], max_tokens=2)[0].source_tokens == 64


def test_the_target_may_fill_the_whole_context() -> None:
    parts = make_parts("encoder-decoder", context=12)
    with torch.no_grad():
        parts.module.head.output.weight[2] = 0  # type: ignore[union-attr, index, operator]
    found = translate(parts, ["a", "the dog"], max_tokens=12, beams=2)
    assert max(one.tokens for one in found) == 12
    assert all(one.tokens <= 5 for one in translate(parts, ["a", "dog"], max_tokens=5))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"beams": 0}, "beams=0"),
        ({"beams": 2.0}, "beams=2.0"),
        ({"beams": 2, "num_return": 3}, "num_return=3 is not allowed; give a whole number from 1 to 2"),
        ({"num_return": 0}, "num_return=0"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"max_tokens": 65}, "max_tokens=65 is not allowed; give a whole number from 1 to 64"),
        ({"length_penalty": float("nan")}, "length_penalty=nan"),
        ({"batch_tokens": 0}, "batch_tokens=0"),
    ],
    ids=str,
)
@pytest.mark.parametrize("texts", [[], ["a dog"]], ids=["none", "one"])
def test_settings_that_cannot_be(settings: dict[str, float], said: str, texts: list[str]) -> None:
    with pytest.raises(ConfigError, match=said.replace("(", r"\(")):
        translate(translator(), texts, **settings)  # type: ignore[arg-type]


def biased(kind: str, ids: range | list[int], **changes: object) -> Parts:
    """Make a model that would love to write certain ids."""
    parts = make_parts(kind, output_bias=True, **changes)  # type: ignore[arg-type]
    with torch.no_grad():
        parts.module.head.output.bias[list(ids)] = 30.0  # type: ignore[union-attr, index, operator]
    return parts


@pytest.mark.parametrize("beams", [1, 3])
def test_special_tokens_and_ids_beyond_the_tokenizer_are_never_written(beams: int) -> None:
    size = tokenizer().vocab_size
    parts = biased("encoder-decoder", [0, 1, 3, 4, *range(size, size + 8)], extra=8, position="t5")
    assert never_written(parts) == [0, 1, 3, 4, *range(size, size + 8)]
    found = translate(parts, SENTENCES, beams=beams, num_return=beams, max_tokens=8)
    assert all(len(one.text) == one.tokens - one.finished > 0 for one in found)  # each token is a character


def test_each_kind_of_model_says_what_it_can_do() -> None:
    can = {
        "translate": make_parts("encoder-decoder").config,
        "generate": make_parts("decoder").config,
    }
    for verb, config in can.items():
        assert verb_of(config) == verb
        check_verb(config, verb)
    with pytest.raises(ConfigError, match=r"is a decoder and can't translate.*; it can generate, .*embed\."):
        check_verb(can["generate"], "translate")
    with pytest.raises(
        ConfigError, match=r"is an encoder-decoder and can't generate.*; it can translate, .*embed\."
    ):
        check_verb(can["translate"], "generate")
    labels = ("a", "b")
    for config in (
        make_parts("encoder").config,
        make_parts("encoder", head="tag", labels=labels).config,
        make_parts("decoder", head="classify", labels=labels, pooling="last").config,
    ):
        assert verb_of(config) is None
        for verb in can:
            with pytest.raises(ConfigError, match=r"; it can .*embed\."):
                check_verb(config, verb)


def test_coverage_prefers_texts_that_looked_at_the_whole_source() -> None:
    plain = translate(translator(), SENTENCES, max_tokens=12)
    covered = translate(translator(), SENTENCES, max_tokens=12, coverage_penalty=2.0)
    assert [one.text for one in plain] != [one.text for one in covered]
    same([covered[2]], translate(translator(), [SENTENCES[2]], max_tokens=12, coverage_penalty=2.0))
    with pytest.raises(ConfigError, match="ignored without a beam search"):
        translate(translator(), ["a dog"], beams=1, coverage_penalty=0.2)
