"""Beam search: keep the likeliest hypotheses of each row, and give the best ended ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from regard.generate.config import Decoding, Hypothesis, SearchConfig
from regard.generate.coverage import Covered
from regard.generate.logits import Transform, compose, not_finite, nothing_left
from regard.nn.native import log_sum_exp

__all__ = ["beam_search"]

_NEVER = float("-inf")
# Below this many scores a row, looking at blocks first costs more than it saves.
_BLOCKED = 4096


@dataclass
class _Candidates:
    """Hold one step's best continuations of R rows, each row's best first."""

    scores: Tensor  # (R, C) sums that rank; -inf: none
    parents: Tensor  # (R, C) which running hypothesis of the row it continues
    tokens: Tensor  # (R, C)
    nats: Tensor | None  # (R, C) the model's own sums, where they differ from what ranks

    def select(self, order: Tensor) -> _Candidates:
        """Take those at `order` (R, N) of each row."""
        nats = None if self.nats is None else self.nats.gather(1, order)
        scores, parents, tokens = (part.gather(1, order) for part in (self.scores, self.parents, self.tokens))
        return _Candidates(scores, parents, tokens, nats)

    def first(self, count: int) -> _Candidates:
        """Take the best `count` of each row."""
        nats = None if self.nats is None else self.nats[:, :count]
        return _Candidates(self.scores[:, :count], self.parents[:, :count], self.tokens[:, :count], nats)

    def rows(self, kept: Tensor) -> _Candidates:
        """Take these rows."""
        nats = None if self.nats is None else self.nats[kept]
        return _Candidates(self.scores[kept], self.parents[kept], self.tokens[kept], nats)


class _Ended:
    """Keep the best ended hypotheses of one row, or of one of its groups, at most as many as it has beams."""

    def __init__(self, config: SearchConfig) -> None:
        self._config = config
        self._most = config.num_beams // config.beam_groups
        self.best: list[Hypothesis] = []

    def add(self, found: Hypothesis) -> None:
        # The sort is stable: of two equal ones the first to end stays in front.
        self.best = sorted([*self.best, found], key=lambda one: -one.normalised)[: self._most]

    def done(self, best_running: float, length: int) -> bool:
        """Tell whether the row is done, its best running hypothesis of `length` tokens having this sum."""
        if best_running == _NEVER:
            return True
        if len(self.best) < self._most:
            return False
        if self._config.early_stopping is True:
            return True
        # Sums only fall as texts grow. With a penalty above 0 the division by a greater length may raise them
        # again, at most to the sum of now divided by the greatest length; with one of 0 or below the present
        # length is the bound. A coverage penalty is never above 0, so that without it the bound still holds.
        if self._config.early_stopping == "never" and self._config.length_penalty > 0:
            length = self._config.max_tokens
        return best_running / length**self._config.length_penalty <= self.best[-1].normalised


def _merged(groups: Sequence[_Ended], count: int) -> list[Hypothesis]:
    """Give the best `count` of a row's groups."""
    # Where several tokens end a text, or several groups write it, the same text has ended more than once.
    distinct: dict[tuple[int, ...], Hypothesis] = {}
    for one in sorted((one for group in groups for one in group.best), key=lambda one: -one.normalised):
        distinct.setdefault(tuple(one.ids), one)
    return list(distinct.values())[:count]


def beam_search(
    state: Decoding,
    logits: Tensor,
    prompt: Tensor,
    *,
    eos: tuple[int, ...],
    pad_id: int,
    config: SearchConfig,
    rows: Sequence[int],
    transforms: Sequence[Transform] = (),
    stop: Callable[[int, list[int]], bool] | None = None,
) -> list[list[Hypothesis]]:
    """Search with `config.num_beams` hypotheses a row; `search` is the public face of it.

    At each step the running hypotheses of a row and all tokens compete by their sums of log-probabilities,
    and the best 2 x `num_beams` pairs are candidates ((n + 1) x `num_beams` with n > 1 end tokens). Of these,
    one that ends its text and is among the first `num_beams` is kept as ended, under `score /
    length**length_penalty` with the end token counted in the length; the best `num_beams` that end nothing
    run on. At `max_tokens` the first `num_beams` candidates are kept, whether they end or not.
    `early_stopping` in `SearchConfig` says when a row is done. With groups each is such a search of
    `num_beams / beam_groups` hypotheses; the first chooses freely, and each later one pays `diversity_penalty`
    for a token as often as hypotheses of earlier groups chose it at this step (Vijayakumar et al. 2016,
    arXiv:1610.02424). What it paid stays in its sums, and the best of all groups are given.

    These are the rules of the transformers library's beam search, so that scores and texts can be compared
    token for token.

    Args:
        state: the model's state after the prompts, one row each.
        logits: (B, V) float32 after the prompts.
        prompt: (B, T) int64, below 0 where padded; what `transforms` see in front of the new tokens.
        eos: the tokens that end a text.
        pad_id: fed in the place of hypotheses that have ended.
        config: how to search; `num_beams` may be 1 here.
        rows: the rows' numbers, for errors.
        transforms: changes of the log-probabilities, which are not normalised after them.
        stop: ends a hypothesis like an end token, except that its last token stays.

    Raises:
        RegardError: logits are NaN or infinite, or all tokens are forbidden before any text of a row has
            ended.
    """
    groups, batch = config.beam_groups, len(rows)
    beams = config.num_beams // groups
    if groups > 1:  # each group is a row of its own; those of one row stand together
        spread = torch.arange(batch, device=logits.device).repeat_interleave(groups)
        state.reorder(spread)
        logits, prompt, rows = logits[spread], prompt[spread], [row for row in rows for _ in range(groups)]
    kept_back = max(2, 1 + len(eos)) * beams
    change = compose(*transforms) if transforms else None
    ended = [_Ended(config) for _ in rows]
    live, width, ids = list(range(len(rows))), 1, prompt
    scores = logits.new_zeros(len(rows), 1)
    nats = scores if transforms or groups > 1 else None
    covered = state if isinstance(state, Covered) else None

    for step in range(config.max_tokens):
        banned = eos if step < config.min_tokens else ()
        if groups == 1:
            found = _candidates(logits, ids, scores, nats, count=kept_back, banned=banned, change=change)
        else:
            assert nats is not None
            found = _diverse(
                logits, ids, scores, nats, live=live, beams=beams, eos=eos, config=config,
                count=kept_back, banned=banned, change=change,
            )  # fmt: skip
        ends = _ends(found.tokens, eos)
        if stop is not None:
            _ask(stop, found, ends, ids[:, prompt.shape[1] :], live, groups)
        last = step + 1 == config.max_tokens
        best, ending = torch.stack((found.scores[:, 0], ends.any(1).to(scores.dtype))).tolist()
        for place, row in enumerate(live):
            if math.isnan(best[place]):
                raise not_finite(rows[row], step)
        if any(ending) or last:
            texts = ids[:, prompt.shape[1] :]
            extra = None if covered is None else covered.penalty(config.coverage_penalty).tolist()
            _harvest(
                found.first(beams), ends, texts, ended, live, eos=eos, config=config, last=last, extra=extra
            )
            # What ended makes room for the next best; where too few are left, -inf marks an idle slot.
            found.scores = found.scores.masked_fill(ends, _NEVER)
            found = found.select(found.scores.sort(dim=1, descending=True, stable=True).indices[:, :beams])
            found.tokens = found.tokens.masked_fill(found.scores == _NEVER, pad_id)
            best = found.scores[:, 0].tolist()
        else:
            found = found.first(beams)
        going = [place for place, row in enumerate(live) if not ended[row].done(best[place], step + 1)]
        if not going or last:
            break
        offsets = torch.arange(len(live), device=logits.device)[:, None] * width
        if len(going) < len(live):
            live = [live[place] for place in going]
            kept = torch.tensor(going, device=logits.device)
            offsets, found = offsets[kept], found.rows(kept)
        source = (found.parents + offsets).flatten()
        same = torch.arange(state.batch, device=source.device)
        if len(source) != len(same) or not torch.equal(source, same):
            state.reorder(source)
        fed = found.tokens.reshape(-1, 1)
        ids = torch.cat((ids.index_select(0, source), fed), 1)
        scores, nats, width = found.scores, found.nats, found.scores.shape[1]
        logits = state.advance(fed)[:, -1].float()

    results = []
    for first in range(0, len(ended), groups):
        own = _merged(ended[first : first + groups], config.num_return)
        if not own:
            raise nothing_left(rows[first], step)
        results.append(own)
    return results


def _candidates(
    logits: Tensor,
    ids: Tensor,
    scores: Tensor,
    nats: Tensor | None,
    *,
    count: int,
    banned: tuple[int, ...],
    change: Transform | None,
) -> _Candidates:
    """Find the best `count` continuations of each row; logits are (R * W, V), sums so far (R, W)."""
    batch, width = scores.shape
    vocabulary = logits.shape[-1]
    if nats is None:
        return _likeliest(logits, scores, count, banned)
    own = changed = logits - log_sum_exp(logits)[:, None]
    if banned:
        changed = changed.index_fill(-1, torch.tensor(banned, device=logits.device), _NEVER)
    if change is not None:
        changed = change(changed, ids)
    sums = (changed.reshape(batch, width, vocabulary) + scores[:, :, None]).view(batch, -1)
    best, places = _largest(sums, min(count, width * vocabulary))
    parents = places // vocabulary
    nats = nats.gather(1, parents) + own.view(batch, -1).gather(1, places)
    return _Candidates(best, parents, places % vocabulary, nats)


def _likeliest(logits: Tensor, scores: Tensor, count: int, banned: tuple[int, ...]) -> _Candidates:
    """Find them where nothing changes the scores: of each hypothesis the best few, then the best of these.

    Log-probabilities are made of those alone; of the others only the sum is needed.
    """
    batch, width = scores.shape
    few, tokens = _largest(logits, min(count + len(banned), logits.shape[-1]))
    sums = few - log_sum_exp(logits)[:, None] + scores.reshape(-1, 1)
    for token in banned:
        sums = sums.masked_fill(tokens == token, _NEVER)
    best, places = sums.view(batch, -1).topk(min(count, width * few.shape[1]), 1)
    return _Candidates(best, places // few.shape[1], tokens.view(batch, -1).gather(1, places), None)


def _diverse(
    logits: Tensor,
    ids: Tensor,
    scores: Tensor,
    nats: Tensor,
    *,
    live: list[int],
    beams: int,
    eos: tuple[int, ...],
    config: SearchConfig,
    count: int,
    banned: tuple[int, ...],
    change: Transform | None,
) -> _Candidates:
    """Let the groups choose one after another, each away from what those before it chose."""
    width, vocabulary = scores.shape[1], logits.shape[-1]
    chosen = logits.new_zeros(len(live), vocabulary)  # (R, V) how often earlier groups chose each token
    parts: list[_Candidates] = []
    order: list[int] = []
    for group in range(config.beam_groups):
        places = [place for place, row in enumerate(live) if row % config.beam_groups == group]
        if not places:
            continue
        at = torch.tensor(places, device=logits.device)
        slots = (at[:, None] * width + torch.arange(width, device=logits.device)).flatten()
        away = config.diversity_penalty * chosen[at].repeat_interleave(width, 0)

        def apart(changed: Tensor, own: Tensor, away: Tensor = away) -> Tensor:
            return (changed if change is None else change(changed, own)) - away

        found = _candidates(
            logits[slots], ids[slots], scores[at], nats[at], count=count, banned=banned, change=apart
        )
        parts.append(found)
        order += places
        running = ~_ends(found.tokens, eos) & (found.scores > _NEVER)
        running &= running.cumsum(1) <= beams
        rows = {row: place for place, row in enumerate(live)}
        for i, place in enumerate(places):
            tokens = found.tokens[i][running[i]]
            first = live[place] - group
            for later in range(group + 1, config.beam_groups):
                if (other := rows.get(first + later)) is not None:
                    chosen[other].index_add_(0, tokens, chosen.new_ones(len(tokens)))
    back = torch.tensor(order, device=logits.device).argsort()
    scores, parents, tokens, sums = (
        torch.cat([getattr(part, name) for part in parts])[back]
        for name in ("scores", "parents", "tokens", "nats")
    )
    return _Candidates(scores, parents, tokens, sums)


def _largest(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Find the `count` largest of each row of (R, N) and their places: `topk`, quicker for long rows.

    The largest `count` lie in the `count` blocks with the largest maxima, so only these are sorted. Block j
    holds the elements j, j + m, j + 2m and so on, whose maxima are taken over whole vectors.
    """
    batch, size = values.shape
    depth = 16
    blocks = size // depth
    if size < _BLOCKED or blocks <= 2 * count:
        top = values.topk(count, 1)
        return top.values, top.indices
    tops = values[:, : blocks * depth].view(batch, depth, blocks).amax(1).topk(count, 1).indices
    places = (tops[:, :, None] + torch.arange(0, blocks * depth, blocks, device=values.device)).flatten(1)
    tail = torch.arange(blocks * depth, size, device=values.device).expand(batch, -1)
    places = torch.cat((places, tail), 1)
    top = values.gather(1, places).topk(count, 1)
    return top.values, places.gather(1, top.indices)


def _ends(tokens: Tensor, eos: tuple[int, ...]) -> Tensor:
    """Mark the tokens that end a text."""
    ends = torch.zeros_like(tokens, dtype=torch.bool)
    for token in eos:
        ends |= tokens == token
    return ends


def _ask(
    stop: Callable[[int, list[int]], bool],
    found: _Candidates,
    ends: Tensor,
    ids: Tensor,
    live: list[int],
    groups: int,
) -> None:
    """Mark in `ends` the candidates that the caller stops."""
    texts, width = ids.tolist(), ids.shape[0] // len(live)
    known = zip(
        found.scores.tolist(), found.parents.tolist(), found.tokens.tolist(), ends.tolist(), strict=True
    )
    for place, row in enumerate(live):
        for rank, (score, parent, token, over) in enumerate(zip(*next(known), strict=True)):
            if score > _NEVER and not over and stop(row // groups, [*texts[place * width + parent], token]):
                ends[place, rank] = True


def _harvest(
    found: _Candidates,
    finished: Tensor,
    ids: Tensor,
    ended: list[_Ended],
    live: list[int],
    *,
    eos: tuple[int, ...],
    config: SearchConfig,
    last: bool,
    extra: list[float] | None = None,
) -> None:
    """Keep those of the first `num_beams` candidates that end; at the last step all do, finished or not.

    `extra` is added to what orders them, for each running hypothesis that they come from.
    """
    length, width = ids.shape[1] + 1, ids.shape[0] // len(live)
    own = found.scores if found.nats is None else found.nats
    finished = finished[:, : found.scores.shape[1]]
    ends = torch.ones_like(finished) if last else finished
    over = finished.tolist()
    sums, nats, parents, tokens = (
        found.scores.tolist(),
        own.tolist(),
        found.parents.tolist(),
        found.tokens.tolist(),
    )
    for place, rank in ends.nonzero().tolist():
        total = sums[place][rank]
        if total == _NEVER:
            continue
        parent = place * width + parents[place][rank]
        text, token = ids[parent].tolist(), tokens[place][rank]
        if token not in eos:
            text.append(token)
        normalised = total / length**config.length_penalty + (0.0 if extra is None else extra[parent])
        ended[live[place]].add(Hypothesis(text, nats[place][rank], normalised, over[place][rank]))
