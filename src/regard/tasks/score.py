"""Score: how likely a text is under a model, token by token.

decoder            log p(token | the tokens before it)
encoder-decoder    log p(token | a source, the target's tokens before it), the end token among them
masked encoder     log p(token | all other tokens), each token masked in turn: the pseudo-log-likelihood
                   (Salazar et al., arXiv:1910.14659, section 2)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from regard.config import ModelConfig
from regard.data.tokenizers import Tokenizer
from regard.errors import ConfigError
from regard.generate.config import check_count
from regard.tasks.base import Parts, framed, need
from regard.tasks.framing import best_windows, opening, refuse
from regard.tasks.inputs import Input, check_lengths, make_inputs
from regard.tasks.verbs import check_verb

__all__ = ["Score", "TokenScore", "check_score", "score"]

Way = Literal["causal", "conditional", "pseudo"]
_ROWS = 256  # rows of scores over the whole vocabulary in memory at once


@dataclass(frozen=True)
class TokenScore:
    """Hold one token: what it is, its characters [start, end) in the text, and its log-probability in nats.

    An end token stands behind the text and has no characters. `logprob` is None where nothing stood before the first
    token, from which it could be told.
    """

    token: str
    start: int
    end: int
    logprob: float | None


@dataclass(frozen=True)
class Score:
    """Hold how likely a text is.

    Attributes:
        logprob: the sum over the scored tokens, in nats.
        per_token: its mean over them; None where none was scored.
        perplexity: e to the minus mean; None where none was scored.
        bits_per_character: over the characters that the scored tokens stand for; None where there are none.
        scored: how many tokens were scored.
        tokens: how many tokens the text took, special ones included, and a source's.
        way: causal (given what stands before), conditional (given a source too), or pseudo (given all the rest).
        token_scores: each of the text's tokens.
        windows: how many windows the text was read in; 1 where it fits the context.
    """

    logprob: float
    per_token: float | None
    perplexity: float | None
    bits_per_character: float | None
    scored: int
    tokens: int
    way: Way
    token_scores: tuple[TokenScore, ...]
    windows: int = 1


@dataclass(frozen=True)
class _Row:
    """Hold what the model reads at once, and which scores are taken from it: (its position, the token there, where to).

    `where` counts the tokens of the text that is scored. `mask` takes the wanted token's place in a masked encoder.
    """

    text: int
    ids: tuple[int, ...]
    wanted: tuple[tuple[int, int, int], ...]
    source: tuple[int, ...] = ()
    mask: int | None = None


@dataclass(frozen=True)
class _Text:
    """Hold a text that is scored: its pieces with their characters, the rows to read, and what it takes."""

    pieces: list[tuple[int, int, int]]
    rows: list[_Row]
    tokens: int
    windows: int
    longest: int


def score(
    parts: Parts,
    texts: Sequence[str],
    *,
    source: str | Sequence[str] | None = None,
    windows: bool = False,
    stride: int | None = None,
    target_tokenizer: Tokenizer | None = None,
    batch_tokens: int = 8192,
    on_done: Callable[[int], None] = lambda count: None,
) -> list[Score]:
    """Give the log-probability of each text, and of each of its tokens.

    A decoder's first token is scored after what stood before texts in training: the beginning of the tokenizer's
    frame, else a published model's bos, or the end token of a model of ours. Where there is none it isn't scored, and
    `scored` says so. A decoder's score has no end token; an encoder-decoder's has, since it chooses when to stop.

    Args:
        parts: a decoder, an encoder-decoder or a masked encoder, and its tokenizer.
        texts: what is scored; for an encoder-decoder the targets.
        source: what an encoder-decoder reads: one for all texts, or one for each.
        windows: read a text beyond the context in overlapping windows; each token is scored once.
        stride: of a decoder's windows, in tokens: each new one scores so many, after context - stride others. Smaller
            gives more context and takes longer; None: half the context.
        target_tokenizer: the targets', where it is another one than the sources' (Marian).
        batch_tokens: tokens in memory at once.
        on_done: told after each batch how many rows it finished.

    Raises:
        ConfigError: the model scores nothing, or a setting has no effect on it or is out of range.
        DataError: a text is longer than the context.
    """
    check_count("batch_tokens", batch_tokens, low=1, high=10**9)
    plans = _plans(parts, texts, source, windows, stride, target_tokenizer)
    refuse(_problems(parts.config, plans), texts)
    found: list[dict[int, float]] = [{} for _ in plans]
    for group in _groups([row for plan in plans for row in plan.rows], batch_tokens):
        places = [(row.text, where) for row in group for _, _, where in row.wanted]
        for (text, where), value in zip(places, _logprobs(parts, group), strict=True):
            found[text][where] = value
        on_done(len(group))
    tokenizer = target_tokenizer or parts.tokenizer
    way: Way = {"decoder": "causal", "encoder": "pseudo"}.get(parts.config.kind, "conditional")  # type: ignore[assignment]
    return [
        _score(one, plan, scores, tokenizer, way)
        for one, plan, scores in zip(texts, plans, found, strict=True)
    ]


def check_score(
    parts: Parts, texts: Sequence[str], *, source: str | Sequence[str] | None = None, windows: bool = False,
    stride: int | None = None, target_tokenizer: Tokenizer | None = None,
) -> dict[int, str]:  # fmt: skip
    """Find the texts that `score` would refuse: the number of each, from 0, and what is wrong with it."""
    return _problems(parts.config, _plans(parts, texts, source, windows, stride, target_tokenizer))


def _plans(
    parts: Parts, texts: Sequence[str], source: str | Sequence[str] | None, windows: bool, stride: int | None,
    target_tokenizer: Tokenizer | None,
) -> list[_Text]:  # fmt: skip
    """Say for each text what must be read."""
    config = parts.config
    check_verb(config, "score")
    if stride is not None:
        if config.kind != "decoder" or not windows:
            raise ConfigError("stride is for the windows of a decoder; leave it out, or set windows too.")
        check_count("stride", stride, low=1, high=config.context)
    if config.kind != "encoder-decoder":
        if source is not None:
            raise ConfigError(
                f"source has no effect: this model is no encoder-decoder but of kind {config.kind}."
            )
        if config.kind == "decoder":
            step = stride or max(1, config.context // 2)
            return [_causal(parts, i, text, windows, step) for i, text in enumerate(texts)]
        need(parts.tokenizer.mask_id, "mask token")
        return [_pseudo(parts, i, text, windows) for i, text in enumerate(texts)]
    if windows:
        raise ConfigError("windows has no effect: an encoder-decoder must see all of its source and target.")
    if source is None and texts:
        raise ConfigError("this model is an encoder-decoder: give the source that the texts are targets of.")
    sources = [source or ""] * len(texts) if isinstance(source, str) else list(source or [])
    if len(sources) != len(texts):
        raise ConfigError(f"{len(sources)} sources and {len(texts)} texts; give one source, or one for each.")
    tokenizer = target_tokenizer or parts.tokenizer
    return [
        _conditional(parts, i, *pair, tokenizer) for i, pair in enumerate(zip(sources, texts, strict=True))
    ]


def _causal(parts: Parts, number: int, text: str, windows: bool, stride: int) -> _Text:
    ids, spans = parts.tokenizer.offsets(text)
    before, context = opening(parts), parts.config.context
    whole = [*before, *ids]
    last = len(whole) - 1  # the last token is told and never read
    rows, done = [], max(1, len(before))  # tokens that are already scored, or never are
    if windows and last > context:
        begins = [0, *range(stride, last - context, stride), last - context]
    else:
        begins = [0]
    for begin in begins:
        end = min(begin + context, last) if windows else last
        wanted = [(k - 1 - begin, whole[k], k - len(before)) for k in range(done, end + 1)]
        if wanted:
            rows.append(_Row(number, tuple(whole[begin:end]), tuple(wanted)))
        done = max(done, end + 1)
    pieces = [(i, *span) for i, span in zip(ids, spans, strict=True)]
    return _Text(pieces, rows, len(whole), max(1, len(rows)), max(0, last if not windows else 0))


def _pseudo(parts: Parts, number: int, text: str, windows: bool) -> _Text:
    ids, spans = parts.tokenizer.offsets(text)
    mask = need(parts.tokenizer.mask_id, "mask token")
    cut: list[Input] = make_inputs(parts, [ids], windows=windows)
    problem = bool(check_lengths(cut, parts.config))
    rows = []
    for k, index in enumerate([] if problem else ids):
        one = cut[best_windows(cut, k)]
        place = one.start + k - one.first
        rows.append(_Row(number, one.ids, ((place, index, k),), mask=mask))
    pieces = [(i, *span) for i, span in zip(ids, spans, strict=True)]
    return _Text(pieces, rows, cut[0].total, len(cut), max(len(one.ids) for one in cut))


def _conditional(parts: Parts, number: int, source: str, text: str, tokenizer: Tokenizer) -> _Text:
    config, end = parts.config, need(parts.config.eos_id, "eos_id")
    read = framed(parts.tokenizer, parts.tokenizer.encode(source), end=end)
    ids, spans = tokenizer.offsets(text)
    start = [need(config.start, "start_id")]
    if parts.published is not None and parts.published.first is not None:
        start.append(parts.published.first)  # forced, and so not scored
    whole = [*start, *ids, end]
    wanted = tuple((k - 1, whole[k], k - len(start)) for k in range(len(start), len(whole)))
    pieces = [*((i, *span) for i, span in zip(ids, spans, strict=True)), (end, len(text), len(text))]
    row = _Row(number, tuple(whole[:-1]), wanted, tuple(read))
    return _Text(pieces, [row], len(read) + len(whole), 1, max(len(read), len(whole) - 1))


def _problems(config: ModelConfig, plans: Sequence[_Text]) -> dict[int, str]:
    way = (
        "Shorten it."
        if config.kind == "encoder-decoder"
        else "Shorten it, or read it in windows (--windows)."
    )
    return {
        i: f"has {plan.longest} tokens; this model's context is {config.context}. {way}"
        for i, plan in enumerate(plans)
        if plan.longest > config.context
    }


def _groups(rows: Sequence[_Row], budget: int) -> Iterator[list[_Row]]:
    """Put rows of like lengths side by side, longest first, at most `budget` padded tokens."""
    group: list[_Row] = []
    width = 0
    for row in sorted(rows, key=lambda row: (-len(row.source), -len(row.ids))):
        width = max(width, len(row.ids) + len(row.source))
        if group and (len(group) + 1) * width > budget:
            yield group
            group, width = [], len(row.ids) + len(row.source)
        group.append(row)
    if group:
        yield group


def _logprobs(parts: Parts, rows: Sequence[_Row]) -> list[float]:
    """Give the wanted log-probabilities of a batch, row by row."""
    module: Any = parts.module
    ids, mask = _padded(parts, [row.ids for row in rows])
    for line, row in enumerate(rows):
        if row.mask is not None:
            ids[line, row.wanted[0][0]] = row.mask
    with torch.inference_mode():
        if parts.config.kind == "encoder-decoder":
            source, source_mask = _padded(parts, [row.source for row in rows])
            hidden = module.hidden(source, ids, source_mask=source_mask, target_mask=mask)
        else:
            hidden = module.hidden(ids, key_mask=mask)
        lines = [i for i, row in enumerate(rows) for _ in row.wanted]
        wanted = [what for row in rows for what in row.wanted]
        chosen: Float[Tensor, "N D"] = hidden[lines, [place for place, _, _ in wanted]]
        truths = torch.tensor([index for _, index, _ in wanted], device=parts.device)
        found: list[float] = []
        for part, true in zip(chosen.split(_ROWS), truths.split(_ROWS), strict=True):
            logits = module.head(part).float()
            found += (logits.gather(1, true[:, None])[:, 0] - logits.logsumexp(-1)).tolist()
    return found


def _padded(parts: Parts, rows: Sequence[Sequence[int]]) -> tuple[Int[Tensor, "B T"], Tensor]:
    width, pad = max(len(row) for row in rows), parts.config.pad_id or 0
    ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], device=parts.device)
    lengths = torch.tensor([len(row) for row in rows], device=parts.device)
    return ids, torch.arange(width, device=parts.device) < lengths[:, None]


def _score(text: str, plan: _Text, found: Mapping[int, float], tokenizer: Tokenizer, way: Way) -> Score:
    names = tokenizer.tokens([index for index, _, _ in plan.pieces])
    tokens = tuple(
        TokenScore(name, start, end, found.get(k))
        for k, (name, (_, start, end)) in enumerate(zip(names, plan.pieces, strict=True))
    )
    total, scored = math.fsum(found.values()), len(found)
    unscored = max((one.end for one in tokens if one.logprob is None), default=0)
    characters = len(text) - unscored
    mean = total / scored if scored else None
    return Score(
        logprob=total,
        per_token=mean,
        perplexity=None if mean is None else math.exp(min(-mean, 700)),
        bits_per_character=-total / math.log(2) / characters if scored and characters else None,
        scored=scored,
        tokens=plan.tokens,
        way=way,
        token_scores=tokens,
        windows=plan.windows,
    )
