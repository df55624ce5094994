"""`answer`: spans of a passage, compared with the published pipeline; exact characters, windows, and no answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tasks.readers import bert, fast, framed_tokenizer, put
from tests.tasks.small import SENTENCES, make_parts, writer

import regard
from regard.errors import ConfigError, DataError
from regard.tasks.answer import answer, check_answer

transformers = pytest.importorskip("transformers")

PASSAGE = "The animal didn't cross the street because it was  too tired; a dog runs."
QUESTION = "who didn't cross?"


# How the oracle hands tensors to numpy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def compare(ours: regard.Model, theirs: Any, words: regard.Tokenizer, **more: Any) -> None:
    copy = fast(words)
    if ours.config.kind == "encoder-decoder":
        copy.model_input_names = ["input_ids", "attention_mask"]
    pipe = transformers.QuestionAnsweringPipeline(model=theirs, tokenizer=copy, device="cpu")
    none = more.pop("allow_none", False)
    expected = pipe(
        question=QUESTION, context=PASSAGE, top_k=6, max_answer_len=5, align_to_words=False,
        handle_impossible_answer=none,
    )  # fmt: skip
    found = ours.answer(PASSAGE, question=QUESTION, top=6, max_answer=5, allow_none=none)
    spans = [(one.start or 0, one.end or 0) for one in found.candidates]
    assert spans == [(one["start"], one["end"]) for one in expected]
    assert [one.text for one in found.candidates] == [one["answer"] for one in expected]
    # Theirs multiplies two probabilities of tokens, ours is one over spans: they differ by a factor.
    ratios = [a.probability / b["score"] for a, b in zip(found.candidates, expected, strict=True)]
    assert ratios == pytest.approx([ratios[0]] * len(ratios), rel=1e-3)
    assert (found.text, found.start) == (found.candidates[0].text, found.candidates[0].start)


@pytest.mark.parametrize("none", [False, True])
def test_bert_answers_as_the_published_pipeline(none: bool, tmp_path: Path) -> None:
    theirs, words = bert(tmp_path, "ForQuestionAnswering")
    if none:
        with torch.no_grad():  # no answer among the best
            theirs.qa_outputs.weight.mul_(0.1)
        theirs.save_pretrained(tmp_path)
    ours = regard.load(tmp_path)
    compare(ours, theirs, words, allow_none=none)
    everything = ours.answer(PASSAGE, question=QUESTION, top=1000, max_answer=5, allow_none=none)
    assert sum(one.probability for one in everything.candidates) == pytest.approx(1, abs=1e-6)
    assert [one.start is None for one in everything.candidates].count(True) == int(none)
    assert everything.tokens == len(words.encode(PASSAGE)) + len(words.encode(QUESTION)) + 3


def test_an_encoder_decoder_finds_answers(tmp_path: Path) -> None:
    words = framed_tokenizer("<bos> $A <eos>", "<bos> $A <eos> <eos> $B <eos>")
    config = transformers.BartConfig(
        vocab_size=words.vocab_size, d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24, max_position_embeddings=64,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=2,
    )  # fmt: skip
    theirs = put(tmp_path, "BartForQuestionAnswering", config, words)
    compare(regard.load(tmp_path), theirs, words)


@torch.no_grad()
def test_windows_repeat_the_question_and_count_each_span_once_with_most_context(tmp_path: Path) -> None:
    theirs, words = bert(tmp_path, "ForQuestionAnswering", max_position_embeddings=20)
    ours = regard.load(tmp_path)
    with pytest.raises(DataError, match=r"text 1 .* context is 20"):
        ours.answer(PASSAGE, question=QUESTION)
    assert list(check_answer(ours.parts, ["a", PASSAGE], question=QUESTION)) == [1]
    found = ours.answer(PASSAGE, question=QUESTION, windows=True, top=1000, max_answer=3)
    asked = words.encode(QUESTION)
    ids, places = words.offsets(PASSAGE)
    room = 20 - len(asked) - 3
    last = len(ids) - room
    begins = [*range(0, last, room - room // 2), last]
    nulls = []
    best: dict[tuple[int, int], tuple[float, float]] = {}
    for begin in begins:
        framed, segments = words.frame(asked, ids[begin : begin + room])
        out = theirs(torch.tensor([framed]), token_type_ids=torch.tensor([segments]))
        nulls.append(float(out.start_logits[0, 0] + out.end_logits[0, 0]))
        at = len(asked) + 2 - begin
        for i in range(begin, begin + room):
            for j in range(i, min(i + 3, begin + room)):
                left = 99 if begin == 0 else i - begin
                right = 99 if begin == last else begin + room - 1 - j
                score = float(out.start_logits[0, i + at] + out.end_logits[0, j + at])
                best[i, j] = max(best.get((i, j), (-1.0, 0.0)), (min(left, right), score), key=lambda x: x[0])
    scores = torch.tensor([score for _, score in best.values()]).double().softmax(0)
    expected = {(places[i][0], places[j][1]): p for (i, j), p in zip(best, scores.tolist(), strict=True)}
    assert found.windows == len(begins) > 2
    assert {(one.start, one.end): one.probability for one in found.candidates} == pytest.approx(
        expected, rel=1e-3
    )
    none = ours.answer(PASSAGE, question=QUESTION, windows=True, top=1000, max_answer=3, allow_none=True)
    scores = torch.tensor([min(nulls), *(score for _, score in best.values())]).double().softmax(0)
    (said,) = [one for one in none.candidates if one.start is None]
    assert said.text == ""
    assert said.probability == pytest.approx(float(scores[0]), rel=1e-3)


def test_neighbours_change_nothing_and_each_may_have_its_question() -> None:
    parts = make_parts("encoder", head="span")
    questions = [f"{text[:9]}?" for text in SENTENCES]
    together = answer(parts, SENTENCES, question=questions, windows=True, batch_tokens=100, top=3)
    for passage, question, one in zip(SENTENCES, questions, together, strict=True):
        alone = answer(parts, [passage], question=question, windows=True, top=3)[0]
        assert one.question == question
        assert [(c.start, c.end) for c in one.candidates] == [(c.start, c.end) for c in alone.candidates]
        assert one.probability == pytest.approx(alone.probability, rel=1e-4)


@pytest.mark.parametrize("words", ["bpe", "char", "unigram", "byte"])
def test_a_decoder_of_ours_answers_too(words: str) -> None:
    parts = make_parts("decoder", words=words, head="span")
    found = answer(parts, ["a dog runs"], question="who?", top=3)[0]
    assert len(found.candidates) == 3
    assert all("a dog runs"[one.start : one.end] == one.text for one in found.candidates)


@settings(max_examples=25, deadline=None)
@given(st.text(st.sampled_from("aé e\u0301日本🐕\u200d🦺\t\n .Ü<eos>"), max_size=30))
def test_every_span_is_where_it_says(passage: str) -> None:
    for words in ("bpe", "char", "byte", "wordpiece"):
        parts = make_parts("encoder", words=words, head="span", context=256)
        found = answer(parts, [passage], question="a?", top=20)[0]
        for one in found.candidates:
            assert one.start is not None and one.end is not None
            assert passage[one.start : one.end] == one.text == one.text.strip() != ""
        assert len({(one.start, one.end) for one in found.candidates}) == len(found.candidates)


def test_what_can_not_be_answered_is_said() -> None:
    parts = make_parts("encoder", head="span")
    empty = answer(parts, ["", "  "], question="who?")
    assert [(one.text, one.start, one.candidates) for one in empty] == [("", None, ())] * 2
    assert answer(parts, [""], question="who?", allow_none=True)[0].probability == 1
    with pytest.raises(ConfigError, match="a question is empty"):
        answer(parts, [], question=" ")
    with pytest.raises(ConfigError, match="2 questions and 1 passages"):
        answer(parts, ["a"], question=["a", "b"])
    with pytest.raises(ConfigError, match="can't answer, which takes a model that marks an answer's start"):
        answer(writer(), ["a"], question="who?")
    with pytest.raises(ConfigError, match="max_answer=0"):
        answer(parts, ["a"], question="who?", max_answer=0)
