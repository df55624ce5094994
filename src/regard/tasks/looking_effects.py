"""What a change to a model does: to what it says, to its loss, to the text that it writes, and to a measure.

What is scored, by the model's head (in nats):

    decoder, encoder-decoder    each next token of the text (of the target, its end among them)
    encoder over a vocabulary   each token of the text with itself masked, every seventh in one pass; without a mask
                                token, each token while it is seen; or the labels that are given
    classes, tags, spans        the labels that are given, or else what the model said before the change
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from regard.data.tokenizers import Tokenizer
from regard.errors import ConfigError
from regard.look.corpus import interval_of_mean
from regard.look.intervene import Change, How, intervening, off
from regard.look.places import find_place, head_names, mean_values
from regard.nn.taps import tapping, unchanged
from regard.tasks.base import Parts
from regard.tasks.generate import generate
from regard.tasks.looking import Reading
from regard.tasks.looking_answers import Answers, Names, Row
from regard.tasks.translate import as_published, translate

__all__ = ["Effect", "Outcome", "TokenChange", "effect", "head_effects"]


@dataclass(frozen=True)
class Effect:
    """Hold what switching one head off does to the loss.

    Attributes:
        layer, head: which one.
        loss_before, loss_after: in nats a token, the mean over examples of each one's mean.
        change: their difference; above 0 where the head helped.
        low, high: the interval of the change, 95 %, by Student's t over the examples' differences. It is each head's
            own: among a hundred heads, some five lie outside theirs.
        n: how many examples.
    """

    layer: str
    head: int
    loss_before: float
    loss_after: float
    change: float
    low: float
    high: float
    n: int

    @property
    def name(self) -> str:
        """Give the head's name, as in encoder.3.5."""
        return f"{self.layer}.{self.head}"


@dataclass(frozen=True)
class TokenChange:
    """Say how one answer of the model changed.

    Attributes:
        example: which reading.
        token: the number of the row that answers, in the text or target; 0 for a whole text's class.
        text: that token.
        kl: Kullback-Leibler divergence in nats, KL(before || after).
        before, after: the likeliest answer, with its probability.
        loss_before, loss_after: of the right answer, in nats; None where none is known.
    """

    example: int
    token: int
    text: str
    kl: float
    before: tuple[str, float]
    after: tuple[str, float]
    loss_before: float | None
    loss_after: float | None


@dataclass(frozen=True)
class Outcome:
    """Hold what changes did.

    Attributes:
        changes: what was done, in words.
        kl: the mean over all answers of KL(before || after), in nats.
        changed: the share of answers whose likeliest one became another.
        tokens: every answer, in the texts' order.
        loss_before, loss_after, change, low, high, n: as in `Effect`.
        texts: what was written before and after, for each reading; empty where nothing was.
        metric: the given measure before and after, or None.
        how: what the loss is of, in words.
    """

    changes: tuple[str, ...]
    kl: float
    changed: float
    tokens: tuple[TokenChange, ...]
    loss_before: float
    loss_after: float
    change: float
    low: float
    high: float
    n: int
    texts: tuple[tuple[str, str], ...]
    metric: tuple[float, float] | None
    how: str


def effect(
    parts: Parts,
    readings: Sequence[Reading],
    changes: Sequence[Change],
    *,
    labels: Sequence[Any] | None = None,
    max_tokens: int | None = None,
    metric: Callable[[], float] | None = None,
    target_tokenizer: Tokenizer | None = None,
    source_language: str | None = None,
    target_language: str | None = None,
    batch_tokens: int = 8192,
) -> Outcome:
    """Say what changes do to a model on some texts.

    Args:
        parts: a model and its tokenizer.
        readings: the texts, from `regard.tasks.looking.read`.
        changes: from `off`, `keep_only` and `patch`.
        labels: for each reading: a class (several: a collection), (first, last) tokens of an answer, a tag or None for
            each token, or {token: id} for an encoder with masks in its text; None as the module's text says.
        max_tokens: write so many tokens, greedily, before and after: a decoder goes on from each text, an
            encoder-decoder translates each source. None writes nothing.
        metric: a measure of the model, called before and under the changes.
        target_tokenizer: the targets', where it is another one.
        source_language: as in `translate`.
        target_language: as in `translate`.
        batch_tokens: tokens in memory at once.

    Raises:
        ConfigError: a change or a label doesn't fit the model, or the model has no head.
    """
    steps = [step for change in changes for step in change.steps(parts.config)]
    placed = [step for step in steps if step.positions is not None or step.patches]
    corpus = Answers(parts, readings, labels, batch_tokens=batch_tokens, alone=bool(placed))
    if max_tokens is not None:
        late = [step.place.name for step in placed if not step.place.tap.startswith("encoder")]
        if late or parts.config.head != "lm" or parts.config.kind == "encoder":
            why = (
                f"{late[0]} is changed at positions of a whole text" if late else "this model writes nothing"
            )
            raise ConfigError(f"{why}; leave max_tokens out.")
    names = Names(parts, readings, target_tokenizer)
    found: list[list[TokenChange]] = [[] for _ in readings]
    losses = torch.zeros(2, len(readings), dtype=torch.float64)
    for group in corpus.groups():
        with tapping(unchanged):
            before = corpus.states(group)
        with intervening(parts, *changes):
            after = corpus.states(group)
        for row, old, new in zip(group, before, after, strict=True):
            found[row.example] += _compared(corpus, row, (old, new), names)
    for k, tokens in enumerate(found):
        tokens.sort(key=lambda one: one.token)
        scored = [(t.loss_before, t.loss_after) for t in tokens if t.loss_before is not None]
        losses[:, k] = torch.tensor(scored, dtype=torch.float64).mean(0) if scored else torch.nan
    every = [token for tokens in found for token in tokens]
    texts: tuple[tuple[str, str], ...] = ()
    if max_tokens is not None:
        many = [[reading] for reading in readings] if placed else [list(readings)]
        languages = {"source_language": source_language, "target_language": target_language}
        for some in many:
            with tapping(unchanged):
                old_texts = _written(parts, some, max_tokens, **languages)
            with intervening(parts, *changes):
                new_texts = _written(parts, some, max_tokens, **languages)
            texts += tuple(zip(old_texts, new_texts, strict=True))
    measured = None
    if metric is not None:
        with tapping(unchanged):
            first = metric()
        with intervening(parts, *changes):
            measured = (first, metric())
    return Outcome(
        tuple(map(str, changes)), math.fsum(t.kl for t in every) / len(every),
        sum(t.before[0] != t.after[0] for t in every) / len(every), tuple(every), *_sum_up(*losses), texts, measured,
        corpus.how,
    )  # fmt: skip


def head_effects(
    parts: Parts,
    examples: Sequence[Reading],
    *,
    heads: Sequence[str] | None = None,
    how: How = "zero",
    labels: Sequence[Any] | None = None,
    batch_tokens: int = 8192,
    progress: Callable[[int, int], None] | None = None,
) -> list[Effect]:
    """Switch each head off in turn, over all examples: one pass over them a head, and one without any change.

    Args:
        parts: a model and its tokenizer.
        examples: the texts, from `regard.tasks.looking.read`; each counts the same, whatever its length.
        heads: names as in encoder.3.5; None: every head of the model.
        how: "zero", or "mean": of what the head mixes over all tokens of the examples.
        labels: as in `effect`.
        batch_tokens: tokens in memory at once.
        progress: told (heads done, heads in all).

    Returns:
        The effects, largest loss first: the head that the model needs most.

    Raises:
        ConfigError: there is no such head, the model has no head over anything, or there are no examples.
    """
    if how not in ("zero", "mean"):
        raise ConfigError(f"how={how!r} is not for heads; use 'zero' or 'mean'.")
    names = head_names(parts.config) if heads is None else list(heads)
    places = [find_place(parts.config, name) for name in names]
    for place in places:
        if place.head is None:
            raise ConfigError(
                f"{place.name} is no head; heads are named as in {head_names(parts.config)[0]}."
            )
    corpus = Answers(parts, examples, labels, batch_tokens=batch_tokens)
    means = mean_values(parts, examples, names) if how == "mean" else None
    with tapping(unchanged):
        before = corpus.losses()
    found = []
    for done, place in enumerate(places, 1):
        with intervening(parts, off(place.name, how=how, means=means)):
            after = corpus.losses()
        assert place.head is not None
        found.append(Effect(place.tap.removesuffix(".heads"), place.head, *_sum_up(before, after)))
        if progress is not None:
            progress(done, len(places))
    return sorted(found, key=lambda one: -one.change)


def _sum_up(before: Tensor, after: Tensor) -> tuple[float, float, float, float, float, int]:
    kept = before.isfinite() & after.isfinite()
    before, after = before[kept], after[kept]
    if not len(before):
        raise ConfigError("there is nothing to score in these texts; give longer ones, or labels.")
    change = (after - before).double()
    _, low, high = interval_of_mean(change.tolist())
    return float(before.mean()), float(after.mean()), float(change.mean()), low, high, len(before)


def _compared(corpus: Answers, row: Row, states: tuple[Tensor, Tensor], names: Names) -> list[TokenChange]:
    """Compare a row's answers before and after."""
    found: list[TokenChange] = []
    for before, after in zip(corpus.answers(states[0]), corpus.answers(states[1]), strict=True):
        kl = (before.double().exp() * (before.double() - after.double())).sum(-1)
        old, new = before.max(-1), after.max(-1)
        for k in range(len(before)):
            number = len(found)
            wanted = row.wanted[number]
            where, text = names.place(row, number)
            found.append(
                TokenChange(
                    row.example, where, text, max(0.0, float(kl[k])),
                    (names.answer(row, number, int(old.indices[k])), float(old.values[k].exp())),
                    (names.answer(row, number, int(new.indices[k])), float(new.values[k].exp())),
                    None if wanted < 0 else -float(before[k, wanted]),
                    None if wanted < 0 else -float(after[k, wanted]),
                )
            )  # fmt: skip
    return found


def _written(
    parts: Parts, readings: Sequence[Reading], max_tokens: int, *, source_language: str | None,
    target_language: str | None,
) -> list[str]:  # fmt: skip
    """Write greedily after each text, or translate each source."""
    if parts.config.kind == "decoder":
        prompts = [reading.sides["text"].text for reading in readings]
        return [
            one.text for one in generate(parts, prompts, temperature=0.0, num_beams=1, max_tokens=max_tokens)
        ]
    _, prefix = as_published(parts, source_language, target_language)
    sources = [reading.sides["source"].text.removeprefix(prefix) for reading in readings]
    done = translate(
        parts, sources, beams=1, max_tokens=max_tokens, source_language=source_language,
        target_language=target_language,
    )  # fmt: skip
    return [one.text for one in done]
