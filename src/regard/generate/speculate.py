"""Speculation: guess several tokens cheaply, let the model read them at once, and keep those it would have chosen.

The text is token for token the one that is written without guesses, greedy or sampled: a guess stays only where the
model, with that step's own random number, chooses the same token. What is saved are steps of the model.
Source: Leviathan et al. 2023, arXiv:2211.17192, in its exact form; prompt lookup: arXiv:2304.04487.

    guesses ──> one step of the model over all of them ──> the first wrong one is put right, the cache goes back to it

The rows of a batch share the slots of one cache. So it goes back to where the slowest row is, and the others are fed
once more what they know already: guesses that can't be wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from regard.generate.config import Decoding, Hypothesis, SearchConfig, check_count
from regard.generate.drawing import OnToken, Stop, Streams, Text, sample
from regard.generate.logits import Transform, compose, filters, not_finite, nothing_left

__all__ = ["Drafter", "Lookup", "ModelDraft", "speculate"]

MOST = 32
"""The most guesses at once: what a cache with a window can take back, with room to spare."""


class Drafter(Protocol):
    """Guess how texts go on. A guess costs nothing but time when it is wrong."""

    num_tokens: int

    def begin(self, prompts: list[list[int]]) -> None:
        """Take the prompts of a batch; called once, before anything else."""
        ...

    def propose(self, texts: list[list[int]], counts: list[int]) -> list[list[int]]:
        """Guess, for the new tokens of each row, the next ones: at most `counts` of them, perhaps none."""
        ...

    def keep(self, places: list[int]) -> None:
        """Go on with these rows alone, in this order."""
        ...


class Lookup:
    """Guess that what stood before in the prompt or the text comes again after the same few tokens."""

    def __init__(self, num_tokens: int = 8, *, longest: int = 3) -> None:
        """Guess `num_tokens` (1 to 32) from the latest place with the same last tokens, `longest` at most."""
        self.num_tokens = check_count("num_tokens", num_tokens, low=1, high=MOST)
        self._longest = check_count("longest", longest, low=1, high=100)
        self._prompts: list[list[int]] = []

    def begin(self, prompts: list[list[int]]) -> None:
        """Take the prompts."""
        self._prompts = prompts

    def propose(self, texts: list[list[int]], counts: list[int]) -> list[list[int]]:
        """Copy what followed the longest run that also ends the text."""
        rows = zip(self._prompts, texts, counts, strict=True)
        return [self._guess([*prompt, *text], count) for prompt, text, count in rows]

    def keep(self, places: list[int]) -> None:
        """Go on with these rows."""
        self._prompts = [self._prompts[place] for place in places]

    def _guess(self, ids: list[int], count: int) -> list[int]:
        for size in range(min(self._longest, len(ids) - 1), 0, -1):
            run = ids[-size:]
            for at in range(len(ids) - size - 1, -1, -1):
                if ids[at] == run[0] and ids[at : at + size] == run:
                    return ids[at + size : at + size + max(0, count)]
        return []


class ModelDraft:
    """Let a smaller model with the same vocabulary guess, greedily."""

    def __init__(
        self,
        start: Callable[[int], Decoding],
        *,
        context: int,
        num_tokens: int = 4,
        pad_id: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        """Guess `num_tokens` (1 to 32) with states that `start` gives for so many rows, within their `context`."""
        self.num_tokens = check_count("num_tokens", num_tokens, low=1, high=MOST)
        self._start, self._context, self._pad, self._device = start, context, pad_id, device
        self._state: Decoding | None = None
        self._fed: list[list[int]] = []  # what each row's state holds behind its prompt
        self._longest = 0

    def begin(self, prompts: list[list[int]]) -> None:
        """Read the prompts; where one is longer than this model's context, nothing is guessed."""
        self._longest, self._state = max(map(len, prompts)), None
        self._fed = [[] for _ in prompts]
        if self._longest < self._context:
            ids = [[self._pad] * (self._longest - len(row)) + row for row in prompts]
            mask = [[False] * (self._longest - len(row)) + [True] * len(row) for row in prompts]
            self._state = self._start(len(prompts))
            self._state.advance(
                torch.tensor(ids, device=self._device),
                torch.tensor(mask, device=self._device),
                only_last=True,
            )

    def propose(self, texts: list[list[int]], counts: list[int]) -> list[list[int]]:
        """Go on from the texts, all rows in the same slots: where a row knows its token, it takes that."""
        shortest = min(map(len, texts))
        last = max((len(t) + c - 1 for t, c in zip(texts, counts, strict=True) if c > 0), default=0)
        last = min(last, self._context - self._longest)
        if self._state is None or last < shortest:
            return [[] for _ in texts]
        common = min(_agreeing(fed, text, shortest - 1) for fed, text in zip(self._fed, texts, strict=True))
        if len(self._fed[0]) > common:
            self._state.rewind(len(self._fed[0]) - common)
        known = [list(text) for text in texts]
        logits = self._feed([text[common:shortest] for text in known])
        for slot in range(shortest, last + 1):
            for text, guess in zip(known, logits.argmax(-1).tolist(), strict=True):
                if len(text) == slot:
                    text.append(guess)
            if slot < last:
                logits = self._feed([text[slot : slot + 1] for text in known])
        self._fed = [text[:last] for text in known] if last > shortest else [t[:shortest] for t in known]
        return [k[len(t) : len(t) + max(0, c)] for k, t, c in zip(known, texts, counts, strict=True)]

    def keep(self, places: list[int]) -> None:
        """Go on with these rows."""
        if self._state is not None:
            self._state.reorder(torch.tensor(places, device=self._device))
            self._fed = [self._fed[place] for place in places]

    def _feed(self, rows: list[list[int]]) -> Tensor:
        assert self._state is not None
        return self._state.advance(torch.tensor(rows, device=self._device), only_last=True)[:, -1]


def speculate(
    state: Decoding,
    logits: Tensor,
    ids: Tensor,
    *,
    drafter: Drafter,
    eos: tuple[int, ...],
    pad_id: int,
    config: SearchConfig,
    rows: Sequence[int],
    transforms: Sequence[Transform],
    on_token: OnToken | None,
    stop: Stop | None,
) -> list[list[Hypothesis]]:
    """Search greedily or by sampling with guesses; `search` is the public face of it.

    Args:
        state: after the prompts; it must be able to `rewind`.
        logits: (B, V) after the prompts.
        ids: (B, P) the prompts, below 0 where padded.
        drafter: guesses; it has not begun.
        eos: the tokens that end a text.
        pad_id: fed where a row has fewer tokens than others.
        config: how to choose.
        rows: the rows' numbers.
        transforms: changes of the logits.
        on_token: as in `search`.
        stop: as in `search`.

    Raises:
        RegardError: logits are NaN or infinite, or all tokens of a row are forbidden.
    """
    choose = _Chooser(eos, config, list(rows), transforms)
    texts = [Text() for _ in rows]
    live = list(range(len(rows)))
    fed = ids[:, :0]  # the new tokens that the state holds, of every row that goes on
    drafter.begin([[i for i in row if i >= 0] for row in ids.tolist()])

    def decide(places: list[int], scores: Tensor, before: Tensor) -> list[int]:
        """Give each of these rows its next token, and tell which go on."""
        own = [live[place] for place in places]
        chosen = choose(scores, before, own, [texts[row].length for row in own])
        found = zip(places, own, *chosen, strict=True)
        return [
            place
            for place, row, token, nats in found
            if texts[row].add(token, nats, eos, row, on_token, stop) and texts[row].length < config.max_tokens
        ]

    def ready(place: int, start: int, j: int) -> bool:
        """Tell whether all that a row was fed up to `j` is its own text, and the next token not known."""
        own = texts[live[place]].ids
        return len(own) == start + j + 1 and own[start:] == blocks[place][: j + 1]

    going = decide(list(range(len(live))), logits, ids)
    while going:
        if len(going) < len(live):
            live = [live[place] for place in going]
            kept = torch.tensor(going, device=ids.device)
            state.reorder(kept)
            drafter.keep(going)
            fed, ids = fed[kept], ids[kept]
        start = fed.shape[1]
        known = [texts[row].ids for row in live]
        room = min(1 + drafter.num_tokens, config.max_tokens - 1 - start)
        guesses = drafter.propose(known, [room - (len(own) - start) for own in known])
        blocks = [
            [*own[start:], *_valid(g, logits.shape[-1])][:room] for own, g in zip(known, guesses, strict=True)
        ]
        width = max(map(len, blocks))
        block = torch.tensor([b + [pad_id] * (width - len(b)) for b in blocks], device=ids.device)
        scores = state.advance(block).float()
        fed = torch.cat((fed, block), 1)
        done: set[int] = set()
        for j in range(width):
            places = [place for place in range(len(live)) if place not in done and ready(place, start, j)]
            if places:
                at = torch.tensor(places, device=ids.device)
                on = decide(places, scores[at, j], torch.cat((ids[at], fed[at, : start + j + 1]), 1))
                done |= set(places) - set(on)
        going = [place for place in range(len(live)) if place not in done]
        if going:
            agreed = min(_agreeing(blocks[p], texts[live[p]].ids[start:], len(blocks[p])) for p in going)
            if width > agreed:
                state.rewind(width - agreed)
            fed = fed[:, : start + agreed]
    return [[text.hypothesis(config.length_penalty)] for text in texts]


class _Chooser:
    """Choose one token a row as plain search does."""

    def __init__(
        self, eos: tuple[int, ...], config: SearchConfig, rows: list[int], transforms: Sequence[Transform]
    ) -> None:
        self._eos, self._config, self._rows = eos, config, rows
        self._streams = Streams(config, rows) if config.temperature > 0 else None
        self._change, self._shape = compose(*transforms), compose(*filters(config))

    def __call__(
        self, logits: Tensor, ids: Tensor, live: list[int], steps: list[int]
    ) -> tuple[list[int], list[float]]:
        """Give the tokens and their log-probabilities for logits (N, V) after ids (N, T)."""
        allowed = logits
        if self._eos and min(steps) < self._config.min_tokens:
            early = torch.tensor([step < self._config.min_tokens for step in steps], device=logits.device)
            without = logits.index_fill(-1, torch.tensor(self._eos, device=logits.device), float("-inf"))
            allowed = torch.where(early[:, None], without, logits)
        allowed = self._change(allowed, ids)
        if self._streams is None:
            chosen = allowed.argmax(-1, keepdim=True)
        else:
            chosen = sample(self._shape(allowed, ids), self._streams.numbers(steps, live))
        nats = logits.log_softmax(-1).gather(-1, chosen)[:, 0].tolist()
        left = allowed.gather(-1, chosen)[:, 0].tolist()
        for row, step, n, a in zip(live, steps, nats, left, strict=True):
            if not (math.isfinite(n) and math.isfinite(a)):
                raise (not_finite if math.isnan(n) else nothing_left)(self._rows[row], step)
        return chosen[:, 0].tolist(), nats


def _agreeing(first: Sequence[int], second: Sequence[int], most: int) -> int:
    """Count the tokens at the beginning that two lists share, at most `most`."""
    pairs = zip(first[:most], second[:most], strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second), most))


def _valid(guesses: Sequence[int], vocabulary: int) -> list[int]:
    """Cut guesses at the first that the model doesn't know."""
    return list(guesses[: next((i for i, g in enumerate(guesses) if not 0 <= g < vocabulary), len(guesses))])
