"""Tagging with scores of which tag follows which: the loss, the evaluation and the verb."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.tasks.small import SENTENCES, make_parts
from torch import Tensor

from regard.nn.crf import Transitions
from regard.tasks.base import Parts
from regard.tasks.entities import split_words
from regard.tasks.metrics import score_spans, spans
from regard.tasks.tag import TagTask, tag
from regard.training.loss import IGNORED, sequence_loss
from regard.training.micro import micro_batches
from regard.training.weighting import hiding_loss, weighted_loss

TASK = TagTask()
TAGS = ("B-X", "B-Y", "I-X", "O")


def tagger(kind: Any = "encoder", words: str = "char", transitions: bool = True, **changes: Any) -> Parts:
    """Make a tagger; its scores of which tag follows which are as large as its logits."""
    parts = make_parts(kind, words=words, head="tag", labels=TAGS, head_transitions=transitions, **changes)
    if transitions:
        torch.manual_seed(5)
        with torch.no_grad():
            for scores in chain_of(parts).parameters():
                scores.normal_(std=2)
    return parts


def chain_of(parts: Parts) -> Transitions:
    chain = parts.module.head.transitions
    assert isinstance(chain, Transitions)
    return chain


@torch.no_grad()
def alone(parts: Parts, words: list[str]) -> tuple[list[int], Tensor, Tensor]:
    """Give the best tags of a sentence's words, the probability of every tag at each (N, L), and the logits."""
    ids, numbers = parts.tokenizer.encode_words(words)
    places = [1 + numbers.index(word) for word in range(len(words))]
    logits = parts.module(torch.tensor([[1, *ids, 2]]))[:, places].double()
    real = torch.ones(1, len(words), dtype=torch.bool)
    chain = chain_of(parts)
    return chain.best(logits, real)[0].tolist(), chain.marginals(logits, real)[0], logits[0]


# The loss


def ragged(parts: Parts) -> dict[str, Any]:
    """Make a batch of three sentences with gaps between their words, one of them without words."""
    torch.manual_seed(0)
    ids = torch.randint(5, parts.config.vocab_size, (3, 9))
    key_mask = torch.arange(9) < torch.tensor([[9], [6], [4]])
    labels = torch.full((3, 9), IGNORED)
    for row, places in enumerate([[1, 3, 4, 7], [1, 2, 4], []]):
        labels[row, places] = torch.randint(0, len(TAGS), (len(places),))
    return {"ids": ids, "key_mask": key_mask, "labels": labels, "tokens": 7}


def test_the_loss_is_the_likelihood_of_the_sentences() -> None:
    parts, batch = tagger(), ragged(tagger())
    found = sequence_loss(parts.module, batch)
    found.loss.backward()
    logits, total = parts.module(batch["ids"], key_mask=batch["key_mask"]), torch.zeros(())
    for row, labels in zip(logits, batch["labels"], strict=True):
        own = labels != IGNORED
        if own.any():
            words, real = row[own][None], torch.ones(1, int(own.sum()), dtype=torch.bool)
            chain = chain_of(parts)
            total = (
                total + chain.log_partition(words, real)[0] - chain.score(words, labels[own][None], real)[0]
            )
    torch.testing.assert_close(found.loss, total)
    torch.testing.assert_close(found.nll, total.detach())
    assert (found.tokens, found.loss.dtype) == (7, torch.float32)
    for scores in chain_of(parts).parameters():
        assert scores.grad is not None and scores.grad.abs().sum() > 0


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_at_first_the_loss_is_that_of_words_by_themselves(smoothing: float) -> None:
    fresh, plain = (
        make_parts("encoder", head="tag", labels=TAGS, head_transitions=True),
        tagger(transitions=False),
    )
    with torch.no_grad():
        for scores in chain_of(fresh).parameters():
            scores.zero_()
    fresh.module.load_state_dict(plain.module.state_dict(), strict=False)
    batch, weights = ragged(plain), torch.tensor([0.5, 1.0, 2.0, 3.0])
    for loss in (lambda m, b: sequence_loss(m, b, smoothing, chunk=2), weighted_loss(weights, smoothing)):
        mine, other = loss(fresh.module, batch), loss(plain.module, batch)
        torch.testing.assert_close(mine.loss, other.loss)
        torch.testing.assert_close(mine.nll, other.nll)


def test_parts_of_a_batch_weights_hidden_words_and_bf16() -> None:
    parts = tagger()
    batch, module = ragged(parts), parts.module
    whole = sequence_loss(module, batch)
    pieces = [sequence_loss(module, part) for part in micro_batches(batch, 9)]
    assert len(pieces) == 3
    torch.testing.assert_close(sum(piece.loss for piece in pieces), whole.loss)
    torch.testing.assert_close(weighted_loss(torch.ones(4))(module, batch).loss, whole.loss)
    weighted = weighted_loss(torch.tensor([0.5, 1.0, 2.0, 3.0]))(module, batch)
    assert weighted.loss != whole.loss
    torch.testing.assert_close(weighted.nll, whole.nll)
    torch.testing.assert_close(hiding_loss(sequence_loss, 0.0, 3)(module, batch).loss, whole.loss)
    assert hiding_loss(sequence_loss, 0.9, 3)(module, batch).loss.isfinite()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = sequence_loss(module, batch)
    rough.loss.backward()
    assert rough.loss.dtype == torch.float32
    torch.testing.assert_close(rough.loss, whole.loss, rtol=0.05, atol=0)


# The evaluation and the verb


@pytest.mark.parametrize("words", ["char", "bpe"])
@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_it_is_measured_by_the_best_sequences(tmp_path: Path, kind: str, words: str) -> None:
    parts = tagger(kind, words)
    rows = [
        {"words": text.split(), "tags": ["B-X", "O", *["I-X"] * 20][: len(text.split())]}
        for text in SENTENCES
    ]
    TASK.encode(rows, parts.tokenizer, parts.config, tmp_path)
    found = TASK.evaluate(parts, rows, TASK.open_stores(tmp_path), quick=False).metrics
    answers = [[TAGS[k] for k in alone(parts, row["words"])[0]] for row in rows]
    truths = [row["tags"] for row in rows]
    assert (found["precision"], found["recall"], found["f1"]) == pytest.approx(score_spans(answers, truths))
    assert found["accuracy"] == pytest.approx(
        np.mean([a == t for x, y in zip(answers, truths, strict=True) for a, t in zip(x, y, strict=True)])
    )


@pytest.mark.parametrize("words", ["char", "bpe"])
@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_the_verb_gives_the_best_sequence_and_its_tags_probabilities(kind: str, words: str) -> None:
    parts = tagger(kind, words)
    texts = [*SENTENCES, "a, dog; (runs)", "", "  "]
    number = differing = 0
    results = tag(parts, texts)
    for text, result in zip(texts, results, strict=True):
        own = tag(parts, [text], batch_tokens=1)[0]  # whatever its neighbours
        assert str(own) == str(result)
        assert [e.score for e in own.entities] == pytest.approx([e.score for e in result.entities], rel=1e-5)
        places = split_words(text)
        if not places:
            assert result.entities == ()
            continue
        best, shares, logits = alone(parts, [text[start:end] for start, end in places])
        names, sure = [TAGS[k] for k in best], shares[range(len(best)), best]
        wanted = sorted(spans(names), key=lambda span: span[1])
        found = [(one.label, one.start, one.end) for one in result.entities]
        assert found == [(name, places[first][0], places[last - 1][1]) for name, first, last in wanted]
        for one, (_, first, last) in zip(result.entities, wanted, strict=True):
            assert one.score == pytest.approx(float(sure[first:last].mean()), rel=1e-5)
            assert 0 <= one.score <= 1
        single = tag(parts, [text], strategy="none")[0].entities
        assert [one.label for one in single] == [name for name in names if name != "O"]
        assert [one.score for one in single] == pytest.approx(
            [float(p) for p, name in zip(sure, names, strict=True) if name != "O"], rel=1e-5
        )
        number += len(wanted)
        differing += best != logits.argmax(-1).tolist()
    assert number > 5 and differing > 2  # from tags chosen one by one


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_windows_are_one_sequence(kind: str) -> None:
    parts, words = tagger(kind, context=32), "a b " * 20
    plain = tagger(kind, context=32, transitions=False)
    plain.module.load_state_dict(parts.module.state_dict(), strict=False)
    seen: list[Tensor] = []
    whole = Transitions.best

    def noted(chain: Transitions, emissions: Tensor, mask: Tensor) -> Tensor:
        seen.append(emissions)
        return whole(chain, emissions, mask)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Transitions, "best", noted)
        result = tag(parts, [words], windows=True, strategy="none")[0]
    (emissions,) = seen
    assert emissions.shape == (1, 40, 4)
    assert (result.windows, result.tokens) == (5, 5 * 32)
    # Each word's logits are those of the window that shows most around it, as without transitions.
    single = tag(plain, [words], windows=True, strategy="none")[0].entities
    likeliest = {2 * i: TAGS[k] for i, k in enumerate(emissions[0].argmax(-1).tolist())}
    assert {one.start: one.label for one in single} == {i: n for i, n in likeliest.items() if n != "O"}
    best = chain_of(parts).best(emissions, torch.ones(1, 40, dtype=torch.bool))[0].tolist()
    assert {one.start: one.label for one in result.entities} == {
        2 * i: TAGS[k] for i, k in enumerate(best) if TAGS[k] != "O"
    }


@given(
    st.text(
        st.sampled_from("aA é\u0301\u0308👩👍🏽\u200d\ufe0f🇫🇷東京İß .,'s@\u00a0\t\n\x00\u200b"), max_size=20
    )
)
def test_places_are_exact_and_scores_are_probabilities(text: str) -> None:
    parts = tagger(context=24)
    for strategy in ("none", "first"):
        last = 0
        for one in tag(parts, [text], strategy=strategy, windows=True)[0].entities:
            assert last <= one.start < one.end <= len(text)
            assert text[one.start : one.end] == one.text
            assert 0 <= one.score <= 1
            last = one.end
