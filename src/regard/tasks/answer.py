"""Answer: find the words of a passage that answer a question, by the scores of their start and end.

question, passage ─> windows of the passage, each after the question ─> a score for every span ─> the best ones
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from regard.errors import ConfigError
from regard.generate.config import check_count
from regard.tasks.base import Parts
from regard.tasks.framing import as_trained, margin, refuse
from regard.tasks.inputs import Input, batches, check_lengths, make_inputs
from regard.tasks.verbs import check_verb

__all__ = ["Answer", "Span", "answer", "check_answer"]

_NONE = float("-inf")


@dataclass(frozen=True)
class Span:
    """Hold one candidate.

    Attributes:
        text: words of the passage; empty where it says that there is no answer.
        start: its first character in the passage; None where there is no answer.
        end: the character after its last; None where there is no answer.
        probability: over all spans that may be an answer, and no answer where that is allowed.
    """

    text: str
    start: int | None
    end: int | None
    probability: float


@dataclass(frozen=True)
class Answer:
    """Hold what a passage says to a question.

    Attributes:
        text, start, end, probability: of the best candidate, as in Span.
        question: what was asked.
        candidates: the best ones, the first among them; none where the passage has no words.
        tokens: how many tokens question and passage took, special ones included.
        windows: into how many windows the passage was cut; 1 where it wasn't.
    """

    text: str
    start: int | None
    end: int | None
    probability: float
    question: str
    candidates: tuple[Span, ...]
    tokens: int
    windows: int = 1

    def __str__(self) -> str:
        return self.text


def answer(
    parts: Parts,
    passages: Sequence[str],
    *,
    question: str | Sequence[str],
    top: int = 1,
    max_answer: int = 30,
    allow_none: bool = False,
    windows: bool = False,
    batch_tokens: int = 8192,
    on_done: Callable[[int], None] = lambda count: None,
) -> list[Answer]:
    """Find the answer to a question in each passage.

    A span's score is the sum of its first token's start score and its last token's end score; the probability is the
    softmax of that over all spans of the passage. In overlapping windows a span counts once, in the window in which it
    stands farthest from a cut. No answer scores what the frame's first token does (BERT, 2018, section 4.3), in the
    window where that is least. Spaces at either end of a span are left out of it.

    Args:
        parts: a model with head "span", and its tokenizer.
        passages: where to look.
        question: one for all passages, or one for each.
        top: how many candidates each passage gets; fewer where it has fewer.
        max_answer: the longest answer, in tokens.
        allow_none: let "no answer" be a candidate; for models that were trained with such questions (SQuAD 2).
        windows: cut passages that don't fit into overlapping windows, the question before each.
        batch_tokens: tokens in memory at once.
        on_done: told after each batch how many windows it finished.

    Raises:
        ConfigError: the model finds no answers, or a setting is out of range.
        DataError: question and passage are longer than the context.
    """
    check_verb(parts.config, "answer")
    check_count("top", top, low=1, high=1000)
    check_count("max_answer", max_answer, low=1, high=10_000)
    check_count("batch_tokens", batch_tokens, low=1, high=10**9)
    questions = _questions(question, len(passages))
    parts = as_trained(parts)
    inputs, spans = _inputs(parts, questions, passages, windows=windows)
    refuse(check_lengths(inputs, parts.config), passages)
    if allow_none and any(one.start == 0 for one in inputs):
        raise ConfigError(
            "allow_none needs a model whose texts begin with a special token; this one's don't."
        )
    merged = [_Merged(len(offsets), max_answer) for offsets in spans]
    cut = [0] * len(passages)
    module: Any = parts.module
    for batch in batches(parts, inputs, batch_tokens=batch_tokens):
        with torch.inference_mode():
            if parts.config.kind == "encoder-decoder":
                logits = module(batch.ids, source_mask=batch.mask)
            else:
                logits = module(batch.ids, key_mask=batch.mask, segments=batch.segments)
        for one, scores in zip(batch.inputs, logits.float().cpu(), strict=True):
            merged[one.text].add(one, scores)
            cut[one.text] += 1
        on_done(len(batch.inputs))
    total = {one.text: one.total for one in inputs}
    return [
        _answer(
            passage, asked, merged[i].best(passage, spans[i], top, allow_none=allow_none), total[i], cut[i]
        )
        for i, (passage, asked) in enumerate(zip(passages, questions, strict=True))
    ]


def check_answer(
    parts: Parts, passages: Sequence[str], *, question: str | Sequence[str], windows: bool = False
) -> dict[int, str]:
    """Find the passages that `answer` would refuse: the number of each, from 0, and what is wrong with it."""
    parts = as_trained(parts)
    inputs, _ = _inputs(parts, _questions(question, len(passages)), passages, windows=windows)
    return check_lengths(inputs, parts.config)


def _questions(question: str | Sequence[str], count: int) -> list[str]:
    if isinstance(question, str):
        question = [question] * max(1, count)
        asked = question[:count]
    else:
        asked = question = list(question)
    if len(asked) != count:
        raise ConfigError(f"{len(asked)} questions and {count} passages; give one question, or one for each.")
    if any(not one.strip() for one in question):
        raise ConfigError("a question is empty; ask something.")
    return asked


def _inputs(
    parts: Parts, questions: Sequence[str], passages: Sequence[str], *, windows: bool
) -> tuple[list[Input], list[list[tuple[int, int]]]]:
    """Give the windows, and for each passage the characters of its tokens."""
    found = [parts.tokenizer.offsets(passage) for passage in passages]
    asked = parts.tokenizer.encode_batch(list(questions))
    inputs = make_inputs(parts, [ids for ids, _ in found], pairs=asked, windows=windows)
    return inputs, [spans for _, spans in found]


class _Merged:
    """Gather the scores of a passage's spans from its windows: row i and column d are tokens i to i + d."""

    def __init__(self, tokens: int, longest: int) -> None:
        shape = (tokens, min(longest, max(1, tokens)))
        self._scores, self._margins = torch.full(shape, _NONE), torch.full(shape, _NONE)
        self._null = float("inf")

    def add(self, one: Input, logits: Float[Tensor, "T 2"]) -> None:
        """Take the scores of a window's tokens; for each span the window counts that knows most of what is around."""
        self._null = min(self._null, float(logits[0].sum()))
        own = logits[one.start : one.start + one.count]
        margins = torch.tensor([margin(one, one.first + k) for k in range(one.count)])
        for d in range(min(self._scores.shape[1], one.count)):
            part = slice(one.first, one.first + one.count - d)
            score = own[: one.count - d, 0] + own[d:, 1]
            # Of the tokens in a span, those at its ends stand nearest to a cut.
            around = torch.minimum(margins[: one.count - d], margins[d:])
            better = around > self._margins[part, d]
            self._scores[part, d] = torch.where(better, score, self._scores[part, d])
            self._margins[part, d] = torch.where(better, around, self._margins[part, d])

    def best(
        self, passage: str, spans: Sequence[tuple[int, int]], top: int, *, allow_none: bool
    ) -> tuple[Span, ...]:
        """Give the best spans, each place in the passage once."""
        scores = self._scores.flatten()
        if allow_none:
            scores = torch.cat([scores, torch.tensor([self._null])])
        chances = scores.double().softmax(0) if len(scores) else scores
        order = chances.argsort(descending=True, stable=True)
        width = self._scores.shape[1]
        chosen: list[Span] = []
        seen: set[tuple[int, int]] = set()
        for place in order.tolist():
            if len(chosen) == top or scores[place] == _NONE:
                break
            if place == self._scores.numel():
                chosen.append(Span("", None, None, float(chances[place])))
                continue
            first, length = divmod(place, width)
            start, end = _trimmed(passage, spans[first][0], spans[first + length][1])
            if start < end and (start, end) not in seen:
                seen.add((start, end))
                chosen.append(Span(passage[start:end], start, end, float(chances[place])))
        return tuple(chosen)


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _answer(passage: str, question: str, spans: tuple[Span, ...], tokens: int, windows: int) -> Answer:
    best = spans[0] if spans else Span("", None, None, 0.0)
    return Answer(best.text, best.start, best.end, best.probability, question, spans, tokens, windows)
