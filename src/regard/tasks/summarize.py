"""Summarize: an encoder-decoder writes a shorter text, as it was published to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from regard.errors import ConfigError, DataError
from regard.generate.config import NO_LIMIT, SearchConfig, check_count
from regard.generate.published import Published
from regard.tasks.base import Parts
from regard.tasks.translate import BEAMS, by_length, encode_sources, prefixed, search_sources
from regard.tasks.verbs import check_verb

__all__ = ["Summary", "check_summaries", "summarize"]

_MOST = 256  # tokens of a summary, where neither the user nor the model says how many
_OVERLAP = 8  # a window repeats an eighth of the one before it
_ROUNDS = 10


@dataclass(frozen=True)
class Summary:
    """Hold the summary of one text.

    Attributes:
        text: the summary.
        score: its log-probability, divided by its length to the power of the length penalty; nats. Of several windows
            whose summaries were joined, the sum.
        source_tokens: how many tokens the text has, with those around it.
        tokens: how many tokens were written, in all windows and rounds.
        finished: False where the limit of tokens ended it, or any part of it.
        windows: 1, or into how many overlapping windows the text was cut.
        rounds: 1, or more where the joined summaries were longer than a summary may be, and summarised again.
    """

    text: str
    score: float
    source_tokens: int
    tokens: int
    finished: bool
    windows: int = 1
    rounds: int = 1

    def __str__(self) -> str:
        return self.text


def summarize(
    parts: Parts,
    texts: Sequence[str],
    *,
    beams: int | None = None,
    length_penalty: float | None = None,
    min_tokens: int | None = None,
    max_tokens: int | None = None,
    no_repeat_ngram: int | None = None,
    prefix: str | None = None,
    windows: bool = False,
    batch_tokens: int = 8192,
    on_done: Callable[[int], None] = lambda count: None,
) -> list[Summary]:
    """Summarise texts, in their order.

    What a text gives depends on it alone, never on its neighbours. A text of nothing but spaces has an empty summary.
    What isn't given is what the model was published with: its config.json's task "summarization", else its settings of
    generation; a run of ours has 4 beams and at most 256 tokens, or a quarter of its context.

    Args:
        parts: an encoder-decoder and its tokenizer.
        texts: each must fit the model's context, with `prefix` before it.
        beams: hypotheses kept at each step; 1 is greedy.
        length_penalty: scores are divided by length to this power; larger favours longer summaries.
        min_tokens: the shortest summary, in tokens.
        max_tokens: the longest summary, in tokens, its end included.
        no_repeat_ngram: no run of so many tokens comes twice; 0: no limit.
        prefix: what stands before each text, such as "summarize: " for T5.
        windows: cut a text that is too long into overlapping windows and join their summaries; what is then longer
            than one summary may be is summarised again.
        batch_tokens: source tokens times beams in memory at once.
        on_done: told after each round how many texts are done.

    Raises:
        DataError: a text is longer than the context.
        ConfigError: the model has no encoder and decoder, or a setting is out of range.
    """
    check_verb(parts.config, "summarize")
    check_count("batch_tokens", batch_tokens, low=1, high=10**9)
    own, before = _published(parts)
    before = before if prefix is None else prefix
    changes = {
        "num_beams": beams, "length_penalty": length_penalty, "min_tokens": min_tokens, "max_tokens": max_tokens,
        "no_repeat_ngram": no_repeat_ngram,
    }  # fmt: skip
    settings = _settings(parts, own, {name: value for name, value in changes.items() if value is not None})
    write = _Writing(parts, replace(parts, published=own), before, settings, batch_tokens)
    if not windows:
        for i, problem in check_summaries(parts, texts, prefix=prefix).items():
            beginning = texts[i] if len(texts[i]) <= 40 else texts[i][:39] + "…"
            raise DataError(f"text {i + 1} ({beginning!r}) {problem}")
    lengths = [len(ids) for ids in write.encoded(texts)]
    done: dict[int, Summary] = {
        i: Summary("", 0.0, lengths[i], 0, True) for i, text in enumerate(texts) if not text.strip()
    }
    going = {
        i: Summary(text, 0.0, lengths[i], 0, True, 1, 0) for i, text in enumerate(texts) if i not in done
    }
    while going:
        found, joined = write.round(going)
        going = {}
        for i, summary in found.items():
            # Several summaries side by side may be longer than one is allowed to be.
            if i not in joined or not write.is_long(summary.text):
                done[i] = summary
            elif summary.rounds < _ROUNDS:
                going[i] = summary
            else:
                done[i] = replace(summary, finished=False)
        on_done(len(done))
    return [done[i] for i in range(len(texts))]


def check_summaries(parts: Parts, texts: Sequence[str], *, prefix: str | None = None) -> dict[int, str]:
    """Find the texts that are too long for `summarize` without windows: their numbers, and what is wrong."""
    before = _published(parts)[1] if prefix is None else prefix
    most = parts.config.context
    said = f"tokens; this model reads at most {most}. Shorten it, or read it in windows (--windows)."
    lengths = [len(ids) for ids in encode_sources(parts, prefixed(texts, before))]
    return {i: f"has {length} {said}" for i, length in enumerate(lengths) if length > most}


def _published(parts: Parts) -> tuple[Published | None, str]:
    """Give how a published model summarises, and what stands before its texts."""
    if parts.published is None:
        return None, ""
    task = parts.published.task("summarization")
    return (parts.published, "") if task is None else (task.published, task.prefix)


def _settings(parts: Parts, own: Published | None, changes: dict[str, int | float]) -> SearchConfig:
    most = max(1, min(_MOST, parts.config.context // 4))
    if own is None:
        return SearchConfig(**{"num_beams": BEAMS, "max_tokens": most, **changes})  # type: ignore[arg-type]
    # A summary is no sample, and one is given.
    chosen: dict[str, Any] = {**NO_LIMIT, "temperature": 0.0, "num_return": 1, **changes}
    if own.max_length is None and own.config.max_tokens == SearchConfig().max_tokens:
        chosen.setdefault("max_tokens", most)
    settings = own.search(**chosen)
    if settings.max_tokens > parts.config.context:
        raise ConfigError(
            f"max_tokens={settings.max_tokens} is more than the model's context of {parts.config.context}; lower it."
        )
    return settings


class _Writing:
    """Summarise texts in rounds."""

    def __init__(
        self, parts: Parts, writing: Parts, prefix: str, settings: SearchConfig, batch_tokens: int
    ) -> None:
        self._parts, self._writing, self._prefix = parts, writing, prefix
        self._settings, self._budget = settings, max(1, batch_tokens // settings.num_beams)

    def encoded(self, texts: Sequence[str]) -> list[list[int]]:
        """Give the ids of texts with what stands before and around them."""
        return encode_sources(self._parts, prefixed(texts, self._prefix))

    def is_long(self, text: str) -> bool:
        """Tell whether a text has more tokens than a summary may have."""
        return len(self._parts.tokenizer.encode(text)) > self._settings.max_tokens

    def round(self, texts: dict[int, Summary]) -> tuple[dict[int, Summary], set[int]]:
        """Summarise each text once, or its windows; what was counted before is added.

        The second result tells which summaries are several, side by side.
        """
        pieces = [(i, piece) for i, before in texts.items() for piece in self._cut(before.text)]
        sources = self.encoded([piece for _, piece in pieces])
        found = {}
        for rows in by_length(sources, range(len(pieces)), self._budget):
            hypotheses = search_sources(self._writing, [sources[row] for row in rows], self._settings, None)
            found.update({row: best for row, (best, *_) in zip(rows, hypotheses, strict=True)})
        results, joined = {}, set()
        for i, before in texts.items():
            own = [found[row] for row, (number, _) in enumerate(pieces) if number == i]
            if len(own) > 1:
                joined.add(i)
            said = [text.strip() for text in self._parts.tokenizer.decode_batch([one.ids for one in own])]
            results[i] = Summary(
                " ".join(said), sum(one.normalised for one in own), before.source_tokens,
                before.tokens + sum(len(one.ids) + one.finished for one in own), all(one.finished for one in own),
                len(own) if before.rounds == 0 else before.windows, before.rounds + 1,
            )  # fmt: skip
        return results, joined

    def _cut(self, text: str) -> list[str]:
        """Cut a text into windows that fit the context with what stands around them, between words where it can."""
        context = self._parts.config.context
        if len(self.encoded([text])[0]) <= context:
            return [text]
        spans = self._parts.tokenizer.offsets(text)[1]
        room = context - len(self.encoded([""])[0])
        if room < 2:
            raise ConfigError(f"the prefix leaves no room in a context of {context}; shorten it.")
        windows: list[str] = []
        first = 0
        while first < len(spans):
            last, size = first, room
            while size >= 1:
                last = min(first + size, len(spans))
                piece = text[spans[first][0] : self._end(text, spans, first, last)]
                if len(self.encoded([piece])[0]) <= context:
                    break
                size -= max(1, size // 16)  # the same characters by themselves may take some tokens more
            else:
                raise DataError("a single token of the text leaves no room in the context beside the prefix.")
            windows.append(piece)
            if last == len(spans):
                break
            first = max(first + 1, last - max(1, size // _OVERLAP))
        return [window for window in windows if window.strip()] or [text]

    def _end(self, text: str, spans: Sequence[tuple[int, int]], first: int, last: int) -> int:
        """Give the place where a window ends: after a word, if one ends in its last eighth."""
        end = spans[last - 1][1]
        if last == len(spans) or text[end : end + 1].isspace():
            return end
        earliest = spans[max(first, last - max(1, (last - first) // _OVERLAP))][1]
        return next((at for at in range(end, earliest, -1) if text[at - 1 : at].isspace()), end)
